//! From a chosen backend to its answer: endpoint choice, connection pool, deadlines and safe retries.

mod policy;

pub use policy::{Retry, Timeouts};

//! Rate limits by GCRA over a store of fixed size that workers share without a lock.

mod policy;

pub use policy::{RateLimit, RateLimitKey};

//! Rate limits by GCRA over a store of fixed size that workers share without a lock.

mod gcra;
mod layer;
mod policy;
mod quota;
mod store;
mod sync;
mod table;

pub use layer::{LimitRate, LimitRateFuture, RateLimitLayer};
pub use policy::{RateLimit, RateLimitKey};
pub use store::Store;

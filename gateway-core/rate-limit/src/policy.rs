//! Settings of a limit as a route carries them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use towpath_gateway_core::Policy;

/// A limit: so many requests per period for each key, with a burst on top of the even pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// `namespace/name` of the policy: keys of different policies never share a bucket, and a bucket outlives a
    /// change of configuration.
    pub name: Arc<str>,
    /// Requests per period.
    pub requests: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// Requests that may come at once (at least 1; usually `requests`).
    pub burst: NonZeroU32,
    /// Whose requests are counted together.
    pub key: RateLimitKey,
}

impl Policy for RateLimit {}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RateLimitKey {
    /// Those of one consumer; requests without a consumer are counted by address.
    #[default]
    Consumer,
    /// Those from one client address: that of the peer, or the one that trusted proxies tell.
    Address,
}

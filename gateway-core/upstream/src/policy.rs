//! Settings of deadlines and retries as a route carries them.

use std::time::Duration;

use http::StatusCode;
use towpath_gateway_core::Policy;

/// How long a request may take (Gateway API, `HTTPRouteTimeouts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's arrival to the response head, all tries together; `None`: no limit.
    pub request: Option<Duration>,
    /// One try, to its response head; `None`: no limit of its own.
    pub backend_request: Option<Duration>,
}

impl Policy for Timeouts {}

impl Default for Timeouts {
    /// 15 s for the request, as Envoy routes have it; no limit of their own for tries.
    fn default() -> Self {
        Self { request: Some(Duration::from_secs(15)), backend_request: None }
    }
}

/// When a request is sent again.
///
/// Whatever is set here, a request that may have been processed is repeated only if its method is idempotent
/// (RFC 9110 section 9.2.2), and only if its body is still in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first. 0 turns retries off.
    pub attempts: u32,
    /// Response statuses that count as failures worth another try.
    pub codes: Vec<StatusCode>,
    /// Wait before the first retry; doubled each time, with jitter, at most ten times as long.
    pub backoff: Duration,
}

impl Policy for Retry {}

impl Default for Retry {
    /// One retry of what certainly was not processed or is idempotent, after 25 ms; no status is retried.
    fn default() -> Self {
        Self { attempts: 1, codes: Vec::new(), backoff: Duration::from_millis(25) }
    }
}

//! Counters and histograms that workers fill without meeting each other.

mod collect;
mod recent;
mod series;
mod shard;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

pub use shard::MetricsShard;

use collect::Sum;
use shard::Shared;

/// The metrics of a process. Clones share them.
///
/// | name | labels |
/// |---|---|
/// | `towpath_requests_total` | `role`, `listener`, `route`, `code` (`0`: the client left before the answer), `reason` |
/// | `towpath_request_duration_seconds` | `role`, `listener`, `route`, `code_class` |
/// | `towpath_flows_total` | `role`, `listener`, `protocol` (`TCP`, `TLS`, `UDP`), `route`, `reason` |
/// | `towpath_flow_received_bytes_total`, `towpath_flow_sent_bytes_total` | the same; counted when the flow ends |
/// | `towpath_requests_refused_total` | `policy`, `reason` |
/// | `towpath_authorization_dry_run_total` | `policy`, `verdict` (`allow`, `deny`): what policies in dry-run would decide |
/// | `towpath_authorization_audit_total` | `policy` |
/// | `towpath_access_log_dropped_total` | none |
///
/// Requests that no route took have the route `none`, those that ended well the reason `none`: the number of series
/// is bounded by the configuration, not by what clients send.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    shared: Arc<Shared>,
}

impl Metrics {
    /// No shards yet.
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let mut registry = Registry::with_prefix("towpath");
        registry.register_collector(Box::new(Sum(shared.clone())));
        Self { registry: Arc::new(Mutex::new(registry)), shared }
    }

    /// A shard for one worker. What it counted stays in the sum when the worker ends.
    pub fn shard(&self) -> MetricsShard {
        MetricsShard::new(&self.shared)
    }

    /// Lets other parts add metrics or collectors of their own (certificate expiry, pool sizes). Names are prefixed
    /// with `towpath_`. The registry is locked here and while metrics are scraped, never on the request path.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics in the `OpenMetrics` text format. Fails if a collector does.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(out)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

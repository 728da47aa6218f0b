//! Figures of the process itself on its metrics page.

use std::time::{SystemTime, UNIX_EPOCH};

use towpath_observability::Metrics;
use towpath_observability::prometheus_client::metrics::counter::Counter;
use towpath_observability::prometheus_client::metrics::gauge::Gauge;

/// What a process tells about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    certificate_expiry: Gauge,
    errors: Gauge,
    applied: Counter,
    rejected: Counter,
}

impl Gauges {
    /// Puts the figures on the metrics page.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let gauges = Self::default();
        metrics.register(|registry| {
            registry.register(
                "certificate_expiry_seconds",
                "When the workload certificate in use expires, in seconds since the epoch; 0 without one",
                gauges.certificate_expiry.clone(),
            );
            registry.register(
                "config_errors",
                "Errors in the configuration now in force",
                gauges.errors.clone(),
            );
            registry.register("config_applied", "Configurations put in force", gauges.applied.clone());
            registry.register(
                "config_rejected",
                "Configurations put in force with errors: what is wrong in them is not",
                gauges.rejected.clone(),
            );
        });
        gauges
    }

    /// A new certificate is in use.
    pub(crate) fn certificate(&self, not_after: SystemTime) {
        let seconds = not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// No certificate is in use any more.
    pub(crate) fn no_certificate(&self) {
        self.certificate_expiry.set(0);
    }

    /// A configuration with this many errors is in force.
    pub(crate) fn configuration(&self, errors: usize) {
        self.applied.inc();
        if errors > 0 {
            self.rejected.inc();
        }
        self.errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
    }
}

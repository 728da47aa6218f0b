//! Refused mesh connections on the metrics page.

use std::fmt;

use towpath_mesh_mtls::{Refusal, Refusals};
use towpath_observability::Metrics;
use towpath_observability::prometheus_client::collector::Collector;
use towpath_observability::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use towpath_observability::prometheus_client::metrics::MetricType;
use towpath_observability::prometheus_client::metrics::counter::ConstCounter;

#[derive(Debug)]
struct Refused(Refusals);

/// Puts the counters on the page as `towpath_connections_refused_total`, by `reason`.
pub(crate) fn register(metrics: &Metrics, refusals: Refusals) {
    metrics.register(|registry| registry.register_collector(Box::new(Refused(refusals))));
}

impl Collector for Refused {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections that ended before any of their requests was read";
        let mut family = encoder.encode_descriptor("connections_refused", help, None, MetricType::Counter)?;
        for kind in Refusal::ALL {
            let labels = [("reason", kind.label())];
            ConstCounter::new(self.0.count(kind)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

//! A cluster's ingress: the only open ports, and routing behind them. Consumers and limits are the gateway's duty.

use tower::ServiceBuilder;
use towpath_gateway_core::{Live, RescueLayer};
use towpath_observability::RecordLayer;
use towpath_routing::{FilterLayer, NormalizeLayer, RouteLayer, Routes};
use towpath_trace::TraceLayer;

use crate::{HttpStack, Parts};

/// The stack of an ingress listener.
pub fn ingress(parts: Parts, routes: Live<Routes>) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new())
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(NormalizeLayer::edge())
        .layer(RouteLayer::new(routes))
        .layer(FilterLayer::new())
        .service(parts.upstream)
}

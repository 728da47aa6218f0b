//! The API gateway: who asks, how often they may, and where it goes.

use tower::ServiceBuilder;
use towpath_auth::ApiKeyLayer;
use towpath_gateway_core::{Live, RescueLayer};
use towpath_observability::RecordLayer;
use towpath_rate_limit::RateLimitLayer;
use towpath_routing::{FilterLayer, NormalizeLayer, RouteLayer, Routes};
use towpath_trace::TraceLayer;

use crate::{HttpStack, Parts};

/// The stack of an edge listener of the API gateway. It is unboxed, so that a test sees which layers there are;
/// `HttpService::new` boxes it.
pub fn gateway(parts: Parts, routes: Live<Routes>) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new())
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(NormalizeLayer::edge())
        .layer(RouteLayer::new(routes))
        .layer(ApiKeyLayer::new())
        .layer(RateLimitLayer::new(parts.limits))
        .layer(FilterLayer::new())
        .service(parts.upstream)
}

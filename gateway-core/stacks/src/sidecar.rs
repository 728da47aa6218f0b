//! A sidecar, both ways.

use tower::ServiceBuilder;
use towpath_auth::{AuthorizationPolicies, AuthorizeLayer};
use towpath_gateway_core::{Live, RescueLayer};
use towpath_observability::RecordLayer;
use towpath_routing::{FilterLayer, NormalizeLayer, RouteLayer, Routes};
use towpath_trace::TraceLayer;

use crate::{HttpStack, Parts};

/// What a sidecar's inbound stack needs besides its parts.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The one route, to the application.
    pub routes: Live<Routes>,
    /// Who may do what.
    pub authorization: Live<AuthorizationPolicies>,
    /// The port as policies name it, wherever the sidecar listens.
    pub port: u16,
}

/// The stack behind the sidecar's mTLS, towards its application.
pub fn sidecar_inbound(parts: Parts, inbound: Inbound) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new())
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(NormalizeLayer::mesh())
        .layer(RouteLayer::new(inbound.routes))
        .layer(AuthorizeLayer::new(inbound.authorization).port(inbound.port))
        .layer(FilterLayer::new())
        .service(parts.upstream)
}

/// The stack of an outbound listener, from the application (or the gateway that the sidecar is attached to) to a service.
pub fn sidecar_outbound(parts: Parts, routes: Live<Routes>) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new())
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(NormalizeLayer::mesh())
        .layer(RouteLayer::new(routes))
        .layer(FilterLayer::new())
        .service(parts.upstream)
}

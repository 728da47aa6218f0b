//! A sidecar, both ways.

use tower::ServiceBuilder;
use towpath_auth::{
    AuthorizeLayer, CustomAuthorizeLayer, ExternalAuthLayer, ForwardClientCertLayer, JwtLayer,
};
use towpath_gateway_core::{Live, RescueLayer};
use towpath_observability::RecordLayer;
use towpath_routing::{
    CorsLayer, FilterLayer, InjectLayer, MirrorLayer, Normalization, PersistLayer, RespondLayer, RouteLayer,
    Routes,
};
use towpath_trace::TraceLayer;

use crate::{Entry, HttpStack, Parts, Side, beside};

/// The stack behind the sidecar's mTLS, towards its application.
pub fn sidecar_inbound(parts: Parts, entry: Entry) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new().header(false))
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(Side::Mesh.normalize(entry.normalization))
        .layer(ForwardClientCertLayer::append())
        .layer(RouteLayer::new(entry.routes))
        .layer(
            CustomAuthorizeLayer::new(entry.authorization.clone(), parts.upstream.clone()).port(entry.port),
        )
        .layer(JwtLayer::new(entry.authentication))
        .layer(AuthorizeLayer::new(entry.authorization).port(entry.port))
        .layer(FilterLayer::new())
        .service(parts.upstream)
}

/// The stack of an outbound listener, from the application (or the gateway that the sidecar is attached to) to a service.
pub fn sidecar_outbound(
    parts: Parts,
    routes: Live<Routes>,
    normalization: Live<Normalization>,
) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new().header(false))
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(Side::Mesh.normalize(normalization))
        .layer(RouteLayer::new(routes))
        .layer(CorsLayer::new())
        .layer(ExternalAuthLayer::new(parts.upstream.clone()))
        .layer(InjectLayer::new())
        .layer(RespondLayer::new())
        .layer(PersistLayer::new())
        .layer(FilterLayer::new())
        .layer(MirrorLayer::new(beside))
        .service(parts.upstream)
}

//! The API gateway: who asks, how often they may, and where it goes.

use tower::ServiceBuilder;
use towpath_auth::{ApiKeyLayer, AuthorizeLayer, CustomAuthorizeLayer, ExternalAuthLayer, JwtLayer};
use towpath_gateway_core::RescueLayer;
use towpath_observability::RecordLayer;
use towpath_rate_limit::RateLimitLayer;
use towpath_routing::{
    CorsLayer, FilterLayer, InjectLayer, MirrorLayer, PersistLayer, RespondLayer, RouteLayer,
};
use towpath_trace::TraceLayer;

use crate::{Entry, HttpStack, Parts, Side, beside};

/// The stack of an edge listener of the API gateway. It is unboxed, so that a test sees which layers there are;
/// `HttpService::new` boxes it.
pub fn gateway(parts: Parts, entry: Entry) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new().header(false))
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(Side::Edge.normalize(entry.normalization))
        .layer(RouteLayer::new(entry.routes))
        .layer(CorsLayer::new())
        .layer(ApiKeyLayer::new())
        .layer(ExternalAuthLayer::new(parts.upstream.clone()))
        .layer(
            CustomAuthorizeLayer::new(entry.authorization.clone(), parts.upstream.clone()).port(entry.port),
        )
        .layer(JwtLayer::new(entry.authentication))
        .layer(AuthorizeLayer::new(entry.authorization).port(entry.port))
        .layer(RateLimitLayer::new(parts.limits))
        .layer(InjectLayer::new())
        .layer(RespondLayer::new())
        .layer(PersistLayer::new())
        .layer(FilterLayer::new())
        .layer(MirrorLayer::new(beside))
        .service(parts.upstream)
}

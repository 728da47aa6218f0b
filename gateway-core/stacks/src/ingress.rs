//! A cluster's ingress: the only open ports, and routing behind them. Consumers and limits are the gateway's duty.

use tower::ServiceBuilder;
use towpath_auth::{AuthorizeLayer, CustomAuthorizeLayer, ExternalAuthLayer, JwtLayer};
use towpath_gateway_core::RescueLayer;
use towpath_observability::RecordLayer;
use towpath_routing::{FilterLayer, InjectLayer, MirrorLayer, PersistLayer, RespondLayer, RouteLayer};
use towpath_trace::TraceLayer;

use crate::{Entry, HttpStack, Parts, Side, beside};

/// The stack of an ingress listener.
pub fn ingress(parts: Parts, entry: Entry) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(TraceLayer::new().header(false))
        .layer(RecordLayer::new(parts.recorder))
        .layer(RescueLayer::new())
        .layer(Side::Edge.normalize(entry.normalization))
        .layer(RouteLayer::new(entry.routes))
        .layer(ExternalAuthLayer::new(parts.upstream.clone()))
        .layer(
            CustomAuthorizeLayer::new(entry.authorization.clone(), parts.upstream.clone()).port(entry.port),
        )
        .layer(JwtLayer::new(entry.authentication))
        .layer(AuthorizeLayer::new(entry.authorization).port(entry.port))
        .layer(InjectLayer::new())
        .layer(RespondLayer::new())
        .layer(PersistLayer::new())
        .layer(FilterLayer::new())
        .layer(MirrorLayer::new(beside))
        .service(parts.upstream)
}

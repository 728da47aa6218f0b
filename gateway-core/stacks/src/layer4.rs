//! Layer 4: who may connect, and where it goes. What HTTP there may be in the bytes is nobody's business here.

use std::convert::Infallible;

use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};
use towpath_auth::{AuthorizationPolicies, ConnectionAuthorizeLayer};
use towpath_gateway_core::{Accepted, BoxDatagrams, BoxIo, Fault, Flow, HttpService, Live};
use towpath_observability::{FlowRecordLayer, Recorder};
use towpath_routing::{FlowRouteLayer, FlowRoutes, OriginalDestinationLayer};
use towpath_upstream::ForwardDatagrams;

/// What a listener of layer 4 reads, and configuration swaps.
#[derive(Debug, Clone)]
pub struct FlowEntry {
    /// The routes of the socket.
    pub routes: Live<FlowRoutes>,
    /// Who may do what. Rules that name HTTP hold no flow to be allowed, and widen where they deny.
    pub authorization: Live<AuthorizationPolicies>,
    /// The port as policies name it, wherever the socket is.
    pub port: u16,
}

/// What one worker gives to its stacks of layer 4.
#[derive(Debug, Clone)]
pub struct FlowParts {
    /// Records flows of the listener that the stack is for.
    pub recorder: Recorder,
    /// This worker's way out, from [`streams`](crate::streams).
    pub streams: Streams,
    /// This worker's way out for requests, by which external authorizers are asked.
    pub upstream: HttpService,
}

/// What carries connections: the boxed end of a stack of layer 4.
pub type Streams = BoxCloneSyncService<Flow<BoxIo>, (), Fault>;

/// What a listener hands its connections to.
pub trait AcceptStack:
    Service<Accepted, Response = (), Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> AcceptStack for S where
    S: Service<Accepted, Response = (), Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The stack of a listener for connections, inside whatever ends or reads TLS.
pub fn layer4(parts: FlowParts, entry: FlowEntry) -> impl AcceptStack {
    ServiceBuilder::new()
        .layer(FlowRecordLayer::new(parts.recorder))
        .layer(ConnectionAuthorizeLayer::tcp(entry.authorization).port(entry.port).asking(parts.upstream))
        .layer(FlowRouteLayer::new(entry.routes))
        .service(parts.streams)
}

/// The stack for captured connections that no listener is for: they go where they were for.
pub fn passthrough(parts: FlowParts) -> impl AcceptStack {
    ServiceBuilder::new()
        .layer(FlowRecordLayer::new(parts.recorder))
        .layer(OriginalDestinationLayer::new())
        .service(parts.streams)
}

/// The stack of a listener for datagrams.
pub fn datagrams(
    parts: FlowParts,
    entry: FlowEntry,
) -> impl Service<Flow<BoxDatagrams>, Response = (), Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    ServiceBuilder::new()
        .layer(FlowRecordLayer::new(parts.recorder))
        .layer(ConnectionAuthorizeLayer::tcp(entry.authorization).port(entry.port).asking(parts.upstream))
        .layer(FlowRouteLayer::new(entry.routes))
        .service(ForwardDatagrams::new())
}

//! The stacks of Towpath. Each is one function that reads from top to bottom as a request passes it:
//!
//! - [`gateway`]: the API gateway, north-south, with consumers and limits
//! - [`ingress`]: a cluster's ingress, north-south, routing alone
//! - [`sidecar_inbound`]: east-west, towards the application of the sidecar
//! - [`sidecar_outbound`]: east-west, from the application of the sidecar
//! - [`upstream`]: below the seam of all of them: deadline, retries, endpoint choice, connections
//! - [`explain`]: what the first of their layers decide about a request, and why
//! - [`layer4`], [`datagrams`]: connections and datagrams as they are, for `TCPRoute`, `TLSRoute` and `UDPRoute`
//! - [`passthrough`]: captured connections that no route is for
//!
//! A stack is built once per listener and worker. What changes with configuration is behind [`Live`] handles.
//!
//! [`Live`]: towpath_gateway_core::Live

mod explain;
mod gateway;
mod ingress;
mod layer4;
mod sidecar;
mod upstream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use explain::{Explained, Side, explain};
pub use gateway::gateway;
pub use ingress::ingress;
pub use layer4::{AcceptStack, FlowEntry, FlowParts, Streams, datagrams, layer4, passthrough};
pub use sidecar::{sidecar_inbound, sidecar_outbound};
use tower_service::Service;
use towpath_auth::{AuthorizationPolicies, RequestAuthentications};
use towpath_gateway_core::{Fault, HttpService, Live, Request, Response};
use towpath_observability::Recorder;
use towpath_rate_limit::Store;
use towpath_routing::{Normalization, Routes};
pub use upstream::{Reach, streams, upstream};

/// What the stack of a listener that requests come in by reads, and configuration swaps.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The routes of the socket.
    pub routes: Live<Routes>,
    /// The normal form of requests.
    pub normalization: Live<Normalization>,
    /// Whose tokens are taken.
    pub authentication: Live<RequestAuthentications>,
    /// Who may do what.
    pub authorization: Live<AuthorizationPolicies>,
    /// The port as policies name it, wherever the socket is.
    pub port: u16,
}

/// What one worker gives to its stacks.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Records requests of the listener that the stack is for.
    pub recorder: Recorder,
    /// Buckets of rate limits, shared by all workers.
    pub limits: Arc<Store>,
    /// This worker's way out, from [`upstream`].
    pub upstream: HttpService,
}

/// Runs a copy of a request beside it, on the same worker.
fn beside(copy: Pin<Box<dyn Future<Output = ()> + Send>>) {
    tokio::spawn(copy);
}

/// An HTTP service that [`HttpService::new`] takes: what every stack is before it is boxed.
pub trait HttpStack:
    Service<Request, Response = Response, Error: Into<Fault>, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> HttpStack for S where
    S: Service<Request, Response = Response, Error: Into<Fault>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

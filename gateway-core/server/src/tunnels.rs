//! Takes in the tunnels of an ambient mesh: HTTP/2 CONNECT (Istio, HBONE).
//!
//! - **reads** the target of each CONNECT; the connection that it came over
//! - **writes** nothing
//! - **ends a request with** 400 if it is no CONNECT or its target makes no sense, and what the opener answers
//! - **settings** the opener, which knows what is behind which target
//! - **place** inside [`Serve`](crate::Serve), where a stack of HTTP layers stands otherwise

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::{Method, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Body, Connection, Context, Fault, Request, Response};

use crate::ConnectionService;

/// Finds what is behind a target, for a tunnel over this connection: who serves it and as what it comes in; or a status that
/// refuses it.
type Opener =
    dyn Fn(SocketAddr, &Connection) -> Result<(ConnectionService, Connection), StatusCode> + Send + Sync;

/// Hands each CONNECT on as a connection of its own.
#[derive(Clone)]
pub struct Tunnels(Arc<Opener>);

impl Tunnels {
    /// Tunnels lead to what `open` finds.
    pub fn new(
        open: impl Fn(SocketAddr, &Connection) -> Result<(ConnectionService, Connection), StatusCode>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }

    fn open(&self, request: &Request) -> Result<(ConnectionService, Connection), StatusCode> {
        if *request.method() != Method::CONNECT || request.version() != Version::HTTP_2 {
            return Err(StatusCode::BAD_REQUEST);
        }
        let target = request.uri().authority().and_then(|target| target.as_str().parse().ok());
        let connection = Context::find(request.extensions()).and_then(Context::connection);
        match (target, connection) {
            (Some(target), Some(connection)) => (self.0)(target, connection),
            _ => Err(StatusCode::BAD_REQUEST),
        }
    }
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnels")
    }
}

impl Service<Request> for Tunnels {
    type Response = Response;
    type Error = Fault;
    type Future = Ready<Result<Response, Fault>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let mut answer = Response::new(Body::empty());
        match self.open(&request) {
            Ok((service, connection)) => {
                let opening = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let Ok(upgraded) = opening.await else { return };
                    let io = Box::new(TokioIo::new(upgraded));
                    let Ok::<_, Infallible>(()) = serve(service, Accepted { io, connection }).await;
                });
            }
            Err(status) => *answer.status_mut() = status,
        }
        ready(Ok(answer))
    }
}

async fn serve(mut service: ConnectionService, accepted: Accepted) -> Result<(), Infallible> {
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(accepted).await
}

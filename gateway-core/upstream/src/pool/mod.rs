//! Carries a try to its endpoint over a kept connection.
//!
//! - **reads** the newest attempt of the request's context, the request's `content-type`
//! - **writes** the attempt's connection
//! - **ends a request with** `UpstreamReset`, `UpstreamInvalid`, `ClientGone` (the request's body broke off),
//!   `BadRequest` (`CONNECT`), `Internal` (no attempt), and what the connector says
//! - **settings** [`PoolSettings`]
//! - **place** innermost of the request's layers; inside it is only the connect stack
//!
//! A request of which not one byte was taken (its kept connection had just closed) goes out on a new connection, whatever
//! its method and body: nobody has seen it. Any other fault says by its `Replay` what is known.

mod fault;
mod h1;
mod h2;
mod idle;
mod key;
mod lease;
mod multiplexed;
mod settings;
mod store;
mod translate;
mod upgrade;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tower_service::Service;
use towpath_gateway_core::{
    Attempt, Connected, Context, Destination, Endpoint, Fault, Protocol, Reason, Request, Response,
};

use self::key::Key;
pub use self::settings::PoolSettings;
use self::store::Store;

/// A client that keeps connections, HTTP/1.1 and HTTP/2.
///
/// Clones share their connections. Each worker builds a pool of its own (or takes [`Pool::apart`] of one): then the
/// lock around the connections is never contended, and no connection is driven from another worker's runtime.
pub struct Pool<C> {
    connector: Arc<C>,
    store: Arc<Store>,
}

impl<C> Pool<C> {
    /// A pool that opens connections with `connector`, a `Service<Destination, Response = Connected>`.
    pub fn new(connector: C, settings: PoolSettings) -> Self {
        Self { connector: Arc::new(connector), store: Store::new(settings) }
    }

    /// A pool with the same connector and settings that shares no connection with this one.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { connector: Arc::clone(&self.connector), store: Store::new(self.store.settings().clone()) }
    }
}

impl<C> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { connector: Arc::clone(&self.connector), store: Arc::clone(&self.store) }
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("settings", self.store.settings()).finish_non_exhaustive()
    }
}

impl<C> Service<Request> for Pool<C>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = Response;
    type Error = Fault;
    type Future = PoolFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        // Whether a connection is needed, and where to, is known with the request.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> PoolFuture {
        let context = Context::of(request.extensions_mut());
        let Some(record) = context.attempt() else {
            let fault = Fault::new(Reason::Internal).with_detail("no attempt: is the balancer missing?");
            return PoolFuture(Box::pin(std::future::ready(Err(fault))));
        };
        let attempt = Try {
            destination: Destination {
                endpoint: Arc::clone(record.endpoint()),
                protocol: protocol(record.endpoint(), request.headers()),
            },
            key: Key::of(record.endpoint()),
            again: context.attempt_count() > 1,
            record,
            connector: Arc::clone(&self.connector),
            store: Arc::clone(&self.store),
        };
        match attempt.destination.protocol {
            Protocol::Http1 | Protocol::Opaque => match h1::prepare(&attempt, request) {
                Ok(outgoing) => PoolFuture(Box::pin(h1::exchange(attempt, outgoing))),
                Err(fault) => PoolFuture(Box::pin(std::future::ready(Err(fault)))),
            },
            Protocol::Http2 => PoolFuture(Box::pin(h2::exchange(attempt, request))),
        }
    }
}

/// The answer of [`Pool`]. Dropping it gives the request up: an HTTP/1.1 connection is closed, an HTTP/2 stream reset.
pub struct PoolFuture(Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>>);

impl Future for PoolFuture {
    type Output = Result<Response, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Everything about one try but its request.
struct Try<C> {
    record: Attempt,
    destination: Destination,
    key: Key,
    /// An earlier try of the request failed. This one takes no kept connection, which may have died with the first.
    again: bool,
    connector: Arc<C>,
    store: Arc<Store>,
}

impl<C> Try<C>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    async fn connect(&self) -> Result<Connected, Fault> {
        let mut connector = C::clone(&self.connector);
        poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
        connector.call(self.destination.clone()).await.map_err(Into::into)
    }
}

fn protocol(endpoint: &Endpoint, headers: &HeaderMap) -> Protocol {
    // gRPC needs trailers and streams both ways, which HTTP/1.1 cannot carry.
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc { Protocol::Http2 } else { endpoint.protocol }
}

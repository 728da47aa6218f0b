//! Upstream servers on loopback and in memory, and one-line requests to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, dead_code)]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request as HttpRequest, Response as HttpResponse};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::Service;
use towpath_gateway_core::{
    Backend, Balance, Body, Connected, Connection, Context, Destination, Endpoint, Fault, Io, Protocol,
    Request, Response,
};
use towpath_upstream::{EDGE_CONNECT_TIMEOUT, Pool, PoolSettings, TcpConnector};

/// Connections that a server has taken.
pub(crate) type Count = Arc<AtomicUsize>;

pub(crate) fn count(count: &Count) -> usize {
    count.load(Ordering::SeqCst)
}

/// A server in one protocol on loopback.
pub(crate) async fn serve<F, R>(protocol: Protocol, handler: F) -> (Arc<Endpoint>, Count)
where
    F: Fn(HttpRequest<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = HttpResponse<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Arc::new(Endpoint::plaintext(listener.local_addr().unwrap()).with_protocol(protocol));
    let connections = Count::default();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(drive(protocol, stream, handler.clone()));
        }
    });
    (endpoint, connections)
}

/// Serves one connection to its end.
pub(crate) async fn drive<F, R>(protocol: Protocol, stream: impl Io, handler: F)
where
    F: Fn(HttpRequest<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = HttpResponse<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stream = TokioIo::new(stream);
    let _ = match protocol {
        Protocol::Http1 | towpath_gateway_core::Protocol::Opaque => {
            hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
        }
        Protocol::Http2 => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(stream, service)
                .await
        }
    };
}

/// A server that handles the bytes of each connection itself.
pub(crate) async fn raw<F, R>(handler: F) -> (Arc<Endpoint>, Count)
where
    F: Fn(tokio::net::TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Arc::new(Endpoint::plaintext(listener.local_addr().unwrap()));
    let connections = Count::default();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(handler(stream));
        }
    });
    (endpoint, connections)
}

/// A connector whose connections lead to `handler` in memory, so that time may be paused.
pub(crate) fn in_memory<F, R>(
    protocol: Protocol,
    handler: F,
) -> (
    impl Service<Destination, Response = Connected, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
    Count,
)
where
    F: Fn(HttpRequest<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = HttpResponse<Body>> + Send + 'static,
{
    let connections = Count::default();
    let counted = Arc::clone(&connections);
    let connector = tower::service_fn(move |_: Destination| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(drive(protocol, theirs, handler.clone()));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let connection = Arc::new(Connection::plaintext(nowhere, nowhere));
        std::future::ready(Ok(Connected { io: Box::new(ours), connection }))
    });
    (connector, connections)
}

pub(crate) fn pool() -> Pool<TcpConnector> {
    Pool::new(TcpConnector::new(EDGE_CONNECT_TIMEOUT), PoolSettings::default())
}

/// Sends `request` to `endpoint`, as the balancer would.
pub(crate) async fn send<S>(
    mut pool: S,
    endpoint: &Arc<Endpoint>,
    mut request: Request,
) -> Result<Response, Fault>
where
    S: Service<Request, Response = Response, Error = Fault>,
{
    Context::of(request.extensions_mut()).begin_attempt(Arc::clone(endpoint));
    std::future::poll_fn(|cx| pool.poll_ready(cx)).await?;
    pool.call(request).await
}

/// A request for a stack that chooses the endpoint itself.
pub(crate) fn to_backend(mut request: Request, endpoints: &[Arc<Endpoint>]) -> Request {
    let backend = Backend::new("shop/reviews:80", Balance::RoundRobin, endpoints.to_vec());
    Context::of(request.extensions_mut()).set_backend(Arc::new(backend)).unwrap();
    request
}

pub(crate) fn get(path: &str) -> Request {
    HttpRequest::builder().uri(path).header("host", "shop.example").body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request {
    HttpRequest::post(path).header("host", "shop.example").body(body.into()).unwrap()
}

pub(crate) async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Lets every task that can run do so, until `done`.
pub(crate) async fn until(done: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came");
}

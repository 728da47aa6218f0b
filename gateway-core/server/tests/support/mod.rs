//! What the tests share: handlers, clients, bodies that are fed by hand.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http_body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower_service::Service as _;
use towpath_gateway_core::{Accepted, Body, Connection, Fault, HttpService, Io, Request, Response};
use towpath_server::{ConnectionService, Drain, Limits, Serve, serve_on};

pub const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A stack that is one async function.
pub fn handler<F, R>(answer: F) -> HttpService
where
    F: Fn(Request) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    HttpService::new(tower::service_fn(answer))
}

/// Answers every request with `hello`.
pub fn hello() -> HttpService {
    handler(|_| async { Ok(Response::new(Body::from("hello"))) })
}

/// Sends the request's body back, frame by frame, trailers too.
pub fn echo() -> HttpService {
    handler(|request| async { Ok(Response::new(request.into_body())) })
}

/// Serves `service` on a socket of its own.
pub async fn listen(service: HttpService, limits: Limits, drain: &Drain) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ConnectionService::new(Serve::new(service, limits, drain.clone()));
    (address, tokio::spawn(serve_on(listener, service, drain.clone())))
}

/// Serves `service` on one in-memory stream.
pub fn serve_stream<T: Io>(io: T, service: HttpService, limits: Limits, drain: &Drain) -> JoinHandle<()> {
    let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(LOCAL, LOCAL) };
    let serving = Serve::new(service, limits, drain.clone()).call(accepted);
    tokio::spawn(async move {
        let Ok(()) = serving.await;
    })
}

/// A body that the test feeds: data, then perhaps trailers. Dropping the sender ends it.
pub struct Fed(mpsc::UnboundedReceiver<Frame<Bytes>>);

pub fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Fed(receiver))
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

pub async fn h1_over<T: Io>(io: T) -> http1::SendRequest<Fed> {
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub async fn h1(address: SocketAddr) -> http1::SendRequest<Fed> {
    h1_over(TcpStream::connect(address).await.unwrap()).await
}

pub async fn h2_over<T: Io>(io: T) -> http2::SendRequest<Fed> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn h2(address: SocketAddr) -> http2::SendRequest<Fed> {
    h2_over(TcpStream::connect(address).await.unwrap()).await
}

/// A request without a body.
pub fn get(uri: &str) -> http::Request<Fed> {
    let (_, body) = fed();
    http::Request::builder().uri(uri).header("host", "a.example").body(body).unwrap()
}

/// A request with `body`, for HTTP/1 (origin form) or HTTP/2 (absolute).
pub fn post(uri: &str, body: Fed) -> http::Request<Fed> {
    http::Request::builder()
        .method("POST")
        .uri(uri)
        .header("host", "a.example")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

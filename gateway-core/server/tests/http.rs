//! HTTP/1.1 and HTTP/2 over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use support::{echo, fed, get, h1, h2, handler, hello, listen, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use towpath_gateway_core::{Body, Context, Fault, HttpService, Reason, Request, Response};
use towpath_server::{Drain, Limits};

async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn one_h1_connection_serves_many_requests_and_each_has_its_own_context() {
    let service = handler(|request| async move {
        let context = Context::find(request.extensions()).expect("the server puts a context there");
        assert!(context.fault().is_none());
        context.set_fault(Fault::new(Reason::Denied)).unwrap();
        Ok(Response::new(Body::from(context.connection().unwrap().peer.to_string())))
    });
    let (address, _) = listen(service, Limits::edge(), &Drain::default()).await;
    let mut client = h1(address).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        client.ready().await.unwrap();
        let response = client.send_request(get("/")).await.unwrap();
        peers.push(response.into_body().collect().await.unwrap().to_bytes());
    }
    assert_eq!(peers[0], peers[2]);
    assert!(!peers[0].is_empty());
}

#[tokio::test]
async fn h2_by_prior_knowledge_shares_the_port() {
    let service =
        handler(|request| async move { Ok(Response::new(format!("{:?}", request.version()).into())) });
    let (address, _) = listen(service, Limits::edge(), &Drain::default()).await;
    let old = h1(address).await.send_request(get("/")).await.unwrap();
    assert_eq!(old.into_body().collect().await.unwrap().to_bytes(), "HTTP/1.1");
    let new = h2(address).await.send_request(get("http://a.example/")).await.unwrap();
    assert_eq!(new.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0");
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways_at_the_same_time() {
    let (address, _) = listen(echo(), Limits::edge(), &Drain::default()).await;
    let (feed, body) = fed();
    let mut client = h2(address).await;
    let response = client.send_request(post("http://a.example/", body)).await.unwrap();
    let mut answer = response.into_body();
    for piece in ["one", "two"] {
        feed.send(Frame::data(Bytes::from_static(piece.as_bytes()))).unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece, "answered while the request is still open");
    }
    feed.send(Frame::trailers(trailers())).unwrap();
    drop(feed);
    let last = answer.frame().await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap(), trailers());
}

#[tokio::test]
async fn h1_streams_and_carries_trailers_too() {
    let service = handler(|request| async move {
        let mut response = Response::new(request.into_body());
        response.headers_mut().insert("trailer", "grpc-status".parse().unwrap());
        Ok(response)
    });
    let (address, _) = listen(service, Limits::edge(), &Drain::default()).await;
    let (feed, body) = fed();
    let mut request = post("/", body);
    request.headers_mut().insert("trailer", "grpc-status".parse().unwrap());
    let mut client = h1(address).await;
    feed.send(Frame::data(Bytes::from_static(b"one"))).unwrap();
    let mut answer = client.send_request(request).await.unwrap().into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    feed.send(Frame::data(Bytes::from_static(b"two"))).unwrap();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    feed.send(Frame::trailers(trailers())).unwrap();
    drop(feed);
    assert_eq!(answer.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers());
}

#[tokio::test]
async fn a_body_that_has_ended_is_in_hand() {
    let service = handler(|request| async move {
        Ok(Response::new(if request.body().bytes().is_some() { "in hand" } else { "a stream" }.into()))
    });
    let (address, _) = listen(service, Limits::edge(), &Drain::default()).await;
    let answer = raw(address, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("in hand"), "{answer}");
    let answer =
        raw(address, b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx").await;
    assert!(answer.ends_with("a stream"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_hands_the_connection_over_and_the_drain_waits_for_the_tunnel() {
    let service = handler(|mut request: Request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut tunnel = TokioIo::new(upgrade.await.unwrap());
            let mut word = [0; 4];
            while tunnel.read_exact(&mut word).await.is_ok() {
                tunnel.write_all(&word).await.unwrap();
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "echo".parse().unwrap());
        Ok(response)
    });
    let drain = Drain::default();
    let (address, accepting) = listen(service, Limits::edge(), &drain).await;
    let mut request = get("/");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = h1(address).await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    drain.signal();
    accepting.await.unwrap();
    let drained = tokio::spawn(async move { drain.drained().await });
    let mut word = [0; 4];
    for _ in 0..2 {
        tunnel.write_all(b"ping").await.unwrap();
        tunnel.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
    }
    assert!(!drained.is_finished());
    drop(tunnel);
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn heads_beyond_the_limits_are_answered() {
    let limits = Limits { head_bytes: 16 * 1024, target_bytes: 4 * 1024, header_count: 10, ..Limits::edge() };
    let (address, _) = listen(hello(), limits, &Drain::default()).await;
    let request = |target: usize, value: usize, count: usize| {
        let headers = "a: b\r\n".repeat(count);
        let (target, value) = ("t".repeat(target), "v".repeat(value));
        format!("GET /{target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {value}\r\n{headers}\r\n")
    };
    let cases = [
        (request(4 * 1024 - 1, 8000, 7), "200"),
        (request(4 * 1024, 1, 0), "414"),
        (request(1, 1, 8), "431"),
        (request(1, 16 * 1024, 0), "431"),
    ];
    for (request, status) in cases {
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    let answer = raw(address, b"GET / HTTP/1.1\r\nbad header\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn h2_heads_beyond_the_limits_are_answered() {
    let limits = Limits { target_bytes: 1024, header_count: 10, head_bytes: 16 * 1024, ..Limits::edge() };
    let (address, _) = listen(hello(), limits, &Drain::default()).await;
    let mut client = h2(address).await;
    let long = client.send_request(get(&format!("http://a.example/{}", "t".repeat(1024)))).await.unwrap();
    assert_eq!(long.status(), StatusCode::URI_TOO_LONG);
    let mut many = get("http://a.example/");
    for n in 0..10 {
        many.headers_mut()
            .insert(http::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap(), n.into());
    }
    assert_eq!(
        client.send_request(many).await.unwrap().status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    assert_eq!(client.send_request(get("http://a.example/")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_fault_that_nothing_rescued_becomes_its_bare_status() {
    let service = handler(|_| async { Err(Fault::new(Reason::Overloaded)) });
    let (address, _) = listen(service, Limits::edge(), &Drain::default()).await;
    let mut client = h1(address).await;
    for _ in 0..2 {
        client.ready().await.unwrap();
        let response = client.send_request(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        response.into_body().collect().await.unwrap();
    }
}

/// Counts its clones; pends once after each clone if told to.
struct Counted {
    clones: Arc<AtomicUsize>,
    pends: bool,
    polled: bool,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Self { clones: Arc::clone(&self.clones), pends: self.pends, polled: false }
    }
}

impl tower_service::Service<Request> for Counted {
    type Response = Response;
    type Error = Fault;
    type Future = std::future::Ready<Result<Response, Fault>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        if self.pends && !self.polled {
            self.polled = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(!self.pends || self.polled, "called before it was ready");
        std::future::ready(Ok(Response::new(Body::from("hello"))))
    }
}

#[tokio::test]
async fn the_stack_is_cloned_for_a_connection_and_not_for_a_request() {
    for (pends, expected) in [(false, 0), (true, 5)] {
        let clones = Arc::new(AtomicUsize::new(0));
        let service = HttpService::new(Counted { clones: Arc::clone(&clones), pends, polled: false });
        let (address, _) = listen(service, Limits::edge(), &Drain::default()).await;
        let mut client = h1(address).await;
        let mut send = async || {
            client.ready().await.unwrap();
            let response = client.send_request(get("/")).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        };
        send().await;
        let before = clones.load(Ordering::SeqCst);
        for _ in 0..5 {
            send().await;
        }
        assert_eq!(clones.load(Ordering::SeqCst) - before, expected, "pends: {pends}");
    }
}

//! The application over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use towpath_service::grpc::{Decoder, encode};
use towpath_service::{App, Args, serve};

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(args: &[&str]) -> Running {
    let args = Args::try_parse_from(["service"].iter().chain(args)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task =
        tokio::spawn(async move { serve(listener, App::new(args), async { drop(stopped.await) }).await });
    Running { address, stop, task }
}

async fn http1(address: SocketAddr) -> http1::SendRequest<Body> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn http2(address: SocketAddr) -> http2::SendRequest<Body> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path).header("host", "a");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Empty::new().boxed_unsync()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn fetch(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Value {
    let response = http1(address).await.send_request(get(path, headers)).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    serde_json::from_str(&text(response).await).unwrap()
}

async fn refused() -> SocketAddr {
    // Bound once and let go: nobody listens there.
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_page_is_made_of_several_services_and_shows_what_failed() {
    let leaf = start(&["--name=ratings", "--version=v2"]).await;
    let (alive, dead) = (format!("--call=ratings=http://{}/other", leaf.address), refused().await);
    let missing = format!("--call=gone=http://{dead}/");
    let bad = format!("--call=bad=http://{}/download", leaf.address);
    let page = start(&["--name=page", "--cluster=east", &alive, &missing, &bad]).await;
    let headers = [("traceparent", "00-1-2-3"), ("x-canary", "v3"), ("authorization", "secret")];
    let seen = fetch(page.address, "/page", &headers).await;
    assert_eq!((&seen["service"], &seen["cluster"]), (&"page".into(), &"east".into()));
    let ratings = &seen["calls"]["ratings"];
    assert_eq!((&ratings["status"], &ratings["body"]["version"]), (&200.into(), &"v2".into()));
    assert_eq!(ratings["body"]["path"], "/other");
    assert_eq!(ratings["body"]["headers"]["traceparent"], "00-1-2-3");
    assert_eq!(ratings["body"]["headers"]["x-canary"], "v3");
    assert!(ratings["body"]["headers"].get("authorization").is_none());
    assert!(seen["calls"]["gone"]["error"].as_str().unwrap().contains("cannot connect"));
    assert_eq!(seen["calls"]["bad"]["status"], 400);
}

#[tokio::test]
async fn calls_can_go_through_a_sidecar() {
    let leaf = start(&["--name=leaf"]).await;
    let via = format!("--via={}", leaf.address);
    let page = start(&[&via, "--call=leaf=http://leaf.shop.svc:9080/x"]).await;
    let seen = fetch(page.address, "/", &[]).await;
    assert_eq!(seen["calls"]["leaf"]["body"]["headers"]["host"], "leaf.shop.svc:9080");
}

#[tokio::test]
async fn browsers_get_html_over_either_protocol() {
    let service = start(&["--name=shop"]).await;
    let request = || get("http://a/", &[("accept", "text/html,*/*")]);
    for response in [
        http1(service.address).await.send_request(request()).await.unwrap(),
        http2(service.address).await.send_request(request()).await.unwrap(),
    ] {
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(text(response).await.contains("shop"));
    }
}

#[tokio::test]
async fn long_bodies_pass_both_ways() {
    let service = start(&[]).await;
    let length = 3_000_000;
    let mut sender = http1(service.address).await;
    let response = sender.send_request(get(&format!("/download?bytes={length}"), &[])).await.unwrap();
    assert_eq!(response.headers()["content-length"], length.to_string());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes.len(), length);
    let upload = Request::post("/upload").header("host", "a").body(Full::new(bytes).boxed_unsync()).unwrap();
    let answer: Value =
        serde_json::from_str(&text(sender.send_request(upload).await.unwrap()).await).unwrap();
    assert_eq!(answer["bytes"], length);
    assert_eq!(answer["sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn break_sends_what_it_should_and_cuts() {
    let service = start(&[]).await;
    let response = http1(service.address).await.send_request(get("/break?bytes=500000", &[])).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-length"]),
        (200, &"501000".parse().unwrap())
    );
    let (mut body, mut got) = (response.into_body(), 0);
    let error = loop {
        match body.frame().await.expect("the end must be an error") {
            Ok(frame) => got += frame.into_data().unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!(got, 500_000);
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::UnexpectedEof), "{error:?}");
}

#[tokio::test]
async fn websocket_messages_come_back() {
    let service = start(&[]).await;
    let stream = TcpStream::connect(service.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a/ws", stream).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![0, 255])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    let plain = http1(service.address).await.send_request(get("/ws", &[])).await.unwrap();
    assert_eq!((plain.status().as_u16(), &plain.headers()["upgrade"]), (426, &"websocket".parse().unwrap()));
}

#[tokio::test]
async fn grpc_messages_come_back_one_by_one() {
    let service = start(&[]).await;
    let (messages, queue) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(queue, |mut queue| async {
        queue.recv().await.map(|bytes| (Ok(Frame::data(bytes)), queue))
    });
    let request =
        Request::post("http://a/bookshop.Chat/Echo").body(StreamBody::new(frames).boxed_unsync()).unwrap();
    let response = http2(service.address).await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (mut body, mut decoder) = (response.into_body(), Decoder::default());
    for message in ["one", "two"] {
        // Each is sent only after the one before came back, and in two pieces.
        let bytes = encode(message.as_bytes());
        messages.send(bytes.slice(..2)).await.unwrap();
        messages.send(bytes.slice(2..)).await.unwrap();
        let echoed = loop {
            if let Some(echoed) = decoder.next().unwrap() {
                break echoed;
            }
            decoder.push(body.frame().await.unwrap().unwrap().into_data().unwrap());
        };
        assert_eq!(echoed, message);
    }
    drop(messages);
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn a_stop_lets_what_runs_finish() {
    let service = start(&[]).await;
    let mut sender = http1(service.address).await;
    let (answer, body) = ask_slowly(&mut sender).await;
    service.stop.send(()).unwrap();
    // The listener closes at once, the request that runs is answered.
    let closed = async { while TcpStream::connect(service.address).await.is_ok() {} };
    within(closed).await;
    body.send(Bytes::from_static(b"end")).await.unwrap();
    drop(body);
    let answer: Value = serde_json::from_str(&text(answer.await.unwrap()).await).unwrap();
    assert_eq!(answer["bytes"], 8);
    drop(sender);
    within(service.task).await.unwrap();
}

/// An upload that has begun and waits for the rest of its body.
async fn ask_slowly(
    sender: &mut http1::SendRequest<Body>,
) -> (JoinHandle<Response<Incoming>>, mpsc::Sender<Bytes>) {
    let (pieces, queue) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(queue, |mut queue| async {
        queue.recv().await.map(|bytes| (Ok(Frame::data(bytes)), queue))
    });
    let request =
        Request::post("/upload").header("host", "a").body(StreamBody::new(frames).boxed_unsync()).unwrap();
    let answer = sender.send_request(request);
    let answer = tokio::spawn(async { answer.await.unwrap() });
    pieces.send(Bytes::from_static(b"begin")).await.unwrap();
    // Room for the next one: the first was taken and sent.
    pieces.reserve().await.unwrap();
    (answer, pieces)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(10), future).await.expect("it should have ended")
}

#[test]
fn a_port_in_use_is_an_error_and_help_is_not() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let program = env!("CARGO_BIN_EXE_service");
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let output = std::process::Command::new(program).arg(listen).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot listen on 127.0.0.1") && error.contains("--listen"), "{error}");
    let output = std::process::Command::new(program).arg("--help").output().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("--call"));
    let output = std::process::Command::new(program).arg("--call=nothing").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

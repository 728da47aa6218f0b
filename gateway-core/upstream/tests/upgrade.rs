//! Connections that leave HTTP behind, through a proxy made of the stack.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use support::{raw, to_backend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use towpath_gateway_core::{Body, Endpoint, RescueLayer};
use towpath_upstream::{EDGE_CONNECT_TIMEOUT, TcpConnector, client};

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).unwrap().to_ascii_lowercase()
}

/// A proxy in front of `endpoint`; a connection to it.
async fn through_proxy(endpoint: Arc<Endpoint>) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stack = tower::Layer::layer(&RescueLayer::new(), client(TcpConnector::new(EDGE_CONNECT_TIMEOUT)));
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            stack.clone().oneshot(to_backend(request.map(Body::new), std::slice::from_ref(&endpoint)))
        });
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    });
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn bytes_flow_both_ways_after_the_upgrade() {
    let (endpoint, _) = raw(|mut stream| async move {
        let request = head(&mut stream).await;
        assert!(
            request.contains("upgrade: websocket") && request.contains("connection: upgrade"),
            "{request}"
        );
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let mut stream = through_proxy(endpoint).await;
    let request = b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
    for message in ["hello", "ping!", "pong!"] {
        let mut bytes = [0; 5];
        if message != "hello" {
            stream.write_all(message.as_bytes()).await.unwrap();
        }
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, message.as_bytes());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let (endpoint, _) = raw(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        let _ = stream.read(&mut [0; 8]).await;
    })
    .await;
    let mut stream = through_proxy(endpoint).await;
    let request = b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 403"));
}

#[tokio::test]
async fn http2_in_cleartext_is_not_tunnelled_and_no_other_protocol_slips_in() {
    let table = [("h2c", "h2c", true), ("websocket", "other", false)];
    for (asked, answered, stripped) in table {
        let (endpoint, _) = raw(move |mut stream| async move {
            let request = head(&mut stream).await;
            assert_eq!(!request.contains("upgrade"), stripped, "{request}");
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: {answered}\r\nconnection: upgrade\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0; 8]).await;
        })
        .await;
        let mut stream = through_proxy(endpoint).await;
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {asked}\r\nhttp2-settings: AA\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("http/1.1 502"), "{asked} answered by {answered}");
    }
}

//! HTTP/1 connections between requests, under a clock that stands still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use support::{handler, hello, serve_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use towpath_gateway_core::{Body, HttpService, Response};
use towpath_server::{Drain, Limits};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

struct Client {
    io: DuplexStream,
    serving: JoinHandle<()>,
}

fn connect(service: HttpService, drain: &Drain) -> Client {
    let (io, server) = duplex(64 * 1024);
    Client { io, serving: serve_stream(server, service, Limits::edge(), drain) }
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// One answer of [`hello`].
    async fn answer(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("hello") {
            text.push(char::from(self.io.read_u8().await.unwrap()));
        }
        text
    }

    async fn rest(&mut self) -> String {
        let mut text = String::new();
        self.io.read_to_string(&mut text).await.unwrap();
        text
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_request_finds_room_again() {
    let large =
        [b"GET / HTTP/1.1\r\nhost: a\r\nx: ".to_vec(), vec![b'x'; 20_000], b"\r\n\r\n".to_vec()].concat();
    let mut client = connect(hello(), &Drain::default());
    client.send(GET).await;
    client.answer().await;
    sleep(Duration::from_secs(1)).await;
    client.send(&large).await;
    client.send(GET).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn the_beginning_of_a_pipelined_request_is_not_lost() {
    let mut client = connect(hello(), &Drain::default());
    client.send(&[GET, &GET[..9]].concat()).await;
    client.answer().await;
    sleep(Duration::from_secs(5)).await;
    client.send(&GET[9..]).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn and_it_has_no_more_time_than_others() {
    let mut client = connect(hello(), &Drain::default());
    client.send(&[GET, &GET[..9]].concat()).await;
    client.answer().await;
    let start = Instant::now();
    assert!(client.rest().await.starts_with("HTTP/1.1 408"));
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_it() {
    let mut client = connect(hello(), &Drain::default());
    client.send(GET).await;
    client.answer().await;
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    drop(client.io);
    client.serving.await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_drain_finds_it_and_it_may_ask_one_last_time() {
    for asks in [false, true] {
        let drain = Drain::default();
        let mut client = connect(hello(), &drain);
        client.send(GET).await;
        client.answer().await;
        sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        drain.signal();
        if asks {
            client.send(GET).await;
            assert!(client.answer().await.contains("connection: close"));
        }
        assert_eq!(client.rest().await, "");
        client.serving.await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
        assert!(drain.drained().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_beyond_the_answer_arrives_whole() {
    let (sender, whole) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let service = handler(move |request| {
        if let Some(sender) = sender.lock().unwrap().take() {
            tokio::spawn(async move {
                let body = request.into_body().collect().await;
                let _ = sender.send(body.map(|body| body.to_bytes().len()));
            });
        }
        async { Ok(Response::new(Body::from("hello"))) }
    });
    let mut client = connect(service, &Drain::default());
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\n").await;
    client.answer().await;
    for _ in 0..3 {
        sleep(Duration::from_secs(5)).await;
        client.send(&[b'x'; 10]).await;
    }
    assert_eq!(whole.await.unwrap().unwrap(), 30);
    sleep(Duration::from_secs(5)).await;
    client.send(GET).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}

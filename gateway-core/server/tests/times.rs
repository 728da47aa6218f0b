//! Timeouts of one connection, over in-memory streams with a clock that stands still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use support::{fed, get, h2_over, handler, hello, serve_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use towpath_gateway_core::{Body, Response};
use towpath_server::{Drain, Limits};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn limits() -> Limits {
    Limits { header_timeout: Duration::from_secs(10), idle_timeout: Duration::from_mins(5), ..Limits::edge() }
}

/// A client that is served, and the moment it began.
fn connected() -> (DuplexStream, Instant) {
    let (client, server) = duplex(64 * 1024);
    serve_stream(server, hello(), limits(), &Drain::default());
    (client, Instant::now())
}

/// Everything until the server closes.
async fn rest(client: &mut DuplexStream) -> String {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer of [`hello`].
async fn answer(client: &mut DuplexStream) -> String {
    let mut text = String::new();
    while !text.ends_with("hello") {
        text.push(char::from(client.read_u8().await.unwrap()));
    }
    text
}

fn assert_about(start: Instant, seconds: u64) {
    let (took, expected) = (start.elapsed(), Duration::from_secs(seconds));
    assert!(
        took >= expected && took < expected + Duration::from_millis(200),
        "{took:?}, expected {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_connections_and_half_openings_end_at_the_header_timeout() {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0];
    let half_settings = [PREFACE, &settings[..]].concat();
    let cases: [(&[u8], bool); 6] = [
        (b"", false),
        (b"PRI", false),
        (PREFACE, false),
        (&half_settings, false),
        (b"G", true),
        (b"GET / HTTP/1.1\r\nhost: a\r\n", true),
    ];
    for (bytes, answered) in cases {
        let (mut client, start) = connected();
        client.write_all(bytes).await.unwrap();
        let said = rest(&mut client).await;
        assert_about(start, 10);
        assert_eq!(said.contains("408"), answered, "{bytes:?}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_is_not_granted_more_time() {
    let (client, start) = connected();
    let (mut read, mut write) = tokio::io::split(client);
    let trickle = tokio::spawn(async move {
        for byte in GET.iter().chain(GET).chain(GET) {
            sleep(Duration::from_millis(700)).await;
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    let mut said = Vec::new();
    let _ = read.read_to_end(&mut said).await;
    assert_about(start, 10);
    assert!(String::from_utf8_lossy(&said).starts_with("HTTP/1.1 408"));
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn between_requests_the_idle_timeout_counts() {
    let (mut client, _) = connected();
    for _ in 0..3 {
        client.write_all(GET).await.unwrap();
        answer(&mut client).await;
        // Far longer than a head may take, shorter than a connection may idle.
        sleep(Duration::from_secs(200)).await;
    }
    client.write_all(GET).await.unwrap();
    answer(&mut client).await;
    let start = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_about(start, 300);
}

#[tokio::test(start_paused = true)]
async fn a_later_head_has_the_header_timeout_from_its_first_byte() {
    let (mut client, _) = connected();
    client.write_all(GET).await.unwrap();
    answer(&mut client).await;
    sleep(Duration::from_secs(295)).await;
    let start = Instant::now();
    client.write_all(b"GET /").await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 408"));
    assert_about(start, 10);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_not_idleness() {
    let (mut client, server) = duplex(64 * 1024);
    let slow = handler(|_| async {
        sleep(Duration::from_hours(2)).await;
        Ok(Response::new(Body::from("hello")))
    });
    serve_stream(server, slow, limits(), &Drain::default());
    client.write_all(GET).await.unwrap();
    let start = Instant::now();
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_about(start, 7200);
    let start = Instant::now();
    rest(&mut client).await;
    assert_about(start, 300);
}

#[tokio::test(start_paused = true)]
async fn an_h2_connection_without_requests_is_told_to_go() {
    let (client, server) = duplex(64 * 1024);
    let serving = serve_stream(server, hello(), limits(), &Drain::default());
    let mut client = h2_over(client).await;
    let first = client.send_request(get("http://a.example/")).await.unwrap();
    drop(first);
    let start = Instant::now();
    serving.await.unwrap();
    assert_about(start, 300);
    assert!(client.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_h2_stream_keeps_its_connection() {
    let (client, server) = duplex(64 * 1024);
    let (feed, body) = fed();
    let body = std::sync::Mutex::new(Some(body));
    let body = std::sync::Arc::new(body);
    let service = handler(move |_| {
        let body = body.lock().unwrap().take();
        async move { Ok(Response::new(body.map_or_else(Body::empty, Body::new))) }
    });
    let serving = serve_stream(server, service, limits(), &Drain::default());
    let mut client = h2_over(client).await;
    let response = client.send_request(get("http://a.example/")).await.unwrap();
    sleep(Duration::from_hours(3)).await;
    assert!(!serving.is_finished());
    feed.send(Frame::data(Bytes::from_static(b"late"))).unwrap();
    drop(feed);
    let start = Instant::now();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(bytes, "late");
    serving.await.unwrap();
    assert_about(start, 300);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let (mut client, server) = duplex(1024);
    let large = handler(|_| async { Ok(Response::new(Body::from(vec![b'x'; 1024 * 1024]))) });
    let serving = serve_stream(server, large, limits(), &Drain::default());
    client.write_all(GET).await.unwrap();
    let start = Instant::now();
    serving.await.unwrap();
    assert_about(start, 60);
}

/// Endless pieces, as fast as they are taken.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096])))))
    }
}

#[tokio::test(start_paused = true)]
async fn an_h2_client_that_gives_no_window_is_cut_off() {
    let (client, server) = duplex(64 * 1024);
    let endless = handler(|_| async { Ok(Response::new(Body::new(Endless))) });
    let serving = serve_stream(server, endless, limits(), &Drain::default());
    let mut client = h2_over(client).await;
    // Taken but never read: hyper's client returns no window for it.
    let response = client.send_request(get("http://a.example/")).await.unwrap();
    let start = Instant::now();
    serving.await.unwrap();
    assert_about(start, 60);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn an_h2_client_that_reads_slowly_is_not() {
    let (client, server) = duplex(64 * 1024);
    let endless = handler(|_| async { Ok(Response::new(Body::new(Endless))) });
    let serving = serve_stream(server, endless, limits(), &Drain::default());
    let mut client = h2_over(client).await;
    let mut body = client.send_request(get("http://a.example/")).await.unwrap().into_body();
    for _ in 0..20 {
        sleep(Duration::from_secs(50)).await;
        // A window's worth and more, so that the client gives some back.
        let mut taken = 0;
        while taken < 2 * 1024 * 1024 {
            let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
            taken += frame.into_data().unwrap().len();
        }
    }
    assert!(!serving.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all() {
    let (mut client, server) = duplex(1024);
    let large = handler(|_| async { Ok(Response::new(Body::from(vec![b'x'; 20 * 1024]))) });
    serve_stream(server, large, limits(), &Drain::default());
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let (mut buffer, mut total) = ([0; 1024], 0);
    loop {
        sleep(Duration::from_secs(50)).await;
        match client.read(&mut buffer).await.unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert!(total > 20 * 1024);
}

//! Shutting down while requests run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use support::{get, h1, h2, handler, hello, listen, serve_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use towpath_gateway_core::{Body, HttpService, Response};
use towpath_server::{Drain, Limits};

/// Holds requests for `/held`: says when one came, and answers when told to.
fn held() -> (HttpService, Arc<Notify>, Arc<Notify>) {
    let (called, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&called), Arc::clone(&release));
    let service = handler(move |request| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            if request.uri().path() == "/held" {
                tell.notify_one();
                wait.notified().await;
            }
            Ok(Response::new(Body::from("done")))
        }
    });
    (service, called, release)
}

#[tokio::test]
async fn an_h1_request_in_flight_is_answered_and_the_connection_closed() {
    let (service, called, release) = held();
    let drain = Drain::default();
    let (address, accepting) = listen(service, Limits::edge(), &drain).await;
    let mut client = h1(address).await;
    let answer = tokio::spawn(client.send_request(get("/held")));
    called.notified().await;
    drain.signal();
    accepting.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "new connections are refused");
    let drained = tokio::spawn({
        let drain = drain.clone();
        async move { drain.drained().await }
    });
    tokio::task::yield_now().await;
    assert!(!drained.is_finished());
    release.notify_one();
    let response = answer.await.unwrap().unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn h2_requests_in_flight_are_answered_and_new_ones_refused() {
    let (service, called, release) = held();
    let drain = Drain::default();
    let (address, _) = listen(service, Limits::edge(), &drain).await;
    let mut client = h2(address).await;
    let answer = tokio::spawn(client.send_request(get("http://a.example/held")));
    called.notified().await;
    drain.signal();
    // Requests that cross the first GOAWAY are still served; after the last one no more are.
    while client.send_request(get("http://a.example/")).await.is_ok() {}
    assert!(!answer.is_finished());
    release.notify_one();
    let response = answer.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
    assert!(drain.drained().await);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_the_signal_is_answered_with_close() {
    let drain = Drain::default();
    let (mut client, server) = duplex(1024);
    let serving = serve_stream(server, hello(), Limits::edge(), &drain);
    // The connection is new, and nothing was sent on it when draining begins.
    tokio::task::yield_now().await;
    drain.signal();
    sleep(Duration::from_millis(100)).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_takes_one_more_request_and_ends() {
    let drain = Drain::default();
    let (mut client, server) = duplex(1024);
    let serving = serve_stream(server, hello(), Limits::edge(), &drain);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 1024];
    let _ = client.read(&mut first).await.unwrap();
    drain.signal();
    sleep(Duration::from_millis(100)).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silent_and_idle_connections_do_not_hold_the_process_back() {
    let drain = Drain::default();
    let (_silent, server) = duplex(1024);
    serve_stream(server, hello(), Limits::edge(), &drain);
    let (mut idle, server) = duplex(1024);
    serve_stream(server, hello(), Limits::edge(), &drain);
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let _ = idle.read(&mut [0; 1024]).await.unwrap();
    let start = Instant::now();
    drain.signal();
    assert!(drain.drained().await);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_requests_are_cut() {
    let (service, called, _release) = held();
    let drain = Drain::new(Duration::from_secs(30));
    let (mut client, server) = duplex(1024);
    let serving = serve_stream(server, service, Limits::edge(), &drain);
    client.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    called.notified().await;
    let start = Instant::now();
    drain.signal();
    serving.await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(30) && start.elapsed() < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_answer_reaches_a_client_that_reads_slowly() {
    let drain = Drain::default();
    let (mut client, server) = duplex(1024);
    let large = handler(|_| async { Ok(Response::new(Body::from(vec![b'x'; 8 * 1024]))) });
    let serving = serve_stream(server, large, Limits::edge(), &drain);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(1)).await;
    drain.signal();
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        sleep(Duration::from_secs(2)).await;
        match client.read(&mut buffer).await.unwrap() {
            0 => break,
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    assert!(answer.ends_with(&[b'x'; 8 * 1024]), "{} bytes", answer.len());
    serving.await.unwrap();
}

//! The whole stack against servers that close connections at the worst moments: nothing is delivered twice that may
//! not be, and nothing fails that need not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use support::{count, get, post, raw, to_backend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;
use towpath_gateway_core::{Endpoint, Request};
use towpath_upstream::{EDGE_CONNECT_TIMEOUT, TcpConnector, client};

/// How often each request line was seen.
type Seen = Arc<Mutex<HashMap<String, usize>>>;

/// Reads one request (its body is announced by `content-length`); `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream, seen: &Seen) -> Option<()> {
    let mut bytes = Vec::new();
    let mut noted = false;
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // A request counts as delivered from its first line on, whether or not the rest arrives.
        if let Some((line, _)) = text.split_once("\r\n").filter(|_| !noted) {
            *seen.lock().unwrap().entry(line.to_owned()).or_default() += 1;
            noted = true;
        }
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse::<usize>().unwrap() {
                return Some(());
            }
        }
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&more[..n]),
        }
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers every request, and then closes the kept connection when it pleases, without a word.
async fn close_when_idle(mut stream: TcpStream, seen: Seen) {
    while read_request(&mut stream, &seen).await.is_some() {
        if stream.write_all(OK).await.is_err() {
            return;
        }
        match fastrand::u8(..4) {
            0 => return,
            1 => {
                // Time for the next request to be on its way.
                tokio::time::sleep(Duration::from_micros(fastrand::u64(..2000))).await;
                return;
            }
            _ => {}
        }
    }
}

/// Closes at any point of the exchange.
async fn close_anywhere(mut stream: TcpStream, seen: Seen) {
    while read_request(&mut stream, &seen).await.is_some() {
        let answer: &[u8] = match fastrand::u8(..8) {
            0 => return,
            1 => &OK[..fastrand::usize(..OK.len())],
            2 => {
                // A reset in place of an orderly end.
                let _ = stream.set_zero_linger();
                return;
            }
            3 => {
                tokio::time::sleep(Duration::from_micros(fastrand::u64(..2000))).await;
                OK
            }
            _ => OK,
        };
        if stream.write_all(answer).await.is_err() || answer.len() < OK.len() || fastrand::u8(..4) == 0 {
            return;
        }
    }
}

/// 300 requests of each method, a few at a time; how many of them were answered whole.
async fn storm(endpoint: &Arc<Endpoint>, request: impl Fn(usize) -> Request) -> usize {
    let client = client(TcpConnector::new(EDGE_CONNECT_TIMEOUT));
    let run = |lane: usize| {
        let (client, request) = (client.clone(), &request);
        async move {
            let mut whole = 0;
            for n in 0..75 {
                let request = to_backend(request(lane * 75 + n), std::slice::from_ref(endpoint));
                if let Ok(response) = client.clone().oneshot(request).await {
                    whole += usize::from(response.into_body().collect().await.is_ok());
                }
            }
            whole
        }
    };
    join_all((0..4).map(run)).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_race_with_an_idle_close_never_fails_a_get_nor_doubles_a_post() {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let (endpoint, connections) = raw(move |stream| close_when_idle(stream, Arc::clone(&log))).await;
    assert_eq!(storm(&endpoint, |n| get(&format!("/{n}"))).await, 300);
    let posts = storm(&endpoint, |n| post(&format!("/{n}"), "order")).await;
    let seen = seen.lock().unwrap();
    let doubled: Vec<_> =
        seen.iter().filter(|(line, times)| line.starts_with("POST") && **times > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert!(posts >= 150, "most POSTs meet no race: {posts}");
    assert!(count(&connections) > 20, "the server closed connections: {}", count(&connections));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_never_delivered_twice_wherever_the_connection_ends() {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let (endpoint, _) = raw(move |stream| close_anywhere(stream, Arc::clone(&log))).await;
    let gets = storm(&endpoint, |n| get(&format!("/{n}"))).await;
    let posts = storm(&endpoint, |n| post(&format!("/{n}"), "order")).await;
    let seen = seen.lock().unwrap();
    let most = |method: &str| seen.iter().filter(|(line, _)| line.starts_with(method)).map(|(_, n)| *n).max();
    assert_eq!(most("POST"), Some(1));
    assert_eq!(most("GET"), Some(2), "a GET is repeated, and only once");
    assert!(gets > posts, "repeating helps: {gets} GETs, {posts} POSTs");
}

#[tokio::test]
async fn another_try_takes_no_kept_connection() {
    // Every connection answers once and dies of its second request: all that are kept are bad.
    let all = Arc::new(tokio::sync::Barrier::new(4));
    let (endpoint, connections) = raw(move |mut stream| {
        let all = Arc::clone(&all);
        async move {
            let seen = Seen::default();
            read_request(&mut stream, &seen).await.unwrap();
            if seen.lock().unwrap().keys().all(|line| line.contains("/together")) {
                all.wait().await;
            }
            stream.write_all(OK).await.unwrap();
            read_request(&mut stream, &seen).await;
        }
    })
    .await;
    let client = client(TcpConnector::new(EDGE_CONNECT_TIMEOUT));
    let answer = |path: &str| {
        let request = to_backend(get(path), std::slice::from_ref(&endpoint));
        let client = client.clone();
        async move { support::text(client.oneshot(request).await.unwrap()).await }
    };
    assert_eq!(join_all((0..4).map(|_| answer("/together"))).await, ["ok"; 4]);
    assert_eq!(answer("/after").await, "ok");
    assert_eq!(count(&connections), 5);
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request() {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let (alive, _) = raw(move |stream| close_when_idle(stream, Arc::clone(&log))).await;
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoints = [Arc::new(Endpoint::plaintext(address)), alive];
    let client = client(TcpConnector::new(EDGE_CONNECT_TIMEOUT));
    for n in 0..10 {
        // Not even a POST: no connection, so nobody saw it.
        let request = to_backend(post(&format!("/{n}"), "order"), &endpoints);
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(support::text(response).await, "ok");
    }
    assert!(seen.lock().unwrap().values().all(|times| *times == 1));
}

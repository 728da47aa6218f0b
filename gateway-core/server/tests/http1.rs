//! HTTP/1.1 on the wire: what is answered, what is refused, and when a connection stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::{echo, handler, hello, serve_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use towpath_gateway_core::{Body, Fault, HttpService, Reason, Response};
use towpath_server::{Drain, Limits};

fn connect(service: HttpService) -> DuplexStream {
    let (client, server) = duplex(64 * 1024);
    serve_stream(server, service, Limits::edge(), &Drain::default());
    client
}

async fn send(client: &mut DuplexStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until `end`, or to the end of the stream.
async fn until(client: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) || end.is_empty() {
        match client.read_u8().await {
            Ok(byte) => text.push(char::from(byte)),
            Err(_) => break,
        }
    }
    text
}

/// All that comes back for `request`, whose client then waits for the end.
async fn exchange(service: HttpService, request: &str) -> String {
    let mut client = connect(service);
    send(&mut client, request).await;
    until(&mut client, "").await
}

/// Answers with what it read of the request's body, or with why it could not.
fn reader() -> HttpService {
    handler(|request| async move {
        Ok(Response::new(match request.into_body().collect().await {
            Ok(body) => {
                let trailers = body.trailers().map_or(0, http::HeaderMap::len);
                Body::from(format!("{:?} and {trailers} trailers", body.to_bytes()))
            }
            Err(error) => Body::from(error.to_string()),
        }))
    })
}

/// Refuses without a look at the body.
fn refuser() -> HttpService {
    handler(|_| async { Err::<Response, _>(Fault::new(Reason::Denied)) })
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_their_order() {
    let paths = handler(|request| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(1)).await;
        }
        Ok(Response::new(Body::from(request.uri().path().to_owned())))
    });
    let text = exchange(
        paths,
        "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n\
         GET /c HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\nGET /never HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await;
    let places = ["/slow", "/b", "/c"].map(|path| text.find(path).expect(path));
    assert!(
        places.is_sorted() && text.ends_with("/c") && text.matches("connection: close").count() == 1,
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn bodies_are_read_by_length_and_by_chunk() {
    for (request, expected) in [
        ("content-length: 5\r\n\r\nhello", "b\"hello\" and 0 trailers"),
        (
            "transfer-encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nx: 1\r\n\r\n",
            "b\"hello\" and 1 trailers",
        ),
        ("transfer-encoding: chunked\r\n\r\n2\r\nhexx\r\n", "a chunk is longer than its size"),
        ("transfer-encoding: chunked\r\n\r\n0x2\r\nhe\r\n", "a chunk's size is malformed"),
        ("transfer-encoding: chunked\r\n\r\n2\nhe\r\n", "a chunk's size ends without CR"),
    ] {
        let text = exchange(
            reader(),
            &format!(
                "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{request}GET /smuggled HTTP/1.1\r\n\r\n"
            ),
        )
        .await;
        assert!(text.contains(expected), "{request:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{request:?}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_ends_the_connection_even_if_it_was_to_stay() {
    let text = exchange(
        reader(),
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nz\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.contains("connection: close"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_the_clients_fault() {
    let mut client = connect(reader());
    send(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhel").await;
    client.shutdown().await.unwrap();
    let text = until(&mut client, "").await;
    assert!(text.contains("broke off") && text.contains("connection: close"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_is_told_to_go_on_once_the_body_is_wanted() {
    let mut client = connect(reader());
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    for _ in 0..2 {
        send(&mut client, head).await;
        assert_eq!(until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        send(&mut client, "hi").await;
        let text = until(&mut client, "trailers").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("b\"hi\""), "{text}");
    }
    // Whether the body of a refused request comes nobody knows: the connection ends.
    send(&mut client, head).await;
    drop(client);
    let text = exchange(refuser(), head).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("connection: close"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_passed_over_if_it_is_here_and_else_ends_the_connection() {
    let mut client = connect(refuser());
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n";
    send(&mut client, &format!("{head}hello")).await;
    let text = until(&mut client, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 403") && !text.contains("close"), "{text}");
    send(&mut client, &format!("{head}hel")).await;
    let text = until(&mut client, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("connection: close"), "{text}");
    assert_eq!(until(&mut client, "").await, "");
}

#[tokio::test(start_paused = true)]
async fn after_the_last_answer_a_client_that_sends_on_is_heard_out_for_a_while() {
    let (mut client, server) = duplex(1024);
    let serving = serve_stream(server, refuser(), Limits::edge(), &Drain::default());
    send(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    let start = Instant::now();
    for _ in 0..20 {
        client.write_all(&[b'x'; 1000]).await.expect("taken, and thrown away");
    }
    assert!(until(&mut client, "").await.starts_with("HTTP/1.1 403"));
    serving.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_can_be_taken_two_ways_is_answered_and_the_connection_ends() {
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("GET / HTTP/1.1\nhost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    ] {
        let text = exchange(hello(), &format!("{request}GET / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{request:?}: {text}");
        assert!(text.contains("connection: close"), "{request:?}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn old_clients_are_answered_in_their_version() {
    let text = exchange(hello(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.0 200") && text.contains("connection: close"), "{text}");
    let mut client = connect(hello());
    for _ in 0..2 {
        send(&mut client, "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
        let text = until(&mut client, "hello").await;
        assert!(text.starts_with("HTTP/1.0 200") && text.contains("connection: keep-alive"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_request_gets_the_length_and_no_body() {
    let mut client = connect(hello());
    send(
        &mut client,
        "HEAD / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    let text = until(&mut client, "").await;
    assert_eq!((text.matches("content-length: 5").count(), text.matches("hello").count()), (2, 1), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_or_lies_about_its_length_cuts_the_connection() {
    for (length, whole) in [(Some("5"), true), (Some("9"), false), (Some("3"), false), (None, true)] {
        let service = handler(move |_| async move {
            let frames = ["he", "llo"]
                .map(|text| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(text.as_bytes()))));
            let mut response = Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))));
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length.parse().unwrap());
            }
            Ok(response)
        });
        let mut client = connect(service);
        send(
            &mut client,
            "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
        let text = until(&mut client, "").await;
        let answers = text.matches("HTTP/1.1 200").count();
        assert!(if whole { answers == 2 } else { answers <= 1 }, "{length:?}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (gone, mut left) = mpsc::unbounded_channel::<()>();
    let gone = Arc::new(gone);
    let service = handler(move |_| {
        let gone = Arc::clone(&gone);
        async move {
            let _held = gone.clone();
            sleep(Duration::from_hours(1)).await;
            Ok(Response::new(Body::empty()))
        }
    });
    let mut client = connect(service);
    send(&mut client, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    drop(client);
    assert_eq!(left.recv().await, None, "the service and all it held are dropped");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_large_body_is_echoed_while_it_comes() {
    let (mut client, server) = duplex(16 * 1024);
    serve_stream(server, echo(), Limits::edge(), &Drain::default());
    let (mut from, mut to) = tokio::io::split(&mut client);
    let body = vec![b'x'; 3 << 20];
    let sending = async {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        to.write_all(head.as_bytes()).await.unwrap();
        to.write_all(&body).await.unwrap();
    };
    let mut answer = Vec::new();
    let ((), read) = tokio::join!(sending, from.read_to_end(&mut answer));
    read.unwrap();
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer[head..] == body);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_declined_ends_the_connection_with_its_answer() {
    let upgrade = "connection: upgrade\r\nupgrade: echo\r\n";
    let next = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let text = exchange(hello(), &format!("GET / HTTP/1.1\r\nhost: a\r\n{upgrade}\r\n{next}")).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("connection: close"), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    // A server may decline HTTP/2 over cleartext like any other upgrade, and some clients always offer it.
    let mut client = connect(hello());
    for _ in 0..2 {
        send(&mut client, "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n").await;
        assert!(until(&mut client, "hello").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_head_names_its_status_and_faults_theirs() {
    let service = handler(|_| async { Err::<Response, _>(Fault::new(Reason::NoRoute)) });
    let text = exchange(service, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(text.starts_with(&format!("HTTP/1.1 {}", StatusCode::NOT_FOUND.as_u16())), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_off_never_looks_whole() {
    let (found, whole) = tokio::sync::oneshot::channel();
    let found = Arc::new(std::sync::Mutex::new(Some(found)));
    let service = handler(move |request| {
        let found = found.lock().unwrap().take().unwrap();
        tokio::spawn(async move {
            let mut body = request.into_body();
            // Asks once, and comes back long after the part is there and the connection is gone.
            let asked = tokio::time::timeout(Duration::ZERO, body.frame()).await;
            assert!(asked.is_err(), "nothing is there yet");
            sleep(Duration::from_secs(5)).await;
            let _ = found.send(body.collect().await.map(http_body_util::Collected::to_bytes));
        });
        async { std::future::pending::<Result<Response, Fault>>().await }
    });
    let mut client = connect(service);
    send(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    sleep(Duration::from_secs(1)).await;
    send(&mut client, "3\r\nabc\r\n").await;
    sleep(Duration::from_secs(1)).await;
    drop(client);
    assert!(whole.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_after_a_body_is_no_head_that_is_late() {
    let mut client = connect(reader());
    send(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi\r\n").await;
    until(&mut client, "trailers").await;
    sleep(Duration::from_mins(1)).await;
    send(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nho").await;
    assert!(until(&mut client, "trailers").await.contains("b\"ho\""));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_side_is_answered_what_it_asked() {
    let slow = handler(|_| async {
        sleep(Duration::from_secs(1)).await;
        Ok(Response::new(Body::from("hello")))
    });
    let mut client = connect(slow);
    send(&mut client, &"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2)).await;
    client.shutdown().await.unwrap();
    // The first is answered because the second was there; of the last one nobody can tell that it is still wanted.
    assert!(until(&mut client, "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_flows_on_after_the_answer_keeps_its_connection() {
    let service = handler(|request| {
        tokio::spawn(request.into_body().collect());
        async { Ok(Response::new(Body::from("hello"))) }
    });
    let mut client = connect(service);
    send(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n").await;
    until(&mut client, "hello").await;
    for _ in 0..20 {
        sleep(Duration::from_mins(1)).await;
        send(&mut client, "x").await;
    }
    send(&mut client, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(until(&mut client, "hello").await.starts_with("HTTP/1.1 200"));
}

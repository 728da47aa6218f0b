//! The pool over HTTP/1.1, against real servers and broken ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response as HttpResponse;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::{count, get, in_memory, pool, post, raw, send, serve, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use towpath_gateway_core::{Body, BodyError, Context, Endpoint, Fault, Protocol, Reason, Replay};
use towpath_upstream::{Pool, PoolSettings};

type Frames = Result<Frame<Bytes>, BodyError>;

/// A body whose frames a test gives by hand.
fn by_hand() -> (mpsc::UnboundedSender<Frames>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames =
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    (sender, Body::new(StreamBody::new(frames)))
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let (endpoint, connections) = serve(Protocol::Http1, |request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        HttpResponse::new(Body::from(format!("{host}{}", request.uri())))
    })
    .await;
    let pool = pool();
    for n in 0..20 {
        let response = send(pool.clone(), &endpoint, get(&format!("http://ignored/{n}"))).await.unwrap();
        assert_eq!(text(response).await, format!("shop.example/{n}"));
    }
    assert_eq!(count(&connections), 1);
}

#[tokio::test]
async fn the_attempt_knows_its_connection() {
    let (endpoint, _) = serve(Protocol::Http1, |_| async { HttpResponse::new(Body::empty()) }).await;
    let mut request = get("/");
    let context = Context::of(request.extensions_mut());
    send(pool(), &endpoint, request).await.unwrap();
    let attempt = context.attempt().unwrap();
    assert_eq!(attempt.connection().map(|connection| connection.peer), Some(endpoint.address));
}

#[tokio::test]
async fn without_an_attempt_there_is_nowhere_to_go() {
    let fault = tower::ServiceExt::oneshot(pool(), get("/")).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::Internal);
}

#[tokio::test]
async fn pools_apart_share_nothing() {
    let (endpoint, connections) =
        serve(Protocol::Http1, |_| async { HttpResponse::new(Body::empty()) }).await;
    let pool = pool();
    for pool in [pool.apart(), pool.clone(), pool] {
        send(pool, &endpoint, get("/")).await.unwrap();
    }
    assert_eq!(count(&connections), 2);
}

#[tokio::test]
async fn trailers_and_connection_headers_are_told_apart() {
    let (endpoint, connections) = raw(|mut stream| async move {
        let mut head = [0; 1024];
        while stream.read(&mut head).await.unwrap_or(0) > 0 {
            let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: timeout=5\r\n\
                            connection: x-hop\r\nx-hop: 1\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    })
    .await;
    let pool = pool();
    for _ in 0..2 {
        let response = send(pool.clone(), &endpoint, get("/")).await.unwrap();
        for name in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "7");
        assert_eq!(body.to_bytes(), "ok");
    }
    assert_eq!(count(&connections), 1);
}

#[tokio::test]
async fn a_connection_with_an_unread_body_is_closed() {
    let (sender, mut closed) = mpsc::unbounded_channel();
    let (endpoint, connections) = raw(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nsome").await.unwrap();
            let rest = stream.read(&mut head).await;
            sender.send(matches!(rest, Ok(0) | Err(_))).unwrap();
        }
    })
    .await;
    let pool = pool();
    drop(send(pool.clone(), &endpoint, get("/")).await.unwrap());
    assert!(closed.recv().await.unwrap());
    drop(send(pool, &endpoint, get("/")).await.unwrap());
    assert_eq!(count(&connections), 2);
}

#[tokio::test]
async fn a_request_that_is_given_up_closes_its_connection() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let (endpoint, _) = raw(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut head = [0; 1024];
            sender.send(stream.read(&mut head).await.unwrap()).unwrap();
            sender.send(stream.read(&mut head).await.unwrap_or(0)).unwrap();
        }
    })
    .await;
    let request = tokio::spawn(async move { send(pool(), &endpoint, get("/")).await.is_ok() });
    assert!(events.recv().await.unwrap() > 0);
    request.abort();
    assert_eq!(events.recv().await, Some(0));
}

#[tokio::test]
async fn a_connection_with_an_unsent_request_body_is_not_reused() {
    let (endpoint, connections) = raw(|mut stream| async move {
        let mut head = [0; 1024];
        while stream.read(&mut head).await.unwrap_or(0) > 0 {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let pool = pool();
    let (frames, body) = by_hand();
    frames.send(Ok(Frame::data(Bytes::from("half")))).unwrap();
    let response = send(pool.clone(), &endpoint, post("/", body)).await.unwrap();
    assert_eq!(text(response).await, "ok");
    assert_eq!(text(send(pool.clone(), &endpoint, get("/")).await.unwrap()).await, "ok");
    assert_eq!(count(&connections), 2);
    drop(frames);
}

#[tokio::test(start_paused = true)]
async fn idle_and_old_connections_take_no_request() {
    let ended = |settings: PoolSettings, wait: u64| async move {
        let (connector, connections) =
            in_memory(Protocol::Http1, |_| async { HttpResponse::new(Body::from("x")) });
        let pool = Pool::new(connector, settings);
        let endpoint = std::sync::Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()));
        text(send(pool.clone(), &endpoint, get("/")).await.unwrap()).await;
        tokio::time::sleep(Duration::from_secs(wait)).await;
        text(send(pool, &endpoint, get("/")).await.unwrap()).await;
        count(&connections)
    };
    assert_eq!(ended(PoolSettings::default(), 49).await, 1);
    assert_eq!(ended(PoolSettings::default(), 51).await, 2);
    let young = PoolSettings { max_age: Some(Duration::from_secs(20)), ..PoolSettings::default() };
    assert_eq!(ended(young.clone(), 19).await, 1);
    assert_eq!(ended(young, 21).await, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_even_if_no_request_comes() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (ended, mut end) = mpsc::unbounded_channel();
        let connector = tower::service_fn(move |_: towpath_gateway_core::Destination| {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let ended = ended.clone();
            tokio::spawn(async move {
                support::drive(protocol, theirs, |_| async { HttpResponse::new(Body::from("x")) }).await;
                ended.send(()).unwrap();
            });
            let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            let connection = towpath_gateway_core::Connection::plaintext(nowhere, nowhere);
            let connected = towpath_gateway_core::Connected {
                io: Box::new(ours),
                connection: std::sync::Arc::new(connection),
            };
            std::future::ready(Ok::<_, Fault>(connected))
        });
        let pool = Pool::new(connector, PoolSettings::default());
        let endpoint = Endpoint::plaintext("127.0.0.1:1".parse().unwrap()).with_protocol(protocol);
        let began = tokio::time::Instant::now();
        text(send(pool.clone(), &std::sync::Arc::new(endpoint), get("/")).await.unwrap()).await;
        tokio::time::timeout(Duration::from_mins(5), end.recv()).await.expect("it stays open").unwrap();
        let waited = began.elapsed();
        assert!(
            waited >= Duration::from_secs(50) && waited < Duration::from_mins(1),
            "{protocol:?}: {waited:?}"
        );
    }
}

async fn against(answer: &'static [u8]) -> Result<Bytes, Fault> {
    let (endpoint, _) = raw(move |mut stream| async move {
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let response = send(pool(), &endpoint, get("/")).await?;
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Fault>());
        source.cloned().unwrap_or_else(|| Fault::new(Reason::Internal))
    })
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_a_clean_end() {
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(against(whole).await.unwrap(), "hello");
    for broken in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50\r\nhello",
    ] {
        assert_eq!(against(broken).await.unwrap_err().reason(), Reason::UpstreamReset);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_a_fault_that_says_what_is_known() {
    let table = [
        (&b""[..], Reason::UpstreamReset, Replay::IfIdempotent),
        (b"HTTP/1.1 200 O", Reason::UpstreamReset, Replay::IfIdempotent),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Reason::UpstreamInvalid, Replay::Never),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello", Reason::UpstreamInvalid, Replay::Never),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            Reason::UpstreamInvalid,
            Replay::Never,
        ),
    ];
    for (answer, reason, replay) in table {
        let fault = against(answer).await.unwrap_err();
        assert_eq!((fault.reason(), fault.replay()), (reason, replay), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_the_clients_fault() {
    let (endpoint, _) = serve(Protocol::Http1, |request| async move {
        let _ = request.into_body().collect().await;
        HttpResponse::new(Body::empty())
    })
    .await;
    let (frames, body) = by_hand();
    frames.send(Ok(Frame::data(Bytes::from("half")))).unwrap();
    frames.send(Err(BodyError::new("gone"))).unwrap();
    assert_eq!(send(pool(), &endpoint, post("/", body)).await.unwrap_err().reason(), Reason::ClientGone);
    let (frames, body) = by_hand();
    frames.send(Err(BodyError::new(Fault::new(Reason::BodyTooLarge)))).unwrap();
    assert_eq!(send(pool(), &endpoint, post("/", body)).await.unwrap_err().reason(), Reason::BodyTooLarge);
}

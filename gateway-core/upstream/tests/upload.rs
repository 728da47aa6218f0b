//! Request bodies over HTTP/1.1: how they are framed, and what becomes of them when the answer comes early.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::{count, get, pool, post, raw, send, serve, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use towpath_gateway_core::{Body, BodyError, Protocol, Reason};

type Frames = Result<Frame<Bytes>, BodyError>;

fn by_hand() -> (mpsc::UnboundedSender<Frames>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames =
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    (sender, Body::new(StreamBody::new(frames)))
}

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

/// A server that says how long each body was, and what its trailer was.
async fn measuring() -> (std::sync::Arc<towpath_gateway_core::Endpoint>, support::Count) {
    serve(Protocol::Http1, |request| async move {
        let length = request.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap();
        let trailers: Vec<_> = body.trailers().map(|map| map.keys().cloned().collect()).unwrap_or_default();
        let bytes = body.to_bytes();
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        http::Response::new(Body::from(format!("{} {sum} {length:?} {trailers:?}", bytes.len())))
    })
    .await
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole() {
    let (endpoint, connections) = measuring().await;
    let pool = pool();
    for size in [0, 1, 15, 16, 4095, 4096, 4097, 8192, 16 * 1024, 70_000, 3_000_000] {
        let bytes: Bytes = (0..size).map(|n: u32| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>().into();
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        let response = send(pool.clone(), &endpoint, post("/", bytes.clone())).await.unwrap();
        let length = (size > 0).then(|| size.to_string());
        assert_eq!(text(response).await, format!("{size} {sum} {length:?} []"));

        let (frames, body) = by_hand();
        frames.send(Ok(data(bytes.slice(..bytes.len() / 3)))).unwrap();
        frames.send(Ok(data(bytes.slice(bytes.len() / 3..)))).unwrap();
        drop(frames);
        let response = send(pool.clone(), &endpoint, post("/", body)).await.unwrap();
        assert_eq!(text(response).await, format!("{size} {sum} None []"), "chunked");

        let (frames, body) = by_hand();
        frames.send(Ok(data(bytes))).unwrap();
        drop(frames);
        let mut request = post("/", body);
        request.headers_mut().insert("content-length", size.to_string().parse().unwrap());
        let response = send(pool.clone(), &endpoint, request).await.unwrap();
        assert_eq!(text(response).await, format!("{size} {sum} {:?} []", Some(size.to_string())), "streamed");
    }
    assert_eq!(count(&connections), 1);
}

#[tokio::test]
async fn trailers_are_sent_but_for_those_that_frame() {
    let (endpoint, _) = measuring().await;
    let (frames, body) = by_hand();
    frames.send(Ok(data("x"))).unwrap();
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "content-length", "host"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    frames.send(Ok(Frame::trailers(trailers))).unwrap();
    let mut request = post("/", body);
    request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    let response = send(pool(), &endpoint, request).await.unwrap();
    assert_eq!(text(response).await, "1 120 None [\"x-sum\"]");
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_said_is_a_fault() {
    let (endpoint, _) = measuring().await;
    for body_bytes in ["ab", "abcd"] {
        let (frames, body) = by_hand();
        frames.send(Ok(data(body_bytes))).unwrap();
        drop(frames);
        let mut request = post("/", body);
        request.headers_mut().insert("content-length", HeaderValue::from_static("3"));
        let fault = send(pool(), &endpoint, request).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::BadRequest, "{body_bytes}");
    }
}

#[tokio::test]
async fn the_rest_of_the_request_goes_on_under_an_early_answer() {
    // Sends back each chunk of what it reads, as a server may that works on a stream.
    let (endpoint, connections) = raw(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        let mut sent = 0;
        while stream.read_buf(&mut all).await.unwrap_or(0) > 0 {
            let body = String::from_utf8_lossy(&all).into_owned();
            let marks = body.matches("mark").count();
            while sent < marks {
                stream.write_all(b"ok!").await.unwrap();
                sent += 1;
            }
        }
    })
    .await;
    let pool = pool();
    let (frames, body) = by_hand();
    frames.send(Ok(data("mark"))).unwrap();
    let response = send(pool.clone(), &endpoint, post("/", body)).await.unwrap();
    let mut answer = response.into_body();
    for n in 0..3 {
        let mut piece = Vec::new();
        while piece.len() < 3 {
            piece.extend_from_slice(&answer.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(piece, b"ok!", "{n}");
        let _ = frames.send(Ok(data("mark")));
    }
    assert!(answer.frame().await.is_none());
    drop(answer);
    let _ = send(pool, &endpoint, get("/")).await;
    assert_eq!(count(&connections), 2, "the request had not ended");
}

#[tokio::test]
async fn an_answer_is_read_even_if_the_request_met_a_closed_door() {
    let (endpoint, _) = raw(|mut stream| async move {
        let mut head = [0; 256];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        stream.shutdown().await.unwrap();
        // What still comes is read, for closing on it would take the answer back.
        while stream.read(&mut head).await.unwrap_or(0) > 0 {}
    })
    .await;
    let response = send(pool(), &endpoint, post("/", vec![b'x'; 20_000_000])).await.unwrap();
    assert_eq!(response.status().as_u16(), 413);
    assert_eq!(text(response).await, "no");
}

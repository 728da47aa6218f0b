//! Streams that must pass: bidirectional gRPC and a WebSocket.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use towpath_service::grpc;

use super::{Check, World, equal};
use crate::client::{Failure, HOST};

const PATIENCE: Duration = Duration::from_secs(20);

/// Carries the checks out.
pub(super) async fn run(world: &World, done: &mut impl FnMut(Check)) {
    let seen = tokio::time::timeout(PATIENCE, chat(world)).await.unwrap_or_else(|late| Err(late.into()));
    done(equal(
        "a bidirectional gRPC stream",
        "one by one: 5 of 5, 1048576 bytes echoed, grpc-status 0",
        seen,
    ));
    let seen = tokio::time::timeout(PATIENCE, socket(world)).await.unwrap_or_else(|late| Err(late.into()));
    done(equal("a WebSocket echo", "hello 0, hello 1, hello 2", seen));
}

/// Sends a message only after the one before was answered, which a buffering proxy could not pass; then one of 1 MiB,
/// which passes the flow-control window of every hop.
async fn chat(world: &World) -> Result<String, Failure> {
    let mut sender = world.client.http2().await?;
    let (messages, mut queue) = mpsc::channel::<Bytes>(1);
    let stream =
        futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx).map(|m| m.map(|b| Ok(Frame::data(b)))));
    let request = Request::post(format!("https://{HOST}/bookshop.Chat/Echo"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(BodyExt::boxed(StreamBody::new(stream)))?;
    sender.ready().await?;
    let response = tokio::spawn(sender.send_request(request));
    messages.send(grpc::encode(b"message 0")).await?;
    let mut response = response.await??;
    let mut decoder = grpc::Decoder::default();
    let mut echoed = 0;
    for n in 0..5 {
        if next(&mut response, &mut decoder).await? == format!("message {n}").as_bytes() {
            echoed += 1;
        }
        if n < 4 {
            messages.send(grpc::encode(format!("message {}", n + 1).as_bytes())).await?;
        }
    }
    messages.send(grpc::encode(&vec![b'x'; 1024 * 1024])).await?;
    let big = next(&mut response, &mut decoder).await?.len();
    drop(messages);
    let trailers = response.into_body().collect().await?.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").and_then(|v| v.to_str().ok()).unwrap_or("missing");
    Ok(format!("one by one: {echoed} of 5, {big} bytes echoed, grpc-status {status}"))
}

async fn next(
    response: &mut http::Response<hyper::body::Incoming>,
    decoder: &mut grpc::Decoder,
) -> Result<Bytes, Failure> {
    loop {
        if let Some(message) = decoder.next()? {
            return Ok(message);
        }
        let frame = response.body_mut().frame().await.ok_or("the stream ended early")??;
        if let Ok(data) = frame.into_data() {
            decoder.push(data);
        }
    }
}

async fn socket(world: &World) -> Result<String, Failure> {
    let stream = world.client.secure(b"http/1.1").await?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("wss://{HOST}/ws"), stream).await?;
    let mut seen = Vec::new();
    for n in 0..3 {
        socket.send(Message::text(format!("hello {n}"))).await?;
        let echo = socket.next().await.ok_or("the socket closed early")??;
        seen.push(echo.into_text()?.to_string());
    }
    socket.close(None).await?;
    Ok(seen.join(", "))
}

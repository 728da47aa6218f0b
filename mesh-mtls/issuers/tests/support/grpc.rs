//! A gRPC server for tests: what it answers is what a handler sends.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What a call gets: bytes as they come, and a status once there are no more.
pub struct Answer {
    pub bytes: mpsc::UnboundedReceiver<Bytes>,
    pub status: &'static str,
}

impl Answer {
    /// These bytes, and a good end.
    pub fn of(bytes: Vec<u8>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(bytes.into()).unwrap();
        Self { bytes: receiver, status: "0" }
    }

    pub fn refusal(status: &'static str) -> Self {
        Self { bytes: mpsc::unbounded_channel().1, status }
    }
}

/// Takes a call's head and its message.
pub type Handler = Arc<dyn Fn(&Parts, &[u8]) -> Answer + Send + Sync>;

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

/// Serves the calls of one connection until it ends, or the future is dropped.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Handler) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        calls.spawn(answer(request, respond, Arc::clone(&handler)));
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    handler: Handler,
) {
    let (head, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
    }
    let Answer { mut bytes, status } = handler(&head, message.get(5..).unwrap_or_default());
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    while let Some(chunk) = bytes.recv().await {
        let _ = stream.send_data(chunk, false);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static("because%20of%20this"));
    let _ = stream.send_trailers(trailers);
}

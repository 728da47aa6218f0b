//! A gRPC method that sends every message back at once, in both directions for as long as the client likes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};

use crate::body::{Body, Failure};
use crate::grpc::{Decoder, FramingError, encode};

/// Echoes the messages of `body`.
pub(crate) fn echo<B>(body: B) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<Failure>> + Send + Unpin + 'static,
{
    let mut response = Response::new(Echo { body, decoder: Decoder::default(), done: false }.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A response body that reads the request body only when the client takes what was echoed before: flow control
/// reaches through.
struct Echo<B> {
    body: B,
    decoder: Decoder,
    done: bool,
}

impl<B> HttpBody for Echo<B>
where
    B: HttpBody<Data = Bytes, Error: Into<Failure>> + Unpin,
{
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.done {
            return Poll::Ready(None);
        }
        loop {
            match self.decoder.next() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(encode(&message))))),
                Ok(None) => {}
                Err(error) => return self.end(Err(error)),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().into_iter().for_each(|data| self.decoder.push(data)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    let ended = self.decoder.finish();
                    return self.end(ended);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

impl<B> Echo<B> {
    fn end(&mut self, ended: Result<(), FramingError>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.done = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(ended)))))
    }
}

/// Status 0 is OK, 13 is INTERNAL: what the specification asks for when framing is broken.
fn trailers(ended: Result<(), FramingError>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let status = if ended.is_ok() { "0" } else { "13" };
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    if let Some(message) = ended.err().and_then(|error| HeaderValue::try_from(error.to_string()).ok()) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn echoed(sent: Vec<u8>) -> (Bytes, HeaderMap) {
        let collected = echo(Full::new(Bytes::from(sent))).into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap();
        (collected.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn messages_come_back_and_the_status_is_ok() {
        let sent = [encode(b"one"), encode(b""), encode(b"three")].concat();
        let (bytes, trailers) = echoed(sent.clone()).await;
        assert_eq!(
            (bytes.as_ref(), &trailers["grpc-status"]),
            (sent.as_slice(), &HeaderValue::from_static("0"))
        );
    }

    #[tokio::test]
    async fn broken_framing_ends_with_internal_after_what_was_whole() {
        for rest in [vec![7], vec![0, 0, 0, 0, 9, 1], vec![1, 0, 0, 0, 0]] {
            let sent = [encode(b"one").to_vec(), rest].concat();
            let (bytes, trailers) = echoed(sent).await;
            assert_eq!((bytes, &trailers["grpc-status"]), (encode(b"one"), &HeaderValue::from_static("13")));
        }
    }
}

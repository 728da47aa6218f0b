//! Bodies that are long, and bodies that break.

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response, StatusCode, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::json;

use crate::body::{Body, Failure, json, needs_number, number, refusal};

/// Length of the pattern `0, 1, .. 250`. A prime, so that it meets no power of two twice in the same place.
const PERIOD: u8 = 251;
/// The pattern 256 times: chunks begin where the pattern begins and share these bytes.
static CHUNK: LazyLock<Bytes> = LazyLock::new(|| (0..256).flat_map(|_| 0..PERIOD).collect());
/// Bytes that `/break` announces and never sends.
const MISSING: u64 = 1000;
/// Time for what was sent to leave before the connection is cut.
const BEFORE_THE_CUT: Duration = Duration::from_millis(50);

/// Counts a request body and hashes it, without keeping it.
pub(crate) async fn upload<B>(mut body: B) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let (mut bytes, mut hash) = (0, digest::Context::new(&SHA256));
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                bytes += data.len();
                hash.update(&data);
            }
            Ok(Err(_trailers)) => {}
            Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")),
        }
    }
    let sha256: Vec<_> = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    json(&json!({ "bytes": bytes, "sha256": sha256.concat() }))
}

/// As many bytes of the pattern as the query says.
pub(crate) fn download(uri: &Uri) -> Response<Body> {
    let Some(bytes) = number(uri, "bytes") else { return needs_number("bytes") };
    Response::new(Pattern { left: bytes }.map_err(|never| match never {}).boxed_unsync())
}

/// Announces more bytes than the query says, sends those, and cuts the connection.
pub(crate) fn broken(uri: &Uri) -> Response<Body> {
    let Some(bytes) = number(uri, "bytes") else { return needs_number("bytes") };
    let mut response = Response::new(cut_after(bytes));
    let announced = HeaderValue::from(bytes.saturating_add(MISSING));
    response.headers_mut().insert(CONTENT_LENGTH, announced);
    response
}

fn cut_after(bytes: u64) -> Body {
    let frames = stream::unfold(Pattern { left: bytes }, |mut pattern| async move {
        if let Some(chunk) = pattern.chunk() {
            return Some((Ok(Frame::data(chunk)), pattern));
        }
        tokio::time::sleep(BEFORE_THE_CUT).await;
        Some((Err(Failure::from("cut on purpose")), pattern))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The pattern, so many bytes of it.
struct Pattern {
    left: u64,
}

impl Pattern {
    fn chunk(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK.len());
        self.left -= length as u64;
        (length > 0).then(|| CHUNK.slice(..length))
    }
}

impl HttpBody for Pattern {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.chunk().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn the_pattern_runs_on_over_chunks() {
        let length = CHUNK.len() * 2 + 7;
        let pattern = Pattern { left: length as u64 };
        assert_eq!(pattern.size_hint().exact(), Some(length as u64));
        let bytes = pattern.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), length);
        assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
    }

    #[tokio::test]
    async fn an_upload_is_counted_and_hashed() {
        let answer = upload(Full::new(Bytes::from_static(b"abc"))).await.into_body();
        let bytes = answer.collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        // FIPS 180-4, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(value, json!({"bytes": 3, "sha256": expected}));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_body_announces_more_than_it_sends() {
        let response = broken(&"/break?bytes=100000".parse().unwrap());
        assert_eq!(response.headers()[CONTENT_LENGTH], "101000");
        let (mut body, mut sent) = (response.into_body(), 0);
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => sent += frame.into_data().unwrap().len(),
                Err(error) => break error,
            }
        };
        assert_eq!((sent, error.to_string().as_str()), (100_000, "cut on purpose"));
    }
}

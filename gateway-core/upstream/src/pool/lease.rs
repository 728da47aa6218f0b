//! A response body that holds its place on an HTTP/2 connection.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use towpath_gateway_core::{Body, Fault, InFlight, Reason, Response};
use towpath_http1::hop;

/// The response as layers see it.
pub(super) fn deliver(response: http::Response<Incoming>, place: InFlight) -> Response {
    let (mut parts, body) = response.into_parts();
    hop::strip(&mut parts.headers);
    parts.extensions.clear();
    // The version that the client speaks is the server's affair.
    parts.version = Version::HTTP_11;
    let body =
        if body.is_end_stream() { Body::empty() } else { Body::new(Leased { body, place: Some(place) }) };
    Response::from_parts(parts, body)
}

struct Leased {
    body: Incoming,
    place: Option<InFlight>,
}

impl http_body::Body for Leased {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.place = None;
        }
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| Fault::new(Reason::UpstreamReset).with_source(error))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

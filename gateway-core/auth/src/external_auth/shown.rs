//! What a service sees of a body, and the body that goes on.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use towpath_gateway_core::{Body, BodyError, Fault, Reason, Request};

use crate::external::{ExternalAuth, ExternalBody};

/// Reads what the service may see of the request's body. What was read for it goes on to the backend all the same.
pub(super) async fn shown(auth: &ExternalAuth, request: &mut Request) -> Result<ExternalBody, Fault> {
    if auth.max_body == 0 || request.body().is_end_stream() {
        return Ok(ExternalBody::default());
    }
    let too_large = || Fault::new(Reason::BodyTooLarge).with_policy(Arc::clone(&auth.name));
    let limit = u64::try_from(auth.max_body).unwrap_or(u64::MAX);
    let stated = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let longer =
        stated.is_some_and(|stated: u64| stated > limit) || request.body().size_hint().lower() > limit;
    if longer && !auth.partial_body {
        return Err(too_large());
    }
    let mut body = mem::take(request.body_mut());
    let (mut read, mut trailers, mut ended) = (BytesMut::new(), None, false);
    let enough = if auth.partial_body { auth.max_body } else { auth.max_body.saturating_add(1) };
    while read.len() < enough {
        match body.frame().await {
            None => {
                ended = true;
                break;
            }
            Some(Err(error)) => return Err(Fault::new(Reason::ClientGone).with_source(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => {
                    (trailers, ended) = (frame.into_trailers().ok(), true);
                }
            },
        }
    }
    // Of a body whose end was not seen there may be more.
    let partial =
        longer || read.len() > auth.max_body || (auth.partial_body && !ended && !body.is_end_stream());
    if partial && !auth.partial_body {
        return Err(too_large());
    }
    let read = read.freeze();
    let bytes = read.slice(..read.len().min(auth.max_body));
    *request.body_mut() = match trailers {
        None if body.is_end_stream() => Body::from(read),
        None => Body::new(Again { read, rest: body }),
        Some(trailers) => {
            let trailers = std::future::ready(Some(Ok(trailers)));
            Body::new(Body::from(read).with_trailers(trailers))
        }
    };
    Ok(ExternalBody { bytes, partial })
}

/// What was read of a body, then the rest of it.
struct Again {
    read: Bytes,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.read)))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (read, rest) = (self.read.len() as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(rest.lower().saturating_add(read));
        hint
    }
}

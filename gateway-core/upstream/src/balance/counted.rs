//! A response body that keeps its endpoint's load until it has ended.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use towpath_gateway_core::{Body, InFlight};

pin_project! {
    /// A body that counts as in flight until its end, its failure or its drop.
    struct Counted<B> {
        #[pin]
        body: B,
        flight: Option<InFlight>,
    }
}

/// Ties `flight` to the rest of `body`; a body that has ended already needs no wrapper.
pub(super) fn until_ended<B>(body: B, flight: Option<InFlight>) -> Body
where
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    if body.is_end_stream() {
        return Body::empty();
    }
    let mut body = Some(body);
    // Of a response that is here whole nothing is in flight any more; it needs no second wrapper either.
    let own = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>();
    if let Some(own) = own.and_then(|own| own.take_if(|own| own.bytes().is_some())) {
        return own;
    }
    body.map_or_else(Body::empty, |body| Body::new(Counted { body, flight }))
}

impl<B: http_body::Body> http_body::Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            *this.flight = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

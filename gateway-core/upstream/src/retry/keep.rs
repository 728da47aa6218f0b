//! A request body that can be sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use towpath_gateway_core::{Body, BodyError};

/// What is left of a body for another try.
pub(super) enum Kept {
    /// All of it.
    Bytes(Bytes),
    /// A stream, which comes back here if nobody looked at it.
    Stream(Arc<Mutex<Option<Body>>>),
}

impl Kept {
    /// Arranges for `body` to be sent again.
    pub(super) fn of(body: &mut Body) -> Self {
        if let Some(bytes) = body.bytes() {
            return Self::Bytes(bytes);
        }
        if body.is_end_stream() {
            *body = Body::empty();
            return Self::Bytes(Bytes::new());
        }
        let place = Arc::new(Mutex::new(None));
        *body = lend(std::mem::take(body), &place);
        Self::Stream(place)
    }

    /// Whether the whole body is here.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::Stream(place) => place.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }

    /// The body for the next try, or `None` if it is gone.
    pub(super) fn body(&self) -> Option<Body> {
        match self {
            Self::Bytes(bytes) => Some(bytes.clone().into()),
            Self::Stream(place) => {
                let body = place.lock().unwrap_or_else(PoisonError::into_inner).take()?;
                Some(lend(body, place))
            }
        }
    }
}

fn lend(body: Body, place: &Arc<Mutex<Option<Body>>>) -> Body {
    Body::new(Lent { body, place: Some(Arc::clone(place)) })
}

/// A stream that returns to its place when it is dropped before the first look at it.
struct Lent {
    body: Body,
    place: Option<Arc<Mutex<Option<Body>>>>,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.place = None;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::mem::take(&mut self.body));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, StreamBody};

    use super::*;

    fn stream(text: &'static str) -> Body {
        let frame = Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(text.as_bytes())));
        Body::new(StreamBody::new(futures_util::stream::iter([frame])))
    }

    #[tokio::test]
    async fn bytes_can_be_sent_any_number_of_times() {
        let mut body = Body::from("abc");
        let kept = Kept::of(&mut body);
        for body in [body, kept.body().unwrap(), kept.body().unwrap()] {
            assert!(kept.is_whole());
            assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        }
    }

    #[test]
    fn a_stream_that_has_ended_is_no_bytes() {
        let mut body = Body::new(Empty::<Bytes>::new());
        assert!(Kept::of(&mut body).is_whole());
        assert!(body.bytes().is_some_and(|bytes| bytes.is_empty()));
    }

    #[tokio::test]
    async fn a_stream_comes_back_only_untouched() {
        let mut body = stream("abc");
        let kept = Kept::of(&mut body);
        assert!(!kept.is_whole(), "it is still out");
        drop(body);
        assert!(kept.is_whole());
        let mut second = kept.body().unwrap();
        assert!(!kept.is_whole());
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        drop(second);
        assert!(!kept.is_whole() && kept.body().is_none());
    }
}

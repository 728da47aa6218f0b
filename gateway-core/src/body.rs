//! The body that stacks pass on: nothing, bytes in hand, or a stream.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use crate::InFlight;

/// A message body. Streams are never buffered; trailers pass through.
///
/// What only looks at a body need not wrap it (which costs a box): it is [watched](Body::watched), or
/// [counted](Body::counted) as in flight.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    watch: Option<Box<dyn Watch>>,
    flight: Option<InFlight>,
}

/// Looks on while a body is read.
pub trait Watch: Send {
    /// Sees what the body gives: a frame, why it broke off, or `None` at its end. `ended` says that nothing follows.
    /// Returns whether that was all there is to see: the watch is then dropped. Else it is dropped with the body.
    fn see(&mut self, seen: Option<Result<&Frame<Bytes>, &BodyError>>, ended: bool) -> bool;
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, watch: None, flight: None }
    }

    /// Any other body. One that is a `Body` already stays as it is.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let mut slot = Some(body);
        let same = (&mut slot as &mut dyn Any).downcast_mut::<Option<Self>>().and_then(Option::take);
        same.unwrap_or_else(|| slot.map_or_else(Self::empty, Self::boxed))
    }

    fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        Self::of(Kind::Stream(Box::pin(Adapter { body })))
    }

    /// The same body, shown to `watch` while it is read.
    #[must_use]
    pub fn watched(self, watch: Box<dyn Watch>) -> Self {
        let body = if self.watch.is_none() { self } else { Self::boxed(self) };
        Self { watch: Some(watch), ..body }
    }

    /// The same body, which counts as in flight until its end, its failure or its drop. One that has ended already
    /// does not.
    #[must_use]
    pub fn counted(self, flight: InFlight) -> Self {
        if http_body::Body::is_end_stream(&self) {
            return self;
        }
        let body = if self.flight.is_none() { self } else { Self::boxed(self) };
        Self { flight: Some(flight), ..body }
    }

    /// The bytes of a body that is in hand whole (and so can be sent again), or `None` for a stream.
    pub fn bytes(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            Kind::Stream(_) => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Empty => f.write_str("Body::Empty"),
            Kind::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl Kind {
    fn poll_frame(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.kind.poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.flight = None;
        }
        if self.watch.is_some() {
            let ended = self.is_end_stream();
            let seen = frame.as_ref().map(Result::as_ref);
            if self.watch.as_mut().is_some_and(|watch| watch.see(seen, ended)) {
                self.watch = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

pin_project_lite::pin_project! {
    struct Adapter<B> {
        #[pin]
        body: B,
    }
}

impl<B> http_body::Body for Adapter<B>
where
    B: http_body::Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.project().body.poll_frame(cx).map(|frame| {
            frame.map(|result| match result {
                // `copy_to_bytes` of a `Bytes` shares, it does not copy.
                Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
                Err(error) => Err(BodyError::new(error)),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that broke off. Cheap to clone, so that more than one layer can look at it.
#[derive(Debug, Clone)]
pub struct BodyError(Arc<dyn Error + Send + Sync>);

impl BodyError {
    /// Wraps the error of a stream, unless it is one of these already.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(same) => *same,
            Err(other) => Self(Arc::from(other)),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body broke off: {}", self.0)
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::HeaderMap;
    use http_body::Body as _;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::Load;

    #[tokio::test]
    async fn bytes_in_hand_come_out_once() {
        let body = Body::from("hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.bytes().as_deref(), Some(&b"hello"[..]));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    }

    #[tokio::test]
    async fn trailers_pass_through() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let body = Body::new(Full::new(Bytes::from("x")).with_trailers(async move { Some(Ok(trailers)) }));
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    }

    #[tokio::test]
    async fn a_broken_stream_says_so() {
        let frames = vec![Ok(Frame::data(Bytes::from("a"))), Err(std::io::Error::other("gone"))];
        let body = Body::new(StreamBody::new(futures_stream(frames)));
        let error = body.collect().await.unwrap_err();
        assert!(error.to_string().contains("gone"));
    }

    fn futures_stream<T: Unpin>(items: Vec<T>) -> impl futures_core::Stream<Item = T> {
        struct Items<T>(std::vec::IntoIter<T>);
        impl<T: Unpin> futures_core::Stream for Items<T> {
            type Item = T;
            fn poll_next(mut self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<Option<T>> {
                Poll::Ready(self.0.next())
            }
        }
        Items(items.into_iter())
    }

    /// Notes what it sees, and has seen enough when the body ends or breaks off.
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Watch for Notes {
        fn see(&mut self, seen: Option<Result<&Frame<Bytes>, &BodyError>>, ended: bool) -> bool {
            let note = match &seen {
                Some(Ok(frame)) => format!("{} bytes", frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => error.to_string(),
                None => "end".to_owned(),
            };
            self.0.lock().unwrap().push(note);
            ended || !matches!(seen, Some(Ok(_)))
        }
    }

    impl Drop for Notes {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("dropped".to_owned());
        }
    }

    #[tokio::test]
    async fn a_watch_sees_every_frame_and_goes_when_it_has_seen_enough() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let frames = vec![Ok(Frame::data(Bytes::from("ab"))), Err(std::io::Error::other("gone"))];
        let mut body =
            Body::new(StreamBody::new(futures_stream(frames))).watched(Box::new(Notes(notes.clone())));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(*notes.lock().unwrap(), ["2 bytes", "the body broke off: gone", "dropped"]);
    }

    #[tokio::test]
    async fn two_watches_both_see_the_end_of_bytes_in_hand() {
        let (inner, outer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let body =
            Body::from("abc").watched(Box::new(Notes(inner.clone()))).watched(Box::new(Notes(outer.clone())));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(*inner.lock().unwrap(), ["3 bytes", "dropped"]);
        assert_eq!(*outer.lock().unwrap(), ["3 bytes", "dropped"]);
    }

    #[tokio::test]
    async fn a_body_is_in_flight_until_it_ends_fails_or_is_dropped() {
        let load = Load::new();
        let stream = |frames| Body::new(StreamBody::new(futures_stream(frames)));
        let data = || Ok(Frame::data(Bytes::from("a")));

        let mut ends = stream(vec![data()]).counted(load.begin());
        assert!(ends.frame().await.unwrap().is_ok());
        assert_eq!(load.current(), 1, "the end is not yet known");
        assert!(ends.frame().await.is_none());
        assert_eq!(load.current(), 0);

        let mut fails = stream(vec![Err(std::io::Error::other("gone"))]).counted(load.begin());
        assert!(fails.frame().await.unwrap().is_err());
        assert_eq!(load.current(), 0);

        drop(stream(vec![data()]).counted(load.begin()));
        let _empty = Body::empty().counted(load.begin());
        assert_eq!(load.current(), 0);
    }

    #[test]
    fn a_body_is_not_boxed_again() {
        assert_eq!(Body::new(Body::from("hello")).bytes().as_deref(), Some(&b"hello"[..]));
    }

    #[test]
    fn errors_are_not_wrapped_twice() {
        let first = BodyError::new("gone");
        assert_eq!(BodyError::new(first.clone()).to_string(), first.to_string());
    }
}

//! One body for several readers, of whom the first never waits for the others.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use towpath_gateway_core::{Body, BodyError};

/// Parts that may wait for a copy's reader.
const AHEAD: usize = 64;

/// The body, and so many copies of it. A copy whose reader falls behind breaks off, and so do all where the body is not
/// read to its end.
pub(crate) fn tee(body: Body, copies: usize) -> (Body, Vec<Body>) {
    if let Some(bytes) = body.bytes() {
        return (body, (0..copies).map(|_| Body::from(bytes.clone())).collect());
    }
    if body.is_end_stream() {
        return (body, (0..copies).map(|_| Body::empty()).collect());
    }
    let left = body.size_hint().exact();
    let (senders, readers): (Vec<_>, Vec<_>) = (0..copies).map(|_| channel(AHEAD)).unzip();
    let readers = readers.into_iter().map(|parts| Body::new(Copy { parts, left, over: false })).collect();
    (Body::new(Tee { body, senders }), readers)
}

/// What a copy is told.
enum Part {
    Data(Bytes),
    Trailers(http::HeaderMap),
    End,
}

struct Tee {
    body: Body,
    senders: Vec<Sender<Part>>,
}

impl Tee {
    fn tell(&mut self, part: impl Fn() -> Part) {
        self.senders.retain(|sender| sender.try_send(part()).is_ok());
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.tell(|| Part::Data(data.clone()));
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.tell(|| Part::Trailers(trailers.clone()));
                }
            }
            Some(Err(_)) => self.senders.clear(),
            None => {}
        }
        // Readers that know the length do not ask for the end.
        if frame.is_none() || self.body.is_end_stream() {
            self.tell(|| Part::End);
            self.senders.clear();
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

struct Copy {
    parts: Receiver<Part>,
    left: Option<u64>,
    over: bool,
}

impl http_body::Body for Copy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let part = ready!(self.parts.poll_recv(cx));
        Poll::Ready(match part {
            Some(Part::Data(data)) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(Frame::data(data)))
            }
            Some(Part::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Part::End) => {
                self.over = true;
                None
            }
            None => {
                self.over = true;
                Some(Err(BodyError::new("the copy of the body fell behind, or the body broke off")))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

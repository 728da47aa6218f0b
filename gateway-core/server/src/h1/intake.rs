//! The body of a request: the connection reads as much of it as the service asks for, and no more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::AsyncRead;
use towpath_gateway_core::{Body, BodyError, Fault, Reason};
use towpath_http1::{Decoded, Framing, Invalid, Reader};

use crate::pace::Pace;

/// The connection's side.
pub(super) struct Intake {
    framing: Framing,
    line: Arc<Line>,
    /// Nothing more will be read, and the connection is of no use after it.
    broken: bool,
    ended: bool,
}

/// What both sides share. They are mostly in one task, and the lock is held for a few instructions.
struct Line(Mutex<Slot>);

#[derive(Default)]
struct Slot {
    frame: Option<Result<Frame<Bytes>, BodyError>>,
    /// Nothing comes after `frame`.
    ended: bool,
    wanted: bool,
    dropped: bool,
    service: Option<Waker>,
    connection: Option<Waker>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both sides of the body of a request.
pub(super) fn channel(framing: Framing, pace: &Arc<Pace>) -> (Intake, Body) {
    let line = Arc::new(Line(Mutex::default()));
    let left = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked(_) | Framing::Close => None,
    };
    pace.begin_upload();
    let upload = Upload { line: Arc::clone(&line), left, over: false, pace: Arc::clone(pace) };
    (Intake { framing, line, broken: false, ended: false }, Body::new(upload))
}

impl Intake {
    /// Whether the service waits for a part of the body.
    pub(super) fn is_wanted(&self) -> bool {
        let slot = self.line.lock();
        slot.wanted && !slot.dropped
    }

    /// Whether there is nothing more to do: all of it was read, or nobody will read on.
    pub(super) fn is_over(&self) -> bool {
        self.ended || self.broken || self.line.lock().dropped
    }

    /// Whether the connection stands behind the body now, ready for another request. What nobody wanted is passed
    /// over as far as it is here already.
    pub(super) fn settle(&mut self, read: &mut Reader) -> bool {
        while !self.broken && !self.ended {
            match self.framing.decode(&mut read.bytes) {
                Ok(Decoded::Data(_)) => self.ended = matches!(self.framing, Framing::Length(0)),
                Ok(Decoded::Trailers(_) | Decoded::End) => self.ended = true,
                Ok(Decoded::More) => return false,
                Err(_) => self.broken = true,
            }
        }
        self.ended
    }

    /// Reads the next part if it is wanted. Ready when the service has something new to look at.
    pub(super) fn poll<T: AsyncRead + Unpin>(
        &mut self,
        read: &mut Reader,
        io: &mut T,
        cx: &mut Task<'_>,
    ) -> Poll<()> {
        if self.ended || self.broken {
            return Poll::Pending;
        }
        {
            let mut slot = self.line.lock();
            if slot.dropped {
                return Poll::Pending;
            }
            if !slot.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                slot.connection = Some(cx.waker().clone());
            }
            if !slot.wanted {
                return Poll::Pending;
            }
        }
        let frame = ready!(self.poll_frame(read, io, cx));
        self.push(frame);
        Poll::Ready(())
    }

    fn poll_frame<T: AsyncRead + Unpin>(
        &mut self,
        read: &mut Reader,
        io: &mut T,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.framing.decode(&mut read.bytes) {
                Ok(Decoded::Data(data)) => {
                    self.ended = matches!(self.framing, Framing::Length(0));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    self.ended = true;
                    return Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(invalid) => return Poll::Ready(Some(Err(self.fail(malformed(invalid))))),
            }
            match ready!(read.poll_fill(io, cx)) {
                Ok(0) => return Poll::Ready(Some(Err(self.fail(gone(io::ErrorKind::UnexpectedEof.into()))))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.fail(gone(error))))),
            }
        }
    }

    fn fail(&mut self, fault: Fault) -> BodyError {
        self.broken = true;
        BodyError::new(fault)
    }

    fn push(&self, frame: Option<Result<Frame<Bytes>, BodyError>>) {
        let mut slot = self.line.lock();
        slot.frame = frame;
        slot.ended = self.ended || self.broken;
        slot.wanted = false;
        // Also where both are in one task: the reader may be beside the service there, and not polled with it.
        if let Some(waker) = slot.service.take() {
            drop(slot);
            waker.wake();
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let mut slot = self.line.lock();
        if !slot.ended {
            slot.ended = true;
            // In place of a part that waits: behind one that counts as the last, the cut would not be seen.
            let cut = io::Error::other("the connection ended before the request's body");
            slot.frame = Some(Err(BodyError::new(gone(cut))));
        }
        if let Some(waker) = slot.service.take() {
            drop(slot);
            waker.wake();
        }
    }
}

fn malformed(invalid: Invalid) -> Fault {
    Fault::new(Reason::BadRequest).with_detail(format!("request body: {invalid}"))
}

fn gone(error: io::Error) -> Fault {
    Fault::new(Reason::ClientGone).with_source(error)
}

/// The service's side; the connection takes no other request as long as this lives.
struct Upload {
    line: Arc<Line>,
    /// Bytes that have yet to come, where the client said so.
    left: Option<u64>,
    over: bool,
    pace: Arc<Pace>,
}

impl Upload {
    fn took(&mut self, frame: &Result<Frame<Bytes>, BodyError>, last: bool) {
        let length = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.left = self.left.map(|left| left.saturating_sub(length as u64));
        self.over = last || frame.is_err();
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let line = Arc::clone(&self.line);
        let mut slot = line.lock();
        if let Some(frame) = slot.frame.take() {
            self.took(&frame, slot.ended);
            return Poll::Ready(Some(frame));
        }
        if slot.ended {
            self.over = true;
            return Poll::Ready(None);
        }
        slot.service = Some(cx.waker().clone());
        slot.wanted = true;
        if let Some(waker) = slot.connection.take() {
            drop(slot);
            waker.wake();
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut slot = self.line.lock();
        slot.dropped = true;
        let waker = slot.connection.take();
        drop(slot);
        self.pace.end_upload();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

//! One request and its answer.

use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;
use towpath_gateway_core::{Body, Fault, Request};
use towpath_http1::{Broken, Reader, Sending};

use super::Shared;
use super::answer::{self, Asked};
use super::intake::Intake;
use crate::answering::Answering;
use crate::dispatch::Open;
use crate::drive::BoxError;

/// RFC 9110 section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes of further requests that are taken in while one is answered.
const AHEAD: usize = 8 * 1024;
/// Bytes of them that are taken in at once.
const GLANCE: usize = 256;

pin_project! {
    /// A request that is being answered. It holds its place as in flight until the answer is handed over whole.
    pub(super) struct Exchange<S: Service<Request>> {
        #[pin]
        step: Step<S, S::Future>,
        intake: Option<Intake>,
        asked: Asked,
        interim: Interim,
        // The client will send nothing more; what it sent is still answered.
        at_end: bool,
        open: Option<Open>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<S, F> {
        Answering { #[pin] answering: Answering<S, F> },
        Sending { sending: Sending },
        Answered,
    }
}

/// How an exchange ended.
pub(super) enum Progress {
    /// The connection takes another request.
    Next,
    /// It does not; `lingers` if the client may be sending still.
    Close { lingers: bool },
    /// The client is gone.
    Gone,
}

impl<S, B> Exchange<S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>> + Clone,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Default + Send + 'static,
{
    pub(super) fn new(
        service: &mut S,
        request: Request,
        asked: Asked,
        intake: Option<Intake>,
        expects_continue: bool,
        open: Open,
    ) -> Self {
        let interim = if expects_continue && intake.is_some() { Interim::Unsaid } else { Interim::Said };
        let step = Step::Answering { answering: Answering::start(service, request) };
        Self { step, intake, asked, interim, at_end: false, open: Some(open) }
    }

    /// `keep`: the connection may take another request, as far as the server is concerned.
    pub(super) fn poll<T: AsyncRead + AsyncWrite + Unpin>(
        mut self: Pin<&mut Self>,
        io: &mut T,
        read: &mut Reader,
        shared: &Shared,
        keep: bool,
        cx: &mut Task<'_>,
    ) -> Poll<Result<Progress, BoxError>> {
        loop {
            let answered = self.as_mut().poll_answer(io, read, shared, keep, cx)?.is_ready();
            let this = self.as_mut().project();
            let Some(intake) = this.intake else {
                if answered {
                    return Poll::Ready(Ok(this.asked.end(true, read, io, cx)));
                }
                return poll_gone(read, io, this.at_end, cx);
            };
            if answered && intake.is_over() {
                let whole = intake.settle(read);
                return Poll::Ready(Ok(this.asked.end(whole, read, io, cx)));
            }
            if !answered && (intake.is_wanted() || this.interim.is_begun()) {
                ready!(this.interim.poll_say(io, cx))?;
            }
            if intake.poll(read, io, cx).is_ready() {
                continue;
            }
            match (intake.is_over(), answered) {
                // It was dropped in another thread since it was asked.
                (true, true) => {}
                (true, false) => return poll_gone(read, io, this.at_end, cx),
                (false, _) => return Poll::Pending,
            }
        }
    }

    /// Ready when the answer is handed over.
    fn poll_answer<T: AsyncWrite + Unpin>(
        mut self: Pin<&mut Self>,
        io: &mut T,
        read: &mut Reader,
        shared: &Shared,
        keep: bool,
        cx: &mut Task<'_>,
    ) -> Poll<Result<(), BoxError>> {
        loop {
            let mut this = self.as_mut().project();
            let next = match this.step.as_mut().project() {
                StepProjection::Answering { answering } => {
                    let response = ready!(answering.poll(cx)).map(Body::new);
                    let interim = std::mem::replace(this.interim, Interim::Said);
                    this.asked.keep &= keep && interim.allows_more() && stands_behind(this.intake, read);
                    let mut out = shared.buffers.writer();
                    out.extend_from_slice(interim.rest());
                    Step::Sending { sending: answer::begin(response, this.asked, &shared.dates, out) }
                }
                StepProjection::Sending { sending } => {
                    ready!(sending.poll(io, cx)).map_err(broken)?;
                    *this.open = None;
                    Step::Answered
                }
                StepProjection::Answered => return Poll::Ready(Ok(())),
            };
            if let Step::Answered = next
                && let StepProjection::Sending { sending } = this.step.as_mut().project()
            {
                shared.buffers.give_writer(sending.take_buffer());
            }
            this.step.set(next);
        }
    }
}

/// What became of the interim response that a client waits for before it sends the body.
enum Interim {
    /// The client was not told to go on, so that nobody knows whether the body will come.
    Unsaid,
    /// This is left of it.
    Saying(&'static [u8]),
    /// It is written, perhaps into a buffer.
    Written,
    /// There is none, or the client has it.
    Said,
}

impl Interim {
    fn is_begun(&self) -> bool {
        matches!(self, Self::Saying(_) | Self::Written)
    }

    fn allows_more(&self) -> bool {
        !matches!(self, Self::Unsaid)
    }

    fn rest(&self) -> &'static [u8] {
        if let Self::Saying(left) = self { left } else { &[] }
    }

    /// Tells the client to go on.
    fn poll_say<T: AsyncWrite + Unpin>(&mut self, io: &mut T, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        loop {
            *self = match self {
                Self::Unsaid => Self::Saying(CONTINUE),
                Self::Saying([]) => Self::Written,
                Self::Saying(left) => match ready!(Pin::new(&mut *io).poll_write(cx, left))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => Self::Saying(left.get(n..).unwrap_or_default()),
                },
                Self::Written => {
                    ready!(Pin::new(&mut *io).poll_flush(cx))?;
                    Self::Said
                }
                Self::Said => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Whether the next request can be found behind the body: somebody reads it, or all of it is here.
fn stands_behind(intake: &mut Option<Intake>, read: &mut Reader) -> bool {
    intake.as_mut().is_none_or(|intake| !intake.is_over() || intake.settle(read))
}

impl Asked {
    /// `whole`: the body of the request was read to its end.
    fn end<T: AsyncRead + Unpin>(
        &self,
        whole: bool,
        read: &Reader,
        io: &mut T,
        cx: &mut Task<'_>,
    ) -> Progress {
        if self.keep && whole {
            return Progress::Next;
        }
        // Bytes that are never read would make the system reset the connection.
        let unread = !whole || !read.bytes.is_empty() || matches!(glance(io, cx), Poll::Ready(Ok(Some(_))));
        Progress::Close { lingers: unread }
    }
}

/// While the service is at work, sees whether the client has left. What it sends meanwhile is kept for later.
fn poll_gone<T: AsyncRead + Unpin>(
    read: &mut Reader,
    io: &mut T,
    at_end: &mut bool,
    cx: &mut Task<'_>,
) -> Poll<Result<Progress, BoxError>> {
    while !*at_end && read.bytes.len() < AHEAD {
        match ready!(glance(io, cx)) {
            Ok(Some((bytes, length))) => {
                read.bytes.extend_from_slice(bytes.get(..length).unwrap_or_default());
            }
            // It closed one side after it had sent its last requests.
            Ok(None) if !read.bytes.is_empty() => *at_end = true,
            Ok(None) => return Poll::Ready(Ok(Progress::Gone)),
            Err(error) => return Poll::Ready(Err(error.into())),
        }
    }
    Poll::Pending
}

/// What there is to read, `None` at the end. Mostly nothing comes, and then no buffer is needed.
fn glance<T: AsyncRead + Unpin>(
    io: &mut T,
    cx: &mut Task<'_>,
) -> Poll<io::Result<Option<([u8; GLANCE], usize)>>> {
    let mut bytes = [0; GLANCE];
    let mut room = ReadBuf::new(&mut bytes);
    ready!(Pin::new(io).poll_read(cx, &mut room))?;
    let length = room.filled().len();
    Poll::Ready(Ok((length > 0).then_some((bytes, length))))
}

fn broken(broken: Broken) -> BoxError {
    match broken {
        Broken::Body(error) => error.into(),
        Broken::Length(how) => format!("the answer's body is {how} than its length").into(),
        Broken::Io(error) => error.into(),
    }
}

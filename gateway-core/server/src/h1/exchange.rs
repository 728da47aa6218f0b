//! One request and its answer.

use std::io;
use std::mem::MaybeUninit;
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
const GLANCE: usize = 1024;

pin_project! {
    /// A request that is being answered. It holds its place as in flight until the answer is handed over whole.
    pub(super) struct Exchange<S: Service<Request>> {
        #[pin]
        step: Step<S, S::Future>,
        intake: Option<Intake>,
        asked: Asked,
        // What is left of the interim response that the client waits for before it sends the body; all of it until
        // the body is wanted.
        interim: &'static [u8],
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
        let interim = if expects_continue && intake.is_some() { CONTINUE } else { &[] };
        let step = Step::Answering { answering: Answering::start(service, request) };
        Self { step, intake, asked, interim, open: Some(open) }
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
                return if answered {
                    Poll::Ready(Ok(this.asked.end(true, read)))
                } else {
                    poll_gone(read, io, cx)
                };
            };
            if answered && intake.is_over() {
                let whole = intake.settle(read);
                return Poll::Ready(Ok(this.asked.end(whole, read)));
            }
            if !this.interim.is_empty() && !answered && intake.is_wanted() {
                ready!(poll_write(io, this.interim, cx))?;
            }
            if intake.poll(read, io, cx).is_pending() {
                return if intake.is_over() { poll_gone(read, io, cx) } else { Poll::Pending };
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
                    let interim = Interim::of(this.interim);
                    this.asked.keep &= keep && interim.allows_more() && stands_behind(this.intake, read);
                    let mut out = shared.buffers.writer();
                    out.extend_from_slice(interim.rest());
                    *this.interim = &[];
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

/// What became of the interim response until the answer began.
enum Interim {
    /// The client was not told to go on, so that nobody knows whether the body will come.
    Unsaid,
    /// There is none, or the client has all of it but this.
    Said(&'static [u8]),
}

impl Interim {
    fn of(left: &'static [u8]) -> Self {
        if left.len() == CONTINUE.len() { Self::Unsaid } else { Self::Said(left) }
    }

    fn allows_more(&self) -> bool {
        matches!(self, Self::Said(_))
    }

    fn rest(&self) -> &'static [u8] {
        match self {
            Self::Unsaid => &[],
            Self::Said(left) => left,
        }
    }
}

/// Whether the next request can be found behind the body: somebody reads it, or all of it is here.
fn stands_behind(intake: &mut Option<Intake>, read: &mut Reader) -> bool {
    intake.as_mut().is_none_or(|intake| !intake.is_over() || intake.settle(read))
}

impl Asked {
    /// `whole`: the body of the request was read to its end.
    fn end(&self, whole: bool, read: &Reader) -> Progress {
        if self.keep && whole {
            return Progress::Next;
        }
        Progress::Close { lingers: !whole || !read.bytes.is_empty() }
    }
}

/// While the service is at work, sees whether the client has left. What it sends meanwhile is kept for later.
fn poll_gone<T: AsyncRead + Unpin>(
    read: &mut Reader,
    io: &mut T,
    cx: &mut Task<'_>,
) -> Poll<Result<Progress, BoxError>> {
    while read.bytes.len() < AHEAD {
        // Mostly nothing comes, and then no buffer is needed.
        let mut room = [const { MaybeUninit::uninit() }; GLANCE];
        let mut room = ReadBuf::uninit(&mut room);
        match ready!(Pin::new(&mut *io).poll_read(cx, &mut room)) {
            Ok(()) if room.filled().is_empty() => return Poll::Ready(Ok(Progress::Gone)),
            Ok(()) => read.bytes.extend_from_slice(room.filled()),
            Err(error) => return Poll::Ready(Err(error.into())),
        }
    }
    Poll::Pending
}

fn poll_write<T: AsyncWrite + Unpin>(
    io: &mut T,
    left: &mut &'static [u8],
    cx: &mut Task<'_>,
) -> Poll<io::Result<()>> {
    while !left.is_empty() {
        let n = ready!(Pin::new(&mut *io).poll_write(cx, left))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *left = left.get(n..).unwrap_or_default();
    }
    Pin::new(io).poll_flush(cx)
}

fn broken(broken: Broken) -> BoxError {
    match broken {
        Broken::Body(error) => error.into(),
        Broken::Length(how) => format!("the answer's body is {how} than its length").into(),
        Broken::Io(error) => error.into(),
    }
}

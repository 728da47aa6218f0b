//! An HTTP/1.1 connection (RFC 9112): heads read strictly, small answers in one write, bodies streamed both ways.
//!
//! All of it happens in the connection's own task. Between requests it holds its socket and little else: buffers belong
//! to the worker and are lent to a connection while bytes are under way.
//!
//! A request that may leave HTTP behind (`Upgrade`, `CONNECT`) is read here like any other, then given to hyper with the
//! rest of the connection, whose `OnUpgrade` services know. The connection ends with its answer.

mod answer;
mod date;
mod exchange;
mod intake;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Sleep, sleep};
use tower_service::Service;
use towpath_gateway_core::{Body, BoxIo, Connection, Context, Fault, Request};
use towpath_http1::request::{self, HeadLimits, Refused, RequestHead};
use towpath_http1::{Broken, Buffers, Reader, Section, Sending};

use self::answer::Asked;
use self::date::Dates;
use self::exchange::{Exchange, Progress};
use crate::Limits;
use crate::dispatch::{Dispatch, Open};
use crate::drive::{BoxError, Graceful};
use crate::pace::Pace;
use crate::paced::Paced;

/// How long a client that sends on is listened to after the last answer. Closed at once, the connection would be reset,
/// and the answer might be lost with it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// What the HTTP/1.1 connections of a worker share.
pub(crate) struct Shared {
    limits: HeadLimits,
    buffers: Arc<Buffers>,
    dates: Dates,
    hyper: Builder,
}

impl Shared {
    pub(crate) fn new(limits: &Limits) -> Self {
        let head_bytes = limits.head_bytes as usize;
        let limits =
            HeadLimits { head_bytes, target_bytes: limits.target_bytes, header_count: limits.header_count };
        let mut hyper = Builder::new();
        // The head was held to the limits before hyper sees it.
        hyper.header_read_timeout(None).max_headers(limits.header_count.max(1));
        hyper.max_buf_size(head_bytes.max(SMALLEST_BUFFER) + SMALLEST_BUFFER);
        Self { limits, buffers: Arc::default(), dates: Dates::default(), hyper }
    }
}

/// Bytes of the least buffer that hyper takes.
const SMALLEST_BUFFER: usize = 8192;

/// A connection that hyper has.
type Hyper = Pin<Box<dyn Graceful<Error = hyper::Error, Output = hyper::Result<()>> + Send>>;

impl<S> Graceful for UpgradeableConnection<TokioIo<Paced<BoxIo>>, Dispatch<S>>
where
    Self: Future<Output = hyper::Result<()>> + Unpin,
    Dispatch<S>: HttpService<
            Incoming,
            Error: Into<BoxError>,
            ResBody: http_body::Body<Error: Into<BoxError>> + 'static,
        >,
{
    type Error = hyper::Error;

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

pin_project! {
    /// The connection; it resolves when it ends or becomes a tunnel.
    #[project = H1Projection]
    pub(crate) struct H1<S: Service<Request>> {
        // `None` once hyper has it.
        io: Option<Paced<BoxIo>>,
        #[pin]
        state: State<S>,
        read: Reader,
        // How far the head was looked through.
        section: Section,
        finishing: bool,
        service: S,
        connection: Arc<Connection>,
        pace: Arc<Pace>,
        limits: Limits,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S: Service<Request>> {
        /// A head is awaited, or on its way.
        Head,
        Busy { #[pin] exchange: Exchange<S> },
        /// The last words to a client that is not understood.
        Refusing { sending: Sending },
        Closing { lingers: bool },
        Lingering { until: Pin<Box<Sleep>> },
        Leaving { hyper: Hyper },
    }
}

impl<S, B> H1<S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>> + Clone,
    B: http_body::Body<Error: Into<BoxError>> + Default + Send + 'static,
{
    pub(crate) fn new(
        io: Paced<BoxIo>,
        ahead: Bytes,
        service: S,
        connection: Arc<Connection>,
        pace: Arc<Pace>,
        limits: Limits,
        shared: Arc<Shared>,
    ) -> Self {
        let read = Reader::new(Arc::clone(&shared.buffers), ahead);
        Self {
            io: Some(io),
            state: State::Head,
            read,
            section: Section::default(),
            finishing: false,
            service,
            connection,
            pace,
            limits,
            shared,
        }
    }
}

impl<S, B> Future for H1<S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Default + Send + 'static,
{
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let next = match this.state.as_mut().project() {
                StateProjection::Head => ready!(this.poll_head(cx))?,
                StateProjection::Busy { exchange } => {
                    let Some(io) = this.io else { return Poll::Ready(Ok(())) };
                    let keep = !*this.finishing && !this.pace.is_draining();
                    match ready!(exchange.poll(io, this.read, this.shared, keep, cx))? {
                        Progress::Next => {
                            this.read.forget();
                            State::Head
                        }
                        Progress::Close { lingers } => State::Closing { lingers },
                        Progress::Gone => return Poll::Ready(Ok(())),
                    }
                }
                StateProjection::Refusing { sending } => {
                    let Some(io) = this.io else { return Poll::Ready(Ok(())) };
                    match ready!(sending.poll(io, cx)) {
                        Ok(()) => State::Closing { lingers: true },
                        Err(Broken::Io(error)) => return Poll::Ready(Err(error.into())),
                        Err(_) => return Poll::Ready(Ok(())),
                    }
                }
                StateProjection::Closing { lingers } => {
                    let Some(io) = this.io else { return Poll::Ready(Ok(())) };
                    ready!(Pin::new(io).poll_shutdown(cx))?;
                    if !*lingers {
                        return Poll::Ready(Ok(()));
                    }
                    State::Lingering { until: Box::pin(sleep(LINGER)) }
                }
                StateProjection::Lingering { until } => {
                    let Some(io) = this.io else { return Poll::Ready(Ok(())) };
                    if until.as_mut().poll(cx).is_pending() {
                        ready!(poll_ignore(io, cx));
                    }
                    return Poll::Ready(Ok(()));
                }
                StateProjection::Leaving { hyper } => {
                    return hyper.as_mut().poll(cx).map_err(Into::into);
                }
            };
            this.state.set(next);
        }
    }
}

/// Reads on to the end of the stream and keeps nothing.
fn poll_ignore<T: AsyncRead + Unpin>(io: &mut T, cx: &mut Task<'_>) -> Poll<()> {
    let mut bytes = [0; 4096];
    loop {
        let mut bytes = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut *io).poll_read(cx, &mut bytes)) {
            Ok(()) if !bytes.filled().is_empty() => {}
            _ => return Poll::Ready(()),
        }
    }
}

impl<S, B> H1Projection<'_, S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Default + Send + 'static,
{
    /// What to do with the next head, or at the end of the stream.
    fn poll_head(&mut self, cx: &mut Task<'_>) -> Poll<Result<State<S>, BoxError>> {
        loop {
            if !self.read.bytes.is_empty() {
                match request::parse(&mut self.read.bytes, self.section, &self.shared.limits) {
                    Ok(Some((head, bytes))) if head.upgrades => return Poll::Ready(self.leave(&bytes)),
                    Ok(Some((head, _))) => return Poll::Ready(Ok(self.begin(head))),
                    // An empty line after a body is none.
                    Ok(None) if self.read.bytes.is_empty() => {}
                    // What came with the request before counts as well: it has no more time than others.
                    Ok(None) => self.pace.begin_head(),
                    Err(refused) => return Poll::Ready(Ok(self.refuse(refused))),
                }
            }
            let ended = *self.finishing && self.read.bytes.is_empty();
            let Some(io) = self.io.as_mut().filter(|_| !ended) else {
                return Poll::Ready(Ok(State::Closing { lingers: false }));
            };
            if ready!(self.read.poll_fill(io, cx))? == 0 {
                return Poll::Ready(Ok(State::Closing { lingers: false }));
            }
        }
    }

    fn begin(&mut self, head: RequestHead) -> State<S> {
        let (open, asked) = (Open::new(self.pace), Asked::of(&head));
        let RequestHead { method, target, version, headers, framing, expects_continue, .. } = head;
        let (body, intake) = match framing {
            towpath_http1::Framing::Length(0) => (Body::empty(), None),
            framing => {
                let (intake, body) = intake::channel(framing, self.pace);
                (body, Some(intake))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Context::on(Arc::clone(self.connection)));
        State::Busy { exchange: Exchange::new(self.service, request, asked, intake, expects_continue, open) }
    }

    fn refuse(&mut self, refused: Refused) -> State<S> {
        tracing::debug!(peer = %self.connection.peer, %refused, "request refused by the server");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = refused.status();
        let out = self.shared.buffers.writer();
        State::Refusing { sending: answer::begin(response, &mut Asked::unknown(), &self.shared.dates, out) }
    }

    /// Gives the connection away, its request first.
    fn leave(&mut self, head: &[u8]) -> Result<State<S>, BoxError> {
        let mut io = self.io.take().ok_or("the connection is gone already")?;
        let mut ahead = BytesMut::from(head);
        ahead.extend_from_slice(&std::mem::take(&mut self.read.bytes));
        io.put_back(ahead.freeze());
        let (connection, pace) = (Arc::clone(self.connection), Arc::clone(self.pace));
        let dispatch = Dispatch::new(self.service.clone(), connection, pace, *self.limits).last();
        let hyper = self.shared.hyper.serve_connection(TokioIo::new(io), dispatch).with_upgrades();
        Ok(State::Leaving { hyper: Box::pin(hyper) })
    }
}

impl<S, B> Graceful for H1<S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Default + Send + 'static,
{
    type Error = BoxError;

    fn finish(self: Pin<&mut Self>) {
        let this = self.project();
        *this.finishing = true;
        if let StateProjection::Leaving { hyper } = this.state.project() {
            hyper.as_mut().finish();
        }
    }
}

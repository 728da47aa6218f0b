//! An HTTP/1 connection that holds little more than its socket while nothing is asked of it.
//!
//! hyper keeps buffers for as long as a connection is open: some 16 KiB, which thousands of idle clients add up. Between
//! two requests nothing else of it is needed, so it is taken apart there and made again when bytes arrive.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use towpath_gateway_core::BoxIo;

use crate::drive::Graceful;
use crate::paced::Paced;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves `D`, and rests in between when it is told to.
pub(crate) struct Http1<D: HttpService<Incoming>> {
    builder: Arc<Builder>,
    state: State<D>,
}

enum State<D: HttpService<Incoming>> {
    Serving(Box<UpgradeableConnection<TokioIo<Paced<BoxIo>>, D>>),
    Resting(Paced<BoxIo>, D),
    Closing(Paced<BoxIo>),
    Over,
}

// Nothing in it is pinned: hyper's connection has a box, and the rest is moved about.
impl<D: HttpService<Incoming>> Unpin for Http1<D> {}

impl<D, B> Http1<D>
where
    D: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    pub(crate) fn new(builder: Arc<Builder>, io: Paced<BoxIo>, dispatch: D) -> Self {
        let state = serving(&builder, io, dispatch);
        Self { builder, state }
    }
}

fn serving<D, B>(builder: &Builder, io: Paced<BoxIo>, dispatch: D) -> State<D>
where
    D: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    State::Serving(Box::new(builder.serve_connection(TokioIo::new(io), dispatch).with_upgrades()))
}

impl<D, B> Future for Http1<D>
where
    D: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<hyper::Result<()>> {
        let this = &mut *self;
        match &mut this.state {
            State::Serving(connection) => return Pin::new(connection.as_mut()).poll(cx),
            State::Closing(io) => return Pin::new(io).poll_shutdown(cx).map(|_| Ok(())),
            State::Over => return Poll::Ready(Ok(())),
            State::Resting(io, _) => {
                if let Err(error) = ready!(io.poll_arrival(cx)) {
                    tracing::debug!(%error, "connection lost between requests");
                    this.state = State::Over;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        // Also at the end of the stream: hyper closes our side as it does at any other time.
        if let State::Resting(io, dispatch) = std::mem::replace(&mut this.state, State::Over) {
            this.state = serving(&this.builder, io, dispatch);
        }
        self.poll(cx)
    }
}

impl<D, B> Graceful for Http1<D>
where
    D: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    fn finish(mut self: Pin<&mut Self>) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Serving(mut connection) => {
                Pin::new(connection.as_mut()).graceful_shutdown();
                State::Serving(connection)
            }
            State::Resting(io, _) => State::Closing(io),
            other => other,
        }
    }

    fn can_rest(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    fn rest(mut self: Pin<&mut Self>) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Serving(connection) => connection.into_parts().map_or(State::Over, |parts| {
                let mut io = parts.io.into_inner();
                // The beginning of a request that came together with the one before.
                io.put_back(parts.read_buf);
                State::Resting(io, parts.service)
            }),
            other => other,
        }
    }
}

//! Serves HTTP/1.1 and HTTP/2 on a connection.
//!
//! - **reads** ALPN in `connection.tls`; without it, or with one that names no HTTP version, the first bytes
//! - **writes** a [`Context`](towpath_gateway_core::Context) with the connection into each request's extensions
//! - **ends a request with** 408, 414 or 431 for a head beyond [`Limits`]; 400 for one that is not HTTP, 501 for a transfer
//!   coding besides chunked, 505 for another version; 500 if the service's answer is an interim one
//! - **settings** [`Limits`], [`Drain`]
//! - **place** at the end of the accept stack, around the stack of HTTP layers

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http::Response;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxIo, Fault, Live, Request};

use crate::dispatch::Dispatch;
use crate::drive::{BoxError, Drive, End};
use crate::h1::{H1, Shared};
use crate::pace::{Framing, Pace, after};
use crate::paced::Paced;
use crate::sniff::{agreed, sniff};
use crate::{Drain, Limits};

/// A connection being served; it resolves when the connection ends or becomes a tunnel.
pub type ConnectionFuture = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

/// Serves `S` on each connection it is called with.
///
/// Requests that ask for an upgrade reach `S` with hyper's `OnUpgrade` among their extensions: whoever answers 101 (or 200
/// to CONNECT) may take the connection over with `hyper::upgrade::on`; any other answer ends the connection. Bodies stream both ways, with trailers. An error of `S` becomes
/// the bare status of its reason; put [`RescueLayer`](towpath_gateway_core::RescueLayer) inside for a proper answer.
///
/// `S` is cloned once for a connection, and once more only for requests that find it not ready.
#[derive(Clone)]
pub struct Serve<S> {
    service: S,
    settings: Arc<Settings>,
}

struct Settings {
    limits: Limits,
    drain: Live<Drain>,
    h1: Arc<Shared>,
    http2: http2::Builder<TokioExecutor>,
}

impl<S> Serve<S> {
    /// Serves `service` within `limits` until `drain` is signalled. A connection keeps the drain that it began with:
    /// behind [`Live`], another one lets those that came before end while the service goes on.
    pub fn new(service: S, limits: Limits, drain: impl Into<Live<Drain>>) -> Self {
        let drain = drain.into();
        let settings = Settings { limits, drain, h1: Arc::new(Shared::new(&limits)), http2: http2(&limits) };
        Self { service, settings: Arc::new(settings) }
    }
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("limits", &self.settings.limits).finish_non_exhaustive()
    }
}

impl<S, B> Service<Accepted> for Serve<S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Default + Send + 'static,
{
    type Response = ();
    type Error = Infallible;
    type Future = ConnectionFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        // Readiness of the service is asked for each request, not for the connection.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> ConnectionFuture {
        let (service, settings) = (self.service.clone(), Arc::clone(&self.settings));
        Box::pin(async move {
            serve(service, &settings, accepted).await;
            Ok(())
        })
    }
}

fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buf_size(limits.send_buffer.min(u32::MAX as usize))
        .max_header_list_size(limits.head_bytes);
    builder
}

async fn serve<S, B>(service: S, settings: &Settings, accepted: Accepted)
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Default + Send + 'static,
{
    let drain = Drain::clone(&settings.drain.load());
    let (guard, start) = (drain.guard(), Instant::now());
    let Accepted { mut io, connection } = accepted;
    let peer = connection.peer;
    let (prefix, framing) = match agreed(connection.tls.as_ref()) {
        Some(framing) => (Bytes::new(), framing),
        None => match look(&mut io, start, &settings.limits, &drain).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return,
            Err(error) => {
                return tracing::debug!(%peer, %error, "connection ended before its protocol showed");
            }
        },
    };
    let pace = Arc::new(Pace::new(framing, start, drain.clone()));
    let limits = settings.limits;
    let connection = Arc::new(connection);
    let end = match framing {
        Framing::H1 => {
            let io = Paced::new(Bytes::new(), io, Arc::clone(&pace), guard);
            pace.read(prefix.len());
            let shared = Arc::clone(&settings.h1);
            let connection = H1::new(io, prefix, service, connection, Arc::clone(&pace), limits, shared);
            pin!(Drive::new(connection, pace, limits, drain.clone())).await
        }
        Framing::H2 => {
            let io = Paced::new(prefix, io, Arc::clone(&pace), guard);
            let dispatch = Dispatch::new(service, connection, Arc::clone(&pace), limits);
            // Boxed, so that HTTP/1 need not have room for it.
            let connection = Box::pin(settings.http2.serve_connection(TokioIo::new(io), dispatch));
            pin!(Drive::new(connection, pace, limits, drain.clone())).await
        }
    };
    match end {
        End::Over(None) => {}
        End::Over(Some(error)) => tracing::debug!(%peer, %error, "connection failed"),
        End::Expired(expiry) => tracing::debug!(%peer, ?expiry, "connection timed out"),
        End::Cut => tracing::debug!(%peer, "connection cut at the drain's deadline"),
    }
}

/// Waits for the first bytes, as long as a head may take; while draining, for a last request only.
async fn look(
    io: &mut BoxIo,
    start: Instant,
    limits: &Limits,
    drain: &Drain,
) -> io::Result<Option<(Bytes, Framing)>> {
    tokio::select! {
        biased;
        seen = timeout_at(after(start, limits.header_timeout), sniff(io)) => seen?,
        () = drain.last_words() => Ok(None),
    }
}

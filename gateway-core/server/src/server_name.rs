//! Reads the server name of a TLS hello and leaves the hello for the backend (TLS passthrough).
//!
//! - **reads** the client's hello (RFC 8446 section 4.1.2)
//! - **writes** `connection.passed_name`
//! - **ends a connection** that sends no TLS hello, none in time, or one larger than 16 KiB
//! - **settings** the handshake timeout, [`Drain`]
//! - **place** on the accept stack, where [`TerminateLayer`](crate::TerminateLayer) stands where TLS ends

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Prefixed};
use towpath_hello::Hello;

use crate::Drain;

/// Applies [`ReadServerName`].
#[derive(Debug, Clone)]
pub struct ServerNameLayer {
    limit: Duration,
    drain: Drain,
}

impl ServerNameLayer {
    /// Waits for the hello at most for `limit`, and for half a second once `drain` began.
    pub fn new(limit: Duration, drain: Drain) -> Self {
        Self { limit, drain }
    }
}

impl<S> Layer<S> for ServerNameLayer {
    type Service = ReadServerName<S>;

    fn layer(&self, inner: S) -> ReadServerName<S> {
        ReadServerName { inner, layer: self.clone() }
    }
}

/// Reads the hello, puts it back and hands the connection on.
#[derive(Debug, Clone)]
pub struct ReadServerName<S> {
    inner: S,
    layer: ServerNameLayer,
}

impl<S> Service<Accepted> for ReadServerName<S>
where
    S: Service<Accepted, Response = (), Error: Send, Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = ReadServerNameFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let layer = self.layer.clone();
        ReadServerNameFuture(Box::pin(async move {
            // Reading has a box of its own, and the inner service goes: neither is kept while the connection lives.
            let Some(accepted) = Box::pin(read(accepted, layer)).await else { return Ok(()) };
            let served = inner.call(accepted);
            drop(inner);
            served.await
        }))
    }
}

/// A connection being looked at and served. Boxed: once for a connection.
pub struct ReadServerNameFuture<E>(Pin<Box<dyn Future<Output = Result<(), E>> + Send>>);

impl<E> Future for ReadServerNameFuture<E> {
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

async fn read(accepted: Accepted, layer: ServerNameLayer) -> Option<Accepted> {
    let Accepted { mut io, mut connection } = accepted;
    let peer = connection.peer;
    let hello = tokio::select! {
        biased;
        hello = timeout(layer.limit, towpath_hello::read(&mut io, Vec::new())) => hello,
        () = layer.drain.last_words() => {
            tracing::debug!(%peer, "no TLS hello when draining");
            return None;
        }
    };
    match hello {
        Ok(Ok(Hello { bytes, server_name, .. })) => {
            connection.passed_name = server_name;
            return Some(Accepted { io: Box::new(Prefixed::new(bytes, io)), connection });
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS hello to route by"),
        Err(_) => tracing::debug!(%peer, "the TLS hello took too long"),
    }
    None
}

#[cfg(test)]
mod tests;

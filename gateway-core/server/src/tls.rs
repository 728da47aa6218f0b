//! Terminates TLS at an edge listener.
//!
//! - **reads** the client's hello
//! - **writes** `connection.tls`: version, server name, ALPN, and what a certificate that is vouched for says of the client
//! - **ends a connection** whose handshake fails, takes too long, or asks for a name that no certificate is for
//!   (alert `unrecognized_name`, RFC 6066 section 3)
//! - **settings** a live [`EdgeConfig`] (see [`EdgeCertificates`](crate::EdgeCertificates)), a timeout, [`Drain`]
//! - **place** on the accept stack under PROXY protocol, above whatever reads HTTP

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{ProtocolVersion, ServerConnection};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxIo, Live, TlsFacts, TlsVersion};

use crate::{Drain, EdgeConfig};

/// Applies [`Terminate`].
#[derive(Debug, Clone)]
pub struct TerminateLayer {
    config: Live<EdgeConfig>,
    handshake_timeout: Duration,
    drain: Option<Drain>,
}

impl TerminateLayer {
    /// Handshakes use the configuration of their moment; a swap touches no connection that is open.
    pub fn new(config: Live<EdgeConfig>, handshake_timeout: Duration) -> Self {
        Self { config, handshake_timeout, drain: None }
    }

    /// Ends handshakes that are not done half a second after `drain` began. Without it a silent client holds
    /// [`Drain::drained`] back until the handshake timeout.
    #[must_use]
    pub fn with_drain(mut self, drain: Drain) -> Self {
        self.drain = Some(drain);
        self
    }
}

impl<S> Layer<S> for TerminateLayer {
    type Service = Terminate<S>;

    fn layer(&self, inner: S) -> Terminate<S> {
        Terminate { inner, layer: self.clone() }
    }
}

/// Makes the handshake and hands the clear stream on.
#[derive(Debug, Clone)]
pub struct Terminate<S> {
    inner: S,
    layer: TerminateLayer,
}

impl<S> Service<Accepted> for Terminate<S>
where
    S: Service<Accepted, Response = (), Error: Send, Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = TerminateFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let layer = self.layer.clone();
        TerminateFuture(Box::pin(async move {
            let Accepted { io, mut connection } = accepted;
            // The handshake has a box of its own, and the inner service goes: neither is kept while the connection lives.
            let Some((stream, proven)) = Box::pin(terminate(io, layer, connection.peer)).await else {
                return Ok(());
            };
            connection.tls = facts(stream.get_ref().1, proven);
            let served = inner.call(Accepted { io: Box::new(stream), connection });
            drop(inner);
            served.await
        }))
    }
}

/// A connection being terminated and served. Boxed: once for a connection.
pub struct TerminateFuture<E>(Pin<Box<dyn Future<Output = Result<(), E>> + Send>>);

impl<E> Future for TerminateFuture<E> {
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// The clear stream, and whether somebody vouches for the client.
async fn terminate(io: BoxIo, layer: TerminateLayer, peer: SocketAddr) -> Option<(TlsStream<BoxIo>, bool)> {
    let TerminateLayer { config, handshake_timeout, drain } = layer;
    let drained = async {
        match drain {
            Some(drain) => drain.last_words().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = timeout(handshake_timeout, handshake(io, config)) => match done {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
        () = drained => tracing::debug!(%peer, "TLS handshake not done when draining"),
    }
    None
}

async fn handshake(io: BoxIo, config: Live<EdgeConfig>) -> io::Result<(TlsStream<BoxIo>, bool)> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let EdgeConfig { tls: config, clients_are_proven } = EdgeConfig::clone(&config.load());
    // rustls itself would say `access_denied`, which tells the client nothing about the name.
    if config.cert_resolver.resolve(hello.client_hello()).is_none() {
        return Err(refuse(hello).await);
    }
    Ok((hello.into_stream(config).await?, clients_are_proven))
}

async fn refuse(hello: StartHandshake<BoxIo>) -> io::Error {
    // An alert record (RFC 8446 section 5.1): content type, version, length, fatal, unrecognized_name (112).
    const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
    let name = hello.client_hello().server_name().unwrap_or("no name").to_owned();
    let mut io = hello.io;
    let _ = io.write_all(&UNRECOGNIZED_NAME).await;
    let _ = io.shutdown().await;
    io::Error::new(io::ErrorKind::NotFound, format!("no certificate for {name}"))
}

fn facts(session: &ServerConnection, proven: bool) -> Option<TlsFacts> {
    let version = match session.protocol_version()? {
        ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let alpn = session.alpn_protocol().map(|name| Arc::from(String::from_utf8_lossy(name)));
    let leaf = session.peer_certificates().filter(|_| proven).and_then(<[_]>::first);
    Some(TlsFacts {
        version,
        server_name: session.server_name().map(Arc::from),
        alpn,
        identity: None,
        forwarded_cert: leaf.and_then(|leaf| towpath_forwarded_cert::element(None, leaf)),
    })
}

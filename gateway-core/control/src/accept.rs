//! Ends TLS on the plane's connections.
//!
//! - **reads** the first bytes of the connection
//! - **writes** the TLS facts of the connection, with the identity that the client's certificate proves, if it sent one
//! - **ends a connection** whose handshake fails or takes longer than 10 seconds, and one whose client certificate is
//!   not that of a workload or expires meanwhile
//! - **settings** the plane's TLS settings, see [`plane_tls`](crate::plane_tls)
//! - **place** in the accept stack, directly above the HTTP server

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, SystemTime};

use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxIo, TlsFacts, TlsVersion};
use towpath_mesh_mtls::Svid;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Applies [`PlaneAccept`].
#[derive(Clone)]
pub struct PlaneAcceptLayer {
    acceptor: TlsAcceptor,
}

impl PlaneAcceptLayer {
    /// Ends TLS with these settings.
    pub fn new(config: ServerConfig) -> Self {
        Self { acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl std::fmt::Debug for PlaneAcceptLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlaneAcceptLayer")
    }
}

impl<S> Layer<S> for PlaneAcceptLayer {
    type Service = PlaneAccept<S>;

    fn layer(&self, inner: S) -> PlaneAccept<S> {
        PlaneAccept { inner, acceptor: self.acceptor.clone() }
    }
}

/// Hands connections on once their handshake is done.
#[derive(Clone)]
pub struct PlaneAccept<S> {
    inner: S,
    acceptor: TlsAcceptor,
}

/// One connection in [`PlaneAccept`].
pub type PlaneAcceptFuture = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

impl<S> Service<Accepted> for PlaneAccept<S>
where
    S: Service<Accepted, Response = (), Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = Infallible;
    type Future = PlaneAcceptFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        // The inner service is asked when the handshake is done.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> PlaneAcceptFuture {
        let (mut inner, acceptor) = (self.inner.clone(), self.acceptor.clone());
        Box::pin(async move {
            let peer = accepted.connection.peer;
            let (accepted, life) = match timeout(HANDSHAKE_TIMEOUT, secure(&acceptor, accepted)).await {
                Ok(Ok(secured)) => secured,
                Ok(Err(why)) => {
                    tracing::debug!(%peer, %why, "connection refused");
                    return Ok(());
                }
                Err(_) => {
                    tracing::debug!(%peer, "the handshake took too long");
                    return Ok(());
                }
            };
            poll_fn(|cx| inner.poll_ready(cx)).await?;
            match life {
                // What a certificate proves ends with it.
                Some(life) => timeout(life, inner.call(accepted)).await.unwrap_or(Ok(())),
                None => inner.call(accepted).await,
            }
        })
    }
}

/// The connection behind its handshake, and how long its client's certificate is still valid.
async fn secure(acceptor: &TlsAcceptor, accepted: Accepted) -> Result<(Accepted, Option<Duration>), String> {
    let Accepted { io, mut connection } = accepted;
    let stream: TlsStream<BoxIo> = acceptor.accept(io).await.map_err(|why| why.to_string())?;
    let session = stream.get_ref().1;
    let svid = client(session)?;
    let life = svid.as_ref().map(|svid| svid.not_after.duration_since(SystemTime::now()).unwrap_or_default());
    connection.tls = Some(TlsFacts {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            // No other version is ever offered.
            _ => TlsVersion::Tls12,
        },
        server_name: session.server_name().map(Into::into),
        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into()),
        identity: svid.map(|svid| svid.id),
        forwarded_cert: None,
    });
    Ok((Accepted { io: Box::new(stream), connection }, life))
}

/// What the client's certificate says, if there is one. That the root vouches for it was checked in the handshake;
/// the root signs for one trust domain.
fn client(session: &ServerConnection) -> Result<Option<Svid>, String> {
    let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    let svid = Svid::read(leaf).map_err(|why| why.to_string())?;
    if svid.client_auth { Ok(Some(svid)) } else { Err("a certificate without clientAuth".to_owned()) }
}

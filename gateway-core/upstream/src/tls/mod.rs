//! Begins TLS on connections to servers outside of the mesh.
//!
//! - **reads** the endpoint's transport
//! - **writes** the TLS facts of the connection
//! - **ends a request with** `PeerIdentity` if the server does not prove what it has to, `ConnectFailed` if the handshake
//!   fails otherwise, `ConnectTimeout` if it is too slow
//! - **settings** the handshake timeout, 5 seconds unless told otherwise
//! - **place** in the connect stack, directly around the connector, inside the pool: a pooled connection was checked

mod verifier;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{
    Connected, Connection, Destination, Fault, Protocol, Reason, TlsFacts, TlsServer, TlsVersion, Transport,
};

use verifier::VerifyServer;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings by server and protocol. Endpoints share them, and so resume each other's sessions. They go with the last
/// endpoint of their server.
type Known = HashMap<(u64, Protocol), (Weak<TlsServer>, Arc<ClientConfig>)>;

/// Applies [`OriginateTls`].
///
/// ```
/// use std::sync::Arc;
/// use tower::Layer;
/// use towpath_gateway_core::{Endpoint, TlsServer, Transport};
/// use towpath_upstream::{MESH_CONNECT_TIMEOUT, OriginateTlsLayer, TcpConnector};
///
/// let connector = OriginateTlsLayer::new().layer(TcpConnector::new(MESH_CONNECT_TIMEOUT));
///
/// // In DER; without authorities nobody can prove anything.
/// let roots = Vec::new();
/// let server = Arc::new(TlsServer::new("shop.example", Vec::new(), roots));
/// let address = "127.0.0.1:8443".parse().unwrap();
/// let endpoint = Endpoint { transport: Transport::Tls { server }, ..Endpoint::plaintext(address) };
/// # let _ = (connector, endpoint);
/// ```
#[derive(Debug, Clone)]
pub struct OriginateTlsLayer {
    handshake_timeout: Duration,
}

impl OriginateTlsLayer {
    /// TLS 1.2 and 1.3, with the one application protocol that the connection is wanted for (RFC 7301).
    pub fn new() -> Self {
        Self { handshake_timeout: HANDSHAKE_TIMEOUT }
    }

    /// Ends handshakes that take longer.
    #[must_use]
    pub fn with_handshake_timeout(self, handshake_timeout: Duration) -> Self {
        Self { handshake_timeout }
    }
}

impl Default for OriginateTlsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Layer<C> for OriginateTlsLayer {
    type Service = OriginateTls<C>;

    fn layer(&self, inner: C) -> OriginateTls<C> {
        OriginateTls { inner, handshake_timeout: self.handshake_timeout, known: Arc::default() }
    }
}

/// Opens connections through the inner connector, and makes the handshake on those to endpoints of TLS.
#[derive(Debug, Clone)]
pub struct OriginateTls<C> {
    inner: C,
    handshake_timeout: Duration,
    // Taken once for a connection, never for a request; clones of one worker alone share it.
    known: Arc<Mutex<Known>>,
}

impl<C> OriginateTls<C> {
    fn settings(&self, server: &Arc<TlsServer>, protocol: Protocol) -> Result<Arc<ClientConfig>, Fault> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.fingerprint(), protocol);
        if let Some((there, settings)) = known.get(&key)
            && there.upgrade().is_some_and(|there| there == *server)
        {
            return Ok(Arc::clone(settings));
        }
        // What configuration no longer names has gone from everywhere else.
        known.retain(|_, (server, _)| server.strong_count() > 0);
        let made = Arc::new(settings(server, protocol).map_err(|error| {
            Fault::new(Reason::PeerIdentity)
                .with_detail("no server can prove what is asked")
                .with_source(error)
        })?);
        known.insert(key, (Arc::downgrade(server), Arc::clone(&made)));
        Ok(made)
    }
}

fn settings(server: &TlsServer, protocol: Protocol) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(VerifyServer::new(server, provider.signature_verification_algorithms)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match server.client() {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = client.chain.iter().map(|certificate| certificate.to_vec().into()).collect();
            let key = PrivateKeyDer::try_from(client.key.clone())
                .map_err(|why| rustls::Error::General(why.to_owned()))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Opaque => Vec::new(),
    };
    Ok(config)
}

type Opening = Pin<Box<dyn Future<Output = Result<Connected, Fault>> + Send>>;

impl<C> Service<Destination> for OriginateTls<C>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>, Future: Send + 'static>,
{
    type Response = Connected;
    type Error = Fault;
    type Future = Opening;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, destination: Destination) -> Opening {
        let wanted = match &destination.endpoint.transport {
            Transport::Tls { server } => Some(
                self.settings(server, destination.protocol).map(|settings| (Arc::clone(server), settings)),
            ),
            Transport::Plaintext | Transport::Mtls { .. } | Transport::Hbone { .. } => None,
        };
        let wanted = match wanted.transpose() {
            Ok(wanted) => wanted,
            Err(fault) => return Box::pin(std::future::ready(Err(fault))),
        };
        let (protocol, limit) = (destination.protocol, self.handshake_timeout);
        let connecting = self.inner.call(destination);
        Box::pin(async move {
            let connected = connecting.await.map_err(Into::into)?;
            match wanted {
                Some((server, settings)) => handshake(connected, (&server, protocol), settings, limit).await,
                None => Ok(connected),
            }
        })
    }
}

async fn handshake(
    connected: Connected,
    (server, protocol): (&TlsServer, Protocol),
    settings: Arc<ClientConfig>,
    limit: Duration,
) -> Result<Connected, Fault> {
    let address = connected.connection.peer;
    let name = ServerName::try_from(server.name().to_string())
        .map_err(|error| Fault::new(Reason::PeerIdentity).with_source(error))?;
    let made = timeout(limit, TlsConnector::from(settings).connect(name, connected.io)).await;
    let stream = match made {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(failed(&error)
                .with_detail(format!("{address} as {}", server.name()))
                .with_source(error));
        }
        Err(_) => {
            let detail = format!("no TLS handshake with {address} within {limit:?}");
            return Err(Fault::new(Reason::ConnectTimeout).with_detail(detail));
        }
    };
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let alpn: Option<Arc<str>> = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into());
    // Whoever does not agree to it would read the preface as a request of HTTP/1 (RFC 9113 section 3.2).
    if protocol == Protocol::Http2 && alpn.as_deref() != Some("h2") {
        let detail = format!("{address} as {} did not agree to HTTP/2 by ALPN", server.name());
        return Err(Fault::new(Reason::ConnectFailed).with_detail(detail));
    }
    let tls = TlsFacts {
        version,
        server_name: Some(Arc::clone(server.name())),
        alpn,
        identity: None,
        forwarded_cert: None,
    };
    let connection = Connection { tls: Some(tls), ..(*connected.connection).clone() };
    Ok(Connected { io: Box::new(stream), connection: Arc::new(connection) })
}

fn failed(error: &io::Error) -> Fault {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let proves = !matches!(
        rustls,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    );
    Fault::new(if proves { Reason::ConnectFailed } else { Reason::PeerIdentity })
}

#[cfg(test)]
mod tests;

//! How a workload talks to the plane.

use std::io;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_layer::Layer as _;
use tower_service::Service;
use towpath_ca::{JoinToken, Signer, SignerError, SigningAnswer, SigningRequest};
use towpath_gateway_core::{
    BoxIo, Connected, Connection, Destination, Endpoint, Fault, Protocol, Reason, SpiffeId,
};
use towpath_mesh_mtls::{Identity, OriginateLayer};

use crate::distribution::LONGEST_WAIT;
use crate::exchange::exchange;
use crate::pin::{self, Pinned};
use crate::tls::provider;
use crate::{ConfigBundle, PlaneError, PlaneTlsError, plane_id};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A workload's way to the control plane.
///
/// It trusts a server whose chain leads to the root that the join token names and whose certificate is the plane's
/// own (see [`plane_id`]). Once the workload has a credential (see [`PlaneClient::with_identity`]), that counts
/// instead: the workload proves itself with it, and trusts the plane's id under the credential's roots. Each request
/// has a connection of its own: there is one every half minute at most.
#[derive(Clone)]
pub struct PlaneClient {
    address: Arc<str>,
    token: JoinToken,
    plane: SpiffeId,
    tls: Arc<ClientConfig>,
    identity: Option<Identity>,
}

impl PlaneClient {
    /// A client of the plane at `address` (`host:port`). The plane's trust domain and root are those of the token.
    pub fn new(address: &str, token: JoinToken) -> Result<Self, PlaneTlsError> {
        let domain = token.id().trust_domain().parse().map_err(PlaneTlsError::new)?;
        let plane = plane_id(&domain).map_err(PlaneTlsError::new)?;
        let tls = Arc::new(pinned(Pinned::new(token.root(), plane.clone())).map_err(PlaneTlsError::new)?);
        Ok(Self { address: address.into(), token, plane, tls, identity: None })
    }

    /// The same client, which proves `identity` while that has a valid credential, and shows the token else.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The id that the workload gets.
    pub fn id(&self) -> &SpiffeId {
        self.token.id()
    }

    /// The configuration. With the version that is known already it waits, as long as it takes, for another one.
    pub async fn fetch_config(&self, known: Option<&str>) -> Result<ConfigBundle, PlaneError> {
        let (path, limit) = match known {
            Some(known) => (format!("/v1/config?wait={known}"), LONGEST_WAIT + ANSWER_TIMEOUT),
            None => ("/v1/config".to_owned(), ANSWER_TIMEOUT),
        };
        loop {
            let request = Request::get(path.as_str()).body(Full::default());
            let response = self.send(request.map_err(|why| self.unusable(why))?, limit).await?;
            if response.status() == StatusCode::OK {
                return serde_json::from_slice(response.body()).map_err(|why| self.unusable(why));
            }
            if known.is_none() {
                return Err(self.unusable(response.status()));
            }
        }
    }

    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<http::Response<Bytes>, PlaneError> {
        let identity = self.identity.as_ref().filter(|identity| identity.is_ready(SystemTime::now()));
        let connecting = async {
            match identity {
                Some(identity) => self.as_workload(identity).await,
                None => self.as_bearer().await,
            }
        };
        let io = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            Err(PlaneError::Timeout { address: self.address.to_string(), after: CONNECT_TIMEOUT })
        })?;
        if identity.is_none() {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.as_str()))
                .map_err(|why| self.unusable(why))?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        exchange(&self.address, io, request, limit).await
    }

    /// A connection to a server that the join token vouches for.
    async fn as_bearer(&self) -> Result<BoxIo, PlaneError> {
        let stream = self.connect().await?;
        let name = ServerName::from(stream.peer_addr().map_err(|why| self.unreachable(why))?.ip());
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|why| {
            let verdict = why.get_ref().and_then(|inner| inner.downcast_ref()).map(pin::explain);
            self.untrusted(verdict.unwrap_or_else(|| why.to_string()))
        })?))
    }

    /// A connection on which both sides prove their SPIFFE id.
    async fn as_workload(&self, identity: &Identity) -> Result<BoxIo, PlaneError> {
        let stream = self.connect().await?;
        let address = stream.peer_addr().map_err(|why| self.unreachable(why))?;
        let endpoint = Endpoint::plaintext(address).with_mtls([self.plane.clone()]);
        let to = Destination { endpoint: Arc::new(endpoint), protocol: Protocol::Http1 };
        let mut originate = OriginateLayer::new(Some(identity.clone())).layer(Open(Some(stream)));
        // `Open` is always ready.
        originate.call(to).await.map(|connected| connected.io).map_err(|why| self.untrusted(why))
    }

    async fn connect(&self) -> Result<TcpStream, PlaneError> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host(&*self.address).await.map_err(|why| self.unreachable(why))? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|why| self.unreachable(why))?;
                    return Ok(stream);
                }
                Err(why) => last = why,
            }
        }
        Err(self.unreachable(last))
    }

    fn unreachable(&self, cause: io::Error) -> PlaneError {
        PlaneError::Connect { address: self.address.to_string(), cause }
    }

    fn untrusted(&self, cause: impl std::fmt::Display) -> PlaneError {
        PlaneError::Untrusted { address: self.address.to_string(), cause: cause.to_string() }
    }

    fn unusable(&self, cause: impl std::fmt::Display) -> PlaneError {
        PlaneError::Answer { address: self.address.to_string(), cause: cause.to_string() }
    }
}

impl Signer for PlaneClient {
    async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
        let body = Full::from(serde_json::to_vec(&request)?);
        let request =
            Request::post("/v1/certificates").header(CONTENT_TYPE, "application/json").body(body)?;
        let response = self.send(request, ANSWER_TIMEOUT).await?;
        Ok(serde_json::from_slice(response.body()).map_err(|why| self.unusable(why))?)
    }
}

impl std::fmt::Debug for PlaneClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlaneClient")
            .field("address", &self.address)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

fn pinned(verifier: Pinned) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A connector for one connection that is open already.
struct Open(Option<TcpStream>);

impl Service<Destination> for Open {
    type Response = Connected;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<Connected, Fault>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Destination) -> Self::Future {
        let stream = self.0.take();
        Box::pin(async move {
            let stream = stream.ok_or_else(|| Fault::new(Reason::Internal))?;
            let local =
                stream.local_addr().map_err(|why| Fault::new(Reason::ConnectFailed).with_source(why))?;
            let connection = Arc::new(Connection::plaintext(to.endpoint.address, local));
            Ok(Connected { io: Box::new(stream), connection })
        })
    }
}

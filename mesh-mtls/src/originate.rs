//! Begins mesh mTLS on outgoing connections to endpoints that ask for it.
//!
//! - **reads** the endpoint's transport, the credential of the moment
//! - **writes** the TLS facts of the connection with the endpoint's verified identity
//! - **ends a request with** `PeerIdentity` if the endpoint does not prove one of its expected ids, `ConnectFailed` if
//!   there is no valid credential (no endpoint is tried then) or the handshake fails, `ConnectTimeout` if it is too slow
//! - **settings** [`Identity`], the handshake timeout
//! - **place** in the connect stack, directly around the connector, inside the pool: a pooled connection was checked

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::{Duration, SystemTime};

use pin_project_lite::pin_project;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{
    Connected, Connection, Destination, Endpoint, Fault, Protocol, Reason, Replay, SpiffeId, Standing,
    TlsFacts, Transport,
};

use crate::facts::facts;
use crate::peer::Side;
use crate::server_name::server_name;
use crate::{Credential, Identity, words};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Applies [`Originate`].
///
/// ```
/// use std::sync::Arc;
/// use tower::{Layer, ServiceExt, service_fn};
/// use towpath_gateway_core::{Connected, Connection, Destination, Endpoint, Fault, Protocol, Reason, SpiffeId};
/// use towpath_mesh_mtls::{Identity, OriginateLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = service_fn(|to: Destination| async move {
///     let stream = tokio::net::TcpStream::connect(to.endpoint.address).await;
///     let stream = stream.map_err(|why| Fault::new(Reason::ConnectFailed).with_source(why))?;
///     let connection = Arc::new(Connection::plaintext(to.endpoint.address, to.endpoint.address));
///     Ok::<_, Fault>(Connected { io: Box::new(stream), connection })
/// });
/// let identity = Identity::pending();
/// let connect = OriginateLayer::new(Some(identity)).layer(connector);
///
/// // The endpoint must prove this id; until a credential is stored, it is not even connected to.
/// let reviews: SpiffeId = "spiffe://cluster.local/ns/shop/sa/reviews".parse()?;
/// let endpoint = Endpoint::plaintext("127.0.0.1:9".parse()?).with_mtls([reviews]);
/// let to = Destination { endpoint: Arc::new(endpoint), protocol: Protocol::Http1 };
/// let fault = connect.oneshot(to).await.err().expect("there is no credential");
/// assert_eq!(fault.reason(), Reason::ConnectFailed);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OriginateLayer {
    identity: Option<Identity>,
    timeout: Duration,
}

impl OriginateLayer {
    /// Proves `identity` to endpoints. Without one, only plaintext endpoints can be reached.
    pub fn new(identity: Option<Identity>) -> Self {
        Self { identity, timeout: HANDSHAKE_TIMEOUT }
    }

    /// How long the handshake may take, from the moment the connection is open. 5 seconds by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<C> Layer<C> for OriginateLayer {
    type Service = Originate<C>;

    fn layer(&self, inner: C) -> Originate<C> {
        Originate { inner, identity: self.identity.clone(), timeout: self.timeout }
    }
}

/// Opens connections through the inner connector, and secures those to mesh mTLS endpoints.
///
/// Under TLS 1.3 an endpoint may refuse our certificate only after the handshake: its refusal then shows as the end
/// of the connection when the answer is read.
#[derive(Debug, Clone)]
pub struct Originate<C> {
    inner: C,
    identity: Option<Identity>,
    timeout: Duration,
}

impl<C> Service<Destination> for Originate<C>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>>,
{
    type Response = Connected;
    type Error = Fault;
    type Future = OriginateFuture<C::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, destination: Destination) -> Self::Future {
        let state = match self.plan(&destination) {
            Ok(handshake) => State::Connecting { connecting: self.inner.call(destination), handshake },
            Err(fault) => State::Refused { fault: Some(fault) },
        };
        OriginateFuture { state }
    }
}

impl<C> Originate<C> {
    /// The handshake that the destination needs, if it needs one.
    fn plan(&self, destination: &Destination) -> Result<Option<Handshake>, Fault> {
        let endpoint = &destination.endpoint;
        let Transport::Mtls { identities } = &endpoint.transport else { return Ok(None) };
        if identities.is_empty() {
            return Err(mismatch(endpoint.address, identities, None));
        }
        let (identity, trust_changes) = self.identity(endpoint)?;
        Ok(Some(Handshake {
            credential: identity
                .valid_at(SystemTime::now())
                .map_err(|why| refused(format!("{} asks for mesh mTLS: {why}", endpoint.address)))?,
            identity,
            trust_changes,
            endpoint: Arc::clone(endpoint),
            identities: Arc::clone(identities),
            protocol: destination.protocol,
            timeout: self.timeout,
        }))
    }

    /// The identity, and the count of its changes of trust before its credential is looked at.
    fn identity(&self, endpoint: &Endpoint) -> Result<(Identity, u64), Fault> {
        let identity = self.identity.clone().ok_or_else(|| {
            refused(format!(
                "{} asks for mesh mTLS and this process has no mesh identity; give it a credential",
                endpoint.address
            ))
        })?;
        let trust_changes = identity.trust_changes();
        Ok((identity, trust_changes))
    }
}

/// No other endpoint of the mesh can be reached either: trying again cannot help.
fn refused(why: String) -> Fault {
    Fault::new(Reason::ConnectFailed).with_replay(Replay::Never).with_detail(why)
}

type Securing = Pin<Box<dyn Future<Output = Result<Connected, Fault>> + Send>>;

pin_project! {
    /// One connection in [`Originate`].
    pub struct OriginateFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Connecting { #[pin] connecting: F, handshake: Option<Handshake> },
        Securing { securing: Securing },
        Refused { fault: Option<Fault> },
    }
}

impl<F, E> Future for OriginateFuture<F>
where
    F: Future<Output = Result<Connected, E>>,
    E: Into<Fault>,
{
    type Output = Result<Connected, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let securing = match state.as_mut().project() {
                StateProjection::Securing { securing } => return securing.as_mut().poll(cx),
                StateProjection::Refused { fault } => {
                    return Poll::Ready(Err(fault.take().unwrap_or_else(|| Fault::new(Reason::Internal))));
                }
                StateProjection::Connecting { connecting, handshake } => {
                    let connected = ready!(connecting.poll(cx)).map_err(Into::into)?;
                    match handshake.take() {
                        Some(handshake) => Box::pin(handshake.make(connected)),
                        None => return Poll::Ready(Ok(connected)),
                    }
                }
            };
            state.set(State::Securing { securing });
        }
    }
}

struct Handshake {
    credential: Credential,
    identity: Identity,
    trust_changes: u64,
    endpoint: Arc<Endpoint>,
    identities: Arc<[SpiffeId]>,
    protocol: Protocol,
    timeout: Duration,
}

impl Handshake {
    /// Nothing of a request is written before this has returned the connection.
    async fn make(self, connected: Connected) -> Result<Connected, Fault> {
        let address = self.endpoint.address;
        let name = server_name(&self.endpoint);
        let connector = TlsConnector::from(self.credential.settings().client(self.protocol));
        let stream = timeout(self.timeout, connector.connect(name.clone(), connected.io))
            .await
            .map_err(|_| late(address, self.timeout))?
            .map_err(|why| failed(address, &self.identities, why))?;
        let asked = match &name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        };
        let now = SystemTime::now();
        let session = stream.get_ref().1;
        let tls = facts(session, asked, Side::Server, &self.credential, now)
            .map_err(|why| mismatch(address, &self.identities, None).with_source(why))
            .and_then(|tls| self.expect(&tls).map(|()| tls))
            .inspect_err(|_| {
                // The server may have proved more since the session began: the next try asks it again.
                self.credential.settings().forget(&name);
            })?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let standing = standing(self.identity, self.trust_changes, chain.to_vec());
        let connection = Connection { tls: Some(tls), standing, ..(*connected.connection).clone() };
        Ok(Connected { io: Box::new(stream), connection: Arc::new(connection) })
    }

    /// The id must be in the endpoint's own list; to be a workload of the mesh is not enough.
    fn expect(&self, tls: &TlsFacts) -> Result<(), Fault> {
        match &tls.identity {
            Some(seen) if self.identities.contains(seen) => Ok(()),
            seen => Err(mismatch(self.endpoint.address, &self.identities, seen.as_ref())),
        }
    }
}

/// Whether a server of this chain is trusted still: looked at again after each change of whom to trust.
fn standing(identity: Identity, trust_changes: u64, chain: Vec<CertificateDer<'static>>) -> Standing {
    let seen = AtomicU64::new(trust_changes);
    Standing::new(move || {
        let now = identity.trust_changes();
        if seen.load(Ordering::Relaxed) == now {
            return true;
        }
        let trusted = identity
            .credential()
            .is_some_and(|credential| credential.trusts(&chain, Side::Server, SystemTime::now()).is_ok());
        if trusted {
            seen.store(now, Ordering::Relaxed);
        }
        trusted
    })
}

fn late(address: SocketAddr, limit: Duration) -> Fault {
    Fault::new(Reason::ConnectTimeout)
        .with_detail(format!("no TLS handshake with {address} within {limit:?}"))
}

fn failed(address: SocketAddr, wanted: &[SpiffeId], why: io::Error) -> Fault {
    let rustls = why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if matches!(rustls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) {
        return mismatch(address, wanted, None).with_source(io::Error::other(words::of_handshake(&why)));
    }
    let detail = format!("the TLS handshake with {address} failed");
    Fault::new(Reason::ConnectFailed).with_detail(detail).with_source(why)
}

fn mismatch(address: SocketAddr, wanted: &[SpiffeId], seen: Option<&SpiffeId>) -> Fault {
    let mut detail = format!("{address} must be ");
    match wanted {
        [] => detail.push_str(
            "a workload, but no identity is accepted for it; see the service accounts of its workloads",
        ),
        [one] => detail.push_str(one.as_str()),
        [first, others @ ..] => {
            detail.push_str(first.as_str());
            for other in others {
                let _ = write!(detail, " or {other}");
            }
        }
    }
    if let Some(seen) = seen {
        let _ = write!(detail, ", and proved to be {seen}");
    }
    Fault::new(Reason::PeerIdentity).with_detail(detail)
}

#[cfg(test)]
mod tests;

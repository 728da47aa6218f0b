//! Ends mesh mTLS on incoming connections, by the mode that the workload is in.
//!
//! - **reads** the first bytes of the connection (a TLS client's hello), the mode and the credential of the moment
//! - **writes** `connection.tls` with the client's verified identity; under PERMISSIVE, `connection.passed_through` for TLS
//!   that is none of the mesh: no protocol of Istio's is offered, and its bytes are left as they are
//! - **ends a connection** (by closing it, with no answer) that is plaintext under STRICT, whose client proves no
//!   identity of a trust domain whose roots it has, that is too slow, or that comes while this workload has no valid
//!   credential; and one that lives, once the roots change and none of them vouches for its client
//! - **settings** [`Identity`], [`MtlsMode`] behind [`Live`], the handshake timeout, the oldest version of TLS
//! - **place** in the accept stack, inside PROXY protocol and connection limits, around L4 authorization and HTTP

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::time::{Duration, SystemTime};

use pin_project_lite::pin_project;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxIo, Connection, Leash, Live, Prefixed, TlsVersion};
use towpath_hello::Hello;

use crate::facts::facts;
use crate::identity::Unready;
use crate::peer::{InvalidPeer, Side};
use crate::sniff::{FirstBytes, sniff};
use crate::tls::OF_THE_MESH;
use crate::{Identity, MtlsMode, Refusal, Refusals, TrustBundle, words};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where plaintext may come, a client that is silent for so long waits for the server to speak first: that is no client
/// of TLS.
const SILENCE: Duration = Duration::from_secs(5);

/// Applies [`Accept`].
///
/// ```
/// use axum::{Router, routing::get};
/// use hyper_util::{rt::{TokioExecutor, TokioIo}, server::conn::auto, service::TowerToHyperService};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tower::{Layer, ServiceExt, service_fn};
/// use towpath_gateway_core::{Accepted, Connection, Live};
/// use towpath_mesh_mtls::{AcceptLayer, Identity, MtlsMode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app: Router = Router::new().route("/", get(|| async { "hello" }));
/// let http = service_fn(move |accepted: Accepted| {
///     let app = TowerToHyperService::new(app.clone());
///     async move { auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(accepted.io), app).await }
/// });
/// // With `MtlsMode::Strict` the plaintext connection below would be closed.
/// let identity = Identity::pending();
/// let accept = AcceptLayer::new(identity, Live::new(MtlsMode::Permissive)).layer(http);
///
/// let (mut client, server) = tokio::io::duplex(1024);
/// let connection = Connection::plaintext("127.0.0.1:1".parse()?, "127.0.0.1:2".parse()?);
/// let served = tokio::spawn(accept.oneshot(Accepted { io: Box::new(server), connection }));
/// client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert!(answer.ends_with("hello"));
/// # assert!(served.await?.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AcceptLayer {
    gate: Gate,
}

impl AcceptLayer {
    /// Proves `identity` to clients and takes what `mode` allows at the time a connection comes in. Under PERMISSIVE TLS of
    /// the mesh is known by its protocols, which begin with `istio`; a client that is silent for 5 seconds is taken for one of
    /// plaintext that waits for the server to speak.
    pub fn new(identity: Identity, mode: Live<MtlsMode>) -> Self {
        let minimum = Live::new(TlsVersion::Tls12);
        let (timeout, refusals) = (HANDSHAKE_TIMEOUT, Refusals::new());
        Self { gate: Gate { identity, mode, timeout, refusals, minimum } }
    }

    /// How long a connection may take from its acceptance to the end of its handshake, or to its first byte of
    /// plaintext. 10 seconds by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.gate.timeout = timeout;
        self
    }

    /// The oldest version of TLS that is spoken with clients, at the time a connection comes in. TLS 1.2 unless told otherwise
    /// (Istio, `meshMTLS.minProtocolVersion`): peers that know 1.3 speak that all the same.
    #[must_use]
    pub fn minimum_version(mut self, version: Live<TlsVersion>) -> Self {
        self.gate.minimum = version;
        self
    }

    /// Counts refused connections in `refusals`, in place of counters of its own.
    #[must_use]
    pub fn count_in(mut self, refusals: Refusals) -> Self {
        self.gate.refusals = refusals;
        self
    }

    /// The counters of refused connections.
    pub fn refusals(&self) -> Refusals {
        self.gate.refusals.clone()
    }
}

impl<S> Layer<S> for AcceptLayer {
    type Service = Accept<S>;

    fn layer(&self, inner: S) -> Accept<S> {
        Accept { inner, gate: self.gate.clone() }
    }
}

/// Hands on connections whose client is known, and plaintext where the mode allows it. A refused connection is over:
/// the answer is `Ok`, for nothing in this process failed.
#[derive(Debug, Clone)]
pub struct Accept<S> {
    inner: S,
    gate: Gate,
}

impl<S> Service<Accepted> for Accept<S>
where
    S: Service<Accepted, Response = ()> + Clone,
{
    type Response = ();
    type Error = S::Error;
    type Future = AcceptFuture<S>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> AcceptFuture<S> {
        if !self.gate.mode.load().takes_mtls() {
            return AcceptFuture {
                state: State::Serving { served: self.inner.call(accepted), distrust: None },
            };
        }
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let opening = Box::pin(self.gate.clone().open(accepted));
        AcceptFuture { state: State::Opening { opening, inner } }
    }
}

/// The connection as the inner service is to see it, and what resolves once its client is trusted no more.
type Opened = (Accepted, Option<(Distrust, Leash)>);
type Distrust = Pin<Box<dyn Future<Output = ()> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Option<Opened>> + Send>>;

pin_project! {
    /// One connection in [`Accept`].
    pub struct AcceptFuture<S: Service<Accepted>> {
        #[pin]
        state: State<S, S::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Opening { opening: Opening, inner: S },
        Serving { #[pin] served: F, distrust: Option<(Distrust, Leash)> },
    }
}

impl<S: Service<Accepted, Response = ()>> Future for AcceptFuture<S> {
    type Output = Result<(), S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let (served, distrust) = match state.as_mut().project() {
                StateProjection::Serving { served, distrust } => {
                    if let Poll::Ready(ended) = served.poll(cx) {
                        // Who serves an upgraded connection goes before it.
                        if let Some((distrust, leash)) = distrust.take() {
                            leash.until(distrust);
                        }
                        return Poll::Ready(ended);
                    }
                    // Whoever polls this drops it then, and the connection with it.
                    return match distrust {
                        Some((distrust, _)) => distrust.as_mut().poll(cx).map(Ok),
                        None => Poll::Pending,
                    };
                }
                StateProjection::Opening { opening, inner } => match ready!(opening.as_mut().poll(cx)) {
                    Some((accepted, distrust)) => (inner.call(accepted), distrust),
                    None => return Poll::Ready(Ok(())),
                },
            };
            state.set(State::Serving { served, distrust });
        }
    }
}

#[derive(Debug, Clone)]
struct Gate {
    identity: Identity,
    mode: Live<MtlsMode>,
    timeout: Duration,
    refusals: Refusals,
    minimum: Live<TlsVersion>,
}

impl Gate {
    /// `None` if the connection is over.
    async fn open(self, accepted: Accepted) -> Option<Opened> {
        let peer = accepted.connection.peer;
        let opened = timeout(self.timeout, enter(&self, accepted)).await;
        match opened.unwrap_or(Err(Refused::Timeout)) {
            Ok(opened) => opened,
            Err(refused) => {
                self.refusals.add(refused.kind());
                refused.log(peer);
                None
            }
        }
    }
}

async fn enter(gate: &Gate, accepted: Accepted) -> Result<Option<Opened>, Refused> {
    let Gate { identity, mode, minimum, .. } = gate;
    let Accepted { mut io, connection } = accepted;
    let patience = if mode.load().takes_plaintext() { SILENCE } else { Duration::MAX };
    let (first, bytes) = sniff(&mut io, patience).await.map_err(Refused::Handshake)?;
    match first {
        // A port probe, or a client that changed its mind: nobody is refused.
        FirstBytes::Nothing => return Ok(None),
        FirstBytes::Tls => {}
        // The mode counts that is in force when the client speaks: it may have waited, and seen a stricter one begin.
        FirstBytes::Plaintext if !mode.load().takes_plaintext() => return Err(Refused::Plaintext),
        FirstBytes::Plaintext => {
            return Ok(Some((Accepted { io: Box::new(Prefixed::new(bytes, io)), connection }, None)));
        }
    }
    let mut hello = towpath_hello::read(&mut io, bytes).await.map_err(Refused::Handshake)?;
    let io = Prefixed::new(std::mem::take(&mut hello.bytes), io);
    if mode.load().takes_plaintext() && !hello.offers(&OF_THE_MESH) {
        let connection = Connection { passed_name: hello.server_name, passed_through: true, ..connection };
        return Ok(Some((Accepted { io: Box::new(io), connection }, None)));
    }
    terminate(identity, (&hello, **minimum.load()), io, connection).await.map(Some)
}

async fn terminate(
    identity: &Identity,
    (hello, minimum): (&Hello, TlsVersion),
    io: Prefixed<BoxIo>,
    mut connection: Connection,
) -> Result<Opened, Refused> {
    let changed = identity.changed();
    let credential = identity.valid_at(SystemTime::now())?;
    let acceptor = TlsAcceptor::from(credential.settings().server_for(hello, minimum));
    let stream = acceptor.accept(io).await.map_err(Refused::Handshake)?;
    let session = stream.get_ref().1;
    let tls = facts(session, session.server_name(), Side::Client, &credential, SystemTime::now())?;
    connection.tls = Some(tls);
    let shown = Shown {
        chain: session.peer_certificates().unwrap_or_default().to_vec(),
        peer: connection.peer,
        bundle: credential.bundle().clone(),
    };
    let distrust = Box::pin(distrusted(identity.clone(), changed, shown));
    let (io, leash) = Leash::on(Box::new(stream));
    Ok((Accepted { io, connection }, Some((distrust, leash))))
}

/// What a client showed, and by which roots it was judged.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    peer: SocketAddr,
    bundle: TrustBundle,
}

/// Resolves once no root that is in force vouches for the client any more: a root was removed, an alias of the trust
/// domain, or a foreign domain.
async fn distrusted(identity: Identity, changed: impl Future<Output = ()>, mut shown: Shown) {
    changed.await;
    loop {
        // Heard of from here on, so that no change falls between the look and the wait.
        let changed = identity.changed();
        if let Some(credential) = identity.credential()
            && *credential.bundle() != shown.bundle
        {
            if let Err(why) = credential.trusts(&shown.chain, Side::Client, SystemTime::now()) {
                let why = words::of(&why);
                tracing::info!(peer = %shown.peer, "connection ended: {why}");
                return;
            }
            shown.bundle = credential.bundle().clone();
        }
        changed.await;
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it speaks plaintext and the mode is STRICT; put the client into the mesh, or use PERMISSIVE")]
    Plaintext,
    #[error("it did not finish its handshake in time")]
    Timeout,
    #[error(transparent)]
    NotReady(#[from] Unready),
    #[error("the TLS handshake failed: {}", words::of_handshake(.0))]
    Handshake(std::io::Error),
    #[error(transparent)]
    Peer(#[from] InvalidPeer),
}

impl Refused {
    fn kind(&self) -> Refusal {
        match self {
            Self::Plaintext => Refusal::Plaintext,
            Self::Timeout => Refusal::Timeout,
            Self::NotReady(_) => Refusal::NotReady,
            Self::Handshake(_) => Refusal::Handshake,
            Self::Peer(_) => Refusal::Peer,
        }
    }

    /// Slow clients are everyday noise; the others tell an operator what to mend.
    fn log(&self, peer: SocketAddr) {
        let reason = self.kind().label();
        if matches!(self, Self::Timeout) {
            tracing::debug!(%peer, reason, "connection refused: {self}");
        } else {
            tracing::info!(%peer, reason, "connection refused: {self}");
        }
    }
}

#[cfg(test)]
mod tests;

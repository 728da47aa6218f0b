//! Reaches endpoints through the tunnels of an ambient mesh: HTTP/2 CONNECT over mTLS (Istio, HBONE).
//!
//! - **reads** the endpoint's transport
//! - **writes** the facts of the tunnel's connection: who proved to be at its other end
//! - **ends a request with** `ConnectFailed` if the tunnel is refused; what the inner connector says of the connection below
//! - **settings** none
//! - **place** in the connect stack, around what originates mTLS

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{
    Connected, Connection, Destination, Endpoint, Fault, Protocol, Reason, SpiffeId, Transport,
};

/// As many tunnels as servers let one connection have (Envoy's waypoints).
const MOST_TUNNELS: usize = 100;

/// Applies [`Hbone`].
///
/// ```
/// use tower::{Layer, ServiceExt};
/// use towpath_upstream::{HboneLayer, MESH_CONNECT_TIMEOUT, TcpConnector};
///
/// // Endpoints that are not behind a tunnel are reached as before.
/// let connect = HboneLayer::new().layer(TcpConnector::new(MESH_CONNECT_TIMEOUT));
/// ```
#[derive(Debug, Clone, Default)]
pub struct HboneLayer {
    kept: Arc<Mutex<Kept>>,
}

/// Connections that tunnels go over, by where they lead and who is there.
type Kept = HashMap<(SocketAddr, Arc<[SpiffeId]>), Vec<Carrier>>;

#[derive(Debug, Clone)]
struct Carrier {
    send: SendRequest<Empty<Bytes>>,
    tunnels: Arc<AtomicUsize>,
    connection: Arc<Connection>,
}

impl HboneLayer {
    /// With connections of its own: give each worker one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<C> Layer<C> for HboneLayer {
    type Service = Hbone<C>;

    fn layer(&self, inner: C) -> Hbone<C> {
        Hbone { inner, kept: Arc::clone(&self.kept) }
    }
}

/// Opens tunnels to endpoints that ask for them, and other connections through the inner connector.
#[derive(Debug, Clone)]
pub struct Hbone<C> {
    inner: C,
    kept: Arc<Mutex<Kept>>,
}

impl<C> Service<Destination> for Hbone<C>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>, Future: Send> + Clone + Send + 'static,
{
    type Response = Connected;
    type Error = Fault;
    type Future = HboneFuture<C::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, destination: Destination) -> Self::Future {
        let state = match &destination.endpoint.transport {
            Transport::Hbone { .. } => {
                // What was asked for readiness is what has to be called.
                let fresh = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, fresh);
                let tunnel = tunnel(inner, Arc::clone(&self.kept), destination.endpoint);
                State::Tunnel { tunnel: Box::pin(tunnel) }
            }
            _ => State::Straight { connecting: self.inner.call(destination) },
        };
        HboneFuture { state }
    }
}

pin_project! {
    /// One connection in [`Hbone`].
    pub struct HboneFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Straight { #[pin] connecting: F },
        Tunnel { tunnel: Pin<Box<dyn Future<Output = Result<Connected, Fault>> + Send>> },
    }
}

impl<F, E> Future for HboneFuture<F>
where
    F: Future<Output = Result<Connected, E>>,
    E: Into<Fault>,
{
    type Output = Result<Connected, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Straight { connecting } => {
                Poll::Ready(ready!(connecting.poll(cx)).map_err(Into::into))
            }
            StateProjection::Tunnel { tunnel } => tunnel.as_mut().poll(cx),
        }
    }
}

async fn tunnel<C>(inner: C, kept: Arc<Mutex<Kept>>, endpoint: Arc<Endpoint>) -> Result<Connected, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>>,
{
    let Transport::Hbone { identities, tunnel } = &endpoint.transport else {
        return Err(Fault::new(Reason::Internal));
    };
    let key = (*tunnel, Arc::clone(identities));
    let mut carrier = match open_one(&kept, &key) {
        Some(carrier) => carrier,
        None => carry(inner, &kept, key).await?,
    };
    let (to, place) = (endpoint.address, Place::taken(&carrier.tunnels));
    let failed = |detail: String| Fault::new(Reason::ConnectFailed).with_detail(detail);
    let uri = Uri::builder().authority(to.to_string()).build();
    let uri = uri.map_err(|error| failed(format!("no tunnel to {to}")).with_source(error))?;
    let mut connect = Request::new(Empty::new());
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = uri;
    let broken = |error| failed(format!("no tunnel to {to} over {tunnel}")).with_source(error);
    carrier.send.ready().await.map_err(broken)?;
    let answer = carrier.send.send_request(connect).await.map_err(broken)?;
    if answer.status() != StatusCode::OK {
        return Err(failed(format!("the tunnel to {to} over {tunnel} was refused: {}", answer.status())));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(broken)?;
    let connection = Connection { peer: to, ..(*carrier.connection).clone() };
    let io = Tunnel { io: TokioIo::new(upgraded), _place: place };
    Ok(Connected { io: Box::new(io), connection: Arc::new(connection) })
}

/// A connection that lives, whose server is trusted still, and that has room.
fn open_one(kept: &Mutex<Kept>, key: &(SocketAddr, Arc<[SpiffeId]>)) -> Option<Carrier> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let carriers = kept.get_mut(key)?;
    carriers.retain(|carrier| !carrier.send.is_closed() && carrier.connection.standing.holds());
    carriers.iter().find(|carrier| carrier.tunnels.load(Ordering::Relaxed) < MOST_TUNNELS).cloned()
}

/// Opens a connection for tunnels.
async fn carry<C>(
    mut inner: C,
    kept: &Mutex<Kept>,
    key: (SocketAddr, Arc<[SpiffeId]>),
) -> Result<Carrier, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>>,
{
    let (tunnel, identities) = &key;
    let endpoint = Arc::new(Endpoint::plaintext(*tunnel).with_mtls(Arc::clone(identities)));
    let to = Destination { endpoint, protocol: Protocol::Http2 };
    poll_fn(|cx| inner.poll_ready(cx)).await.map_err(Into::into)?;
    let Connected { io, connection } = inner.call(to).await.map_err(Into::into)?;
    let made = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await;
    let (send, driver) = made.map_err(|error| {
        Fault::new(Reason::ConnectFailed).with_detail(format!("no HTTP/2 with {tunnel}")).with_source(error)
    })?;
    // It ends when the last tunnel and the last handle are gone, or when the other side goes.
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection for tunnels broke off");
        }
    });
    let carrier = Carrier { send, tunnels: Arc::default(), connection };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.entry(key).or_default().push(carrier.clone());
    Ok(carrier)
}

/// One tunnel among those of a connection.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn taken(tunnels: &Arc<AtomicUsize>) -> Self {
        tunnels.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tunnels))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    struct Tunnel {
        #[pin]
        io: TokioIo<Upgraded>,
        _place: Place,
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.project().io.poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

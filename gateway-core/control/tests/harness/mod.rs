//! A control plane on loopback, and clients of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::{Layer, Service};
use towpath_ca::{Authority, JoinToken, TokenKey};
use towpath_control::{Configuration, Plane, PlaneAcceptLayer, PlaneClient, plane_tls};
use towpath_gateway_core::{Accepted, Body, Connection, Context, SpiffeId};

/// The state and configuration of a plane; it runs while a [`Running`] lives.
pub(crate) struct State {
    pub(crate) dir: TempDir,
    pub(crate) ttl: Duration,
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) fn id(text: &str) -> SpiffeId {
    format!("spiffe://cluster.local/{text}").parse().unwrap()
}

impl State {
    pub(crate) fn new(ttl: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        Self { dir, ttl }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn authority(&self) -> Authority {
        let domain = "cluster.local".parse().unwrap();
        Authority::open_or_create(&self.state(), domain).unwrap().with_max_ttl(self.ttl)
    }

    pub(crate) fn tokens(&self) -> TokenKey {
        TokenKey::open_or_create(&self.state()).unwrap()
    }

    pub(crate) fn token(&self, id: &SpiffeId) -> JoinToken {
        let root = self.authority().fingerprint();
        let text = self.tokens().mint(id, root, TokenKey::DEFAULT_TTL, SystemTime::now());
        JoinToken::parse(&text).unwrap()
    }

    pub(crate) fn client(&self, address: SocketAddr, id: &SpiffeId) -> PlaneClient {
        PlaneClient::new(&address.to_string(), self.token(id)).unwrap()
    }

    /// Starts the plane on a free port.
    pub(crate) async fn start(&self) -> Running {
        self.serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn serve(&self, listener: TcpListener) -> Running {
        let authority = Arc::new(self.authority());
        let configuration = Configuration::read([self.config()]).unwrap();
        let follow = tokio::spawn(configuration.clone().follow());
        let accept = PlaneAcceptLayer::new(plane_tls(Arc::clone(&authority)).unwrap());
        let plane = Plane::new(authority, self.tokens(), configuration);
        let address = listener.local_addr().unwrap();
        let tasks = vec![follow, tokio::spawn(listen(listener, accept, plane))];
        Running { address, tasks: tasks.into_iter().collect() }
    }
}

async fn listen(listener: TcpListener, accept: PlaneAcceptLayer, plane: Plane) {
    // Connections end with the listener: a plane that is stopped is gone.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let connection = Connection::plaintext(peer, stream.local_addr().unwrap());
        let plane = plane.clone();
        let http = tower::service_fn(move |accepted: Accepted| serve(accepted, plane.clone()));
        let mut service = accept.layer(http);
        connections.spawn(service.call(Accepted { io: Box::new(stream), connection }));
    }
}

async fn serve(accepted: Accepted, plane: Plane) -> Result<(), Infallible> {
    let connection = Arc::new(accepted.connection);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Context::on(Arc::clone(&connection)));
        plane.clone().call(request)
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(accepted.io), service).await;
    Ok(())
}

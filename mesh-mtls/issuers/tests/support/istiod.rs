//! A server in the role of istiod.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use towpath_ca::{Authority, SigningAnswer};
use towpath_gateway_core::SpiffeId;

use super::grpc::{Handler, serve};

#[derive(Clone, PartialEq, Message)]
pub struct CertificateRequest {
    #[prost(string, tag = "1")]
    pub csr: String,
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Leaf and root as istiod sends them, for `id`.
pub fn signed(authority: &Authority, message: &[u8], id: &SpiffeId, ttl: Duration) -> Vec<String> {
    let asked = CertificateRequest::decode(message).unwrap();
    let chain = authority.issue(asked.csr.as_bytes(), id, ttl).unwrap();
    let answer = SigningAnswer::new(&chain, &authority.bundle().unwrap());
    vec![answer.chain, answer.bundle]
}

/// The listener and its connections; dropped, all of them end.
pub struct Istiod {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Istiod {
    /// Listens at `address` with a certificate for `istiod.istio-system.svc`, whose root it writes to `roots`.
    pub async fn start(address: SocketAddr, roots: &Path, handler: Handler) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["istiod.istio-system.svc".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &root).unwrap();
        std::fs::write(roots, root.pem()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, handler).await;
                    }
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

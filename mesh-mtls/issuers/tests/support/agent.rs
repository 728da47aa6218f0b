//! A server in the role of an agent of the Workload API.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use towpath_ca::Authority;
use towpath_gateway_core::SpiffeId;

use super::grpc::{Handler, serve};

#[derive(Clone, PartialEq, Message)]
pub struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// A field that the client does not know.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// By trust domain.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub federated_bundles: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct X509Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

/// A fresh SVID for `id`.
pub fn svid(authority: &Authority, id: &str) -> X509Svid {
    let wanted: SpiffeId = id.parse().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).unwrap();
    let chain = authority.issue(csr.der(), &wanted, Authority::DEFAULT_TTL).unwrap();
    X509Svid {
        spiffe_id: id.to_owned(),
        chain: chain.iter().flat_map(|certificate| certificate.to_vec()).collect(),
        key: key.serialize_der(),
        bundle: authority.root().to_vec(),
        hint: "internal".to_owned(),
    }
}

/// The listener and its connections; dropped, all of them end.
pub struct Agent(JoinSet<()>);

impl Agent {
    pub fn start(socket: &Path, handler: Handler) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&handler)));
            }
        });
        Self(tasks)
    }

    /// Ends it, and waits until it has ended.
    pub async fn end(mut self) {
        self.0.shutdown().await;
    }
}

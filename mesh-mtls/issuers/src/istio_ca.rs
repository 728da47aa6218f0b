//! The client of an Istio CA: `istio.v1.auth.IstioCertificateService/CreateCertificate`, over TLS and with a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue, Uri};
use prost::Message;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use towpath_ca::{Signer, SignerError, SigningAnswer, SigningRequest};
use towpath_gateway_core::SpiffeId;

use crate::grpc::{self, CallError, Code};

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The longest answer that is taken, in bytes: a chain has a few KiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// The longest token that is sent, in bytes.
const MAX_TOKEN: usize = 64 * 1024;

/// Where the CA is and what is shown to it.
#[derive(Debug, Clone)]
pub struct IstioCaSettings {
    /// `HOST:PORT`. Default: [`IstioCaSettings::ADDRESS`].
    pub address: String,
    /// The name that the CA's certificate has to have. Default: [`IstioCaSettings::SERVER_NAME`].
    pub server_name: String,
    /// The roots (PEM) that vouch for the CA's certificate, read anew for each request. Default:
    /// [`IstioCaSettings::ROOTS`].
    pub roots: PathBuf,
    /// The token that says who asks, read anew for each request. Default: [`IstioCaSettings::TOKEN`].
    pub token: PathBuf,
    /// The cluster that the token is of, sent as `clusterid`. Default: not sent.
    pub cluster_id: Option<String>,
    /// The life that is asked for. Default: 24 hours, as that of Istio's agent.
    pub ttl: Duration,
    /// How long a request may take, from the connection to the answer. Default: 10 s.
    pub deadline: Duration,
}

impl IstioCaSettings {
    /// Where istiod is in a cluster.
    pub const ADDRESS: &str = "istiod.istio-system.svc:15012";
    /// The name of istiod.
    pub const SERVER_NAME: &str = "istiod.istio-system.svc";
    /// Where pods of Istio have the config map `istio-ca-root-cert`.
    pub const ROOTS: &str = "/var/run/secrets/istio/root-cert.pem";
    /// Where pods of Istio have the token with the audience `istio-ca`.
    pub const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
}

impl Default for IstioCaSettings {
    fn default() -> Self {
        Self {
            address: Self::ADDRESS.to_owned(),
            server_name: Self::SERVER_NAME.to_owned(),
            roots: Self::ROOTS.into(),
            token: Self::TOKEN.into(),
            cluster_id: None,
            ttl: Duration::from_hours(24),
            deadline: Duration::from_secs(10),
        }
    }
}

/// Why an Istio CA gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IstioCaError {
    /// The address is not of the form `HOST:PORT`.
    #[error("`{0}` is not the address of a CA; write HOST:PORT, such as istiod.istio-system.svc:15012")]
    Address(String),
    /// The server name is neither a DNS name nor an IP address.
    #[error("`{0}` is not a server name; write a DNS name, such as istiod.istio-system.svc")]
    ServerName(String),
    /// The name of the cluster cannot be sent.
    #[error("`{0}` cannot be sent as the name of a cluster; write it in printable ASCII")]
    ClusterId(String),
    /// The roots cannot be read.
    #[error("cannot read the roots of the Istio CA, {}: {why}; give a file of PEM certificates", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The token cannot be read.
    #[error("cannot read the token for the Istio CA, {}: {why}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No connection could be made.
    #[error("cannot reach the Istio CA at {address}: {why}")]
    Connect {
        /// Its address.
        address: String,
        /// Why.
        why: std::io::Error,
    },
    /// The server did not prove to be the CA.
    #[error(
        "the server at {address} did not prove to be {name}: {why}; look at {}, and at the server name", roots.display()
    )]
    Untrusted {
        /// Its address.
        address: String,
        /// The name that it should have.
        name: String,
        /// The roots by which it was judged.
        roots: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The CA refused, or its answer cannot be used.
    #[error("the Istio CA at {address} gave no certificate: {why}{}", advice(why, token))]
    Call {
        /// Its address.
        address: String,
        /// The token that it was shown.
        token: PathBuf,
        /// Why.
        why: CallError,
    },
    /// It did not answer in time.
    #[error("the Istio CA at {address} did not answer within {after:?}")]
    Timeout {
        /// Its address.
        address: String,
        /// The time that it had.
        after: Duration,
    },
    /// The answer holds too little.
    #[error(
        "the Istio CA at {address} answered with {count} certificate texts; the workload's own and the root are needed"
    )]
    Chain {
        /// Its address.
        address: String,
        /// How many it sent.
        count: usize,
    },
}

/// What to do about an error of the CA.
fn advice(why: &CallError, token: &Path) -> String {
    let CallError::Status { code, .. } = why else { return String::new() };
    let token = token.display();
    match *code {
        Code::UNAUTHENTICATED => format!(
            "; look at the token in {token}: it must be of this cluster, have an audience of the CA (`istio-ca`), and not have \
             expired"
        ),
        Code::PERMISSION_DENIED => format!("; the CA signs nothing for the bearer of the token in {token}"),
        Code::INVALID_ARGUMENT => {
            "; it does not take the request: look at what it allows to be asked for".to_owned()
        }
        Code::UNIMPLEMENTED => "; it is no Istio CA, or not at this port".to_owned(),
        Code::UNAVAILABLE => "; it is not ready, or too busy".to_owned(),
        _ => String::new(),
    }
}

/// An Istio CA as a [`Signer`].
///
/// The CA takes the identity from the token, not from the request. Hand the same id to
/// [`RenewalSettings::wanted`](towpath_ca::RenewalSettings::wanted), so that a certificate for another is refused. The last
/// certificate of the answer is the root; what it vouches for are ids of the trust domain of that id. Each request has a
/// connection of its own.
#[derive(Debug, Clone)]
pub struct IstioCa {
    settings: IstioCaSettings,
    uri: Uri,
    name: ServerName<'static>,
    cluster_id: Option<HeaderValue>,
    trust_domain: String,
}

impl IstioCa {
    /// A CA that has to issue certificates for `id`. No file is read yet.
    pub fn new(settings: IstioCaSettings, id: &SpiffeId) -> Result<Self, IstioCaError> {
        let uri = Uri::builder().scheme("https").authority(settings.address.as_str()).path_and_query(METHOD);
        let uri = uri.build().ok().filter(|uri| uri.port_u16().is_some());
        let uri = uri.ok_or_else(|| IstioCaError::Address(settings.address.clone()))?;
        let name = ServerName::try_from(settings.server_name.clone())
            .map_err(|_| IstioCaError::ServerName(settings.server_name.clone()))?;
        let cluster_id = settings
            .cluster_id
            .as_ref()
            .map(|id| HeaderValue::from_str(id).map_err(|_| IstioCaError::ClusterId(id.clone())));
        let cluster_id = cluster_id.transpose()?;
        Ok(Self { uri, name, cluster_id, trust_domain: id.trust_domain().to_owned(), settings })
    }

    async fn certificates(&self, csr: String) -> Result<Vec<String>, IstioCaError> {
        let metadata = self.metadata()?;
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let ttl = self.settings.ttl.as_secs().try_into().unwrap_or(i64::MAX);
        let question = CertificateRequest { csr, validity_duration: ttl };
        let io = self.connect(&tls).await?;
        let refused = |why| IstioCaError::Call {
            address: self.settings.address.clone(),
            token: self.settings.token.clone(),
            why,
        };
        let answer = grpc::call(io, self.uri.clone(), metadata, &question, MAX_ANSWER).await;
        let answer: CertificateResponse = answer.map_err(refused)?.only().await.map_err(refused)?;
        Ok(answer.cert_chain)
    }

    /// Kubernetes puts a new token into the file long before the old one expires.
    fn metadata(&self) -> Result<HeaderMap, IstioCaError> {
        let path = &self.settings.token;
        let unusable = |why: String| IstioCaError::Token { path: path.clone(), why };
        let token = std::fs::read_to_string(path).map_err(|why| unusable(why.to_string()))?;
        let token = token.trim();
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(unusable(format!("a token has 1 to {MAX_TOKEN} bytes, this one {}", token.len())));
        }
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut bearer =
            bearer.map_err(|_: InvalidHeaderValue| unusable("it holds more than a token".to_owned()))?;
        bearer.set_sensitive(true);
        let mut metadata = HeaderMap::new();
        metadata.insert(AUTHORIZATION, bearer);
        if let Some(cluster_id) = &self.cluster_id {
            metadata.insert("clusterid", cluster_id.clone());
        }
        Ok(metadata)
    }

    fn tls(&self) -> Result<ClientConfig, IstioCaError> {
        let path = &self.settings.roots;
        let unusable = |why: String| IstioCaError::Roots { path: path.clone(), why };
        let text = std::fs::read(path).map_err(|why| unusable(why.to_string()))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&text) {
            let root = root.map_err(|why| unusable(why.to_string()))?;
            roots.add(root).map_err(|why| unusable(why.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("it holds no certificate".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().map_err(|why| unusable(why.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    async fn connect(&self, tls: &TlsConnector) -> Result<TlsStream<TcpStream>, IstioCaError> {
        let address = &self.settings.address;
        let stream = TcpStream::connect(address.as_str()).await;
        let stream = stream.map_err(|why| IstioCaError::Connect { address: address.clone(), why })?;
        tls.connect(self.name.clone(), stream).await.map_err(|why| IstioCaError::Untrusted {
            address: address.clone(),
            name: self.settings.server_name.clone(),
            roots: self.settings.roots.clone(),
            why,
        })
    }
}

impl Signer for IstioCa {
    async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
        let (address, after) = (&self.settings.address, self.settings.deadline);
        let mut chain = match timeout(after, self.certificates(request.csr)).await {
            Ok(chain) => chain?,
            Err(_) => return Err(IstioCaError::Timeout { address: address.clone(), after }.into()),
        };
        let count = chain.len();
        match chain.pop() {
            Some(bundle) if !chain.is_empty() => {
                Ok(SigningAnswer { chain: chain.join("\n"), bundle, trust_domain: self.trust_domain.clone() })
            }
            _ => Err(IstioCaError::Chain { address: address.clone(), count }.into()),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

#[derive(Clone, PartialEq, Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_used_are_refused_at_once() {
        let id = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let with = |change: fn(&mut IstioCaSettings)| {
            let mut settings = IstioCaSettings::default();
            change(&mut settings);
            IstioCa::new(settings, &id).map(drop).map_err(|why| why.to_string())
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|s| s.address = "[::1]:15012".to_owned()), Ok(()));
        for (change, says) in [
            ((|s| s.address = "istiod".to_owned()) as fn(&mut IstioCaSettings), "HOST:PORT"),
            (|s| s.address = "istiod:x".to_owned(), "HOST:PORT"),
            (|s| s.address = "https://istiod:1".to_owned(), "HOST:PORT"),
            (|s| s.server_name = "a b".to_owned(), "DNS name"),
            (|s| s.cluster_id = Some("a\nb".to_owned()), "ASCII"),
        ] {
            let error = with(change).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

//! The launcher's own part in the trust of a run: the edge certificate, join tokens, and a stranger for the checks.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::{Layer, ServiceExt, service_fn};
use towpath_ca::{Authority, Signer, SignerError, SigningAnswer, SigningRequest, TokenKey};
use towpath_gateway_core::{
    Connected, Connection as Facts, Destination, Endpoint, Fault, Protocol, Reason, SpiffeId,
};
use towpath_mesh_mtls::{Identity, OriginateLayer};

use crate::client::{Connection, Failure, get};
use crate::launch::tokens;
use crate::plan::{Plan, Workload, identity};

const PATIENCE: Duration = Duration::from_secs(5);
const TOKEN_LIFE: Duration = Duration::from_hours(24);

/// A certificate authority for the shop's public name, as a public one would be.
pub(crate) struct EdgeAuthority {
    root: String,
    leaf: String,
    key: String,
}

impl EdgeAuthority {
    /// Makes a root and a certificate for `host`.
    pub(crate) fn create(host: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of the demonstration's edge");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, host);
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &issuer)?;
        Ok(Self { root: issuer.pem(), leaf: leaf.pem(), key: key.serialize_pem() })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root
    }

    pub(crate) fn leaf_pem(&self) -> &str {
        &self.leaf
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key
    }

    /// What a client of the shop trusts.
    pub(crate) fn roots(&self) -> Result<rustls::RootCertStore, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root.as_bytes())?)?;
        Ok(roots)
    }
}

/// Mints a join token for every workload, and makes the checks' stranger: a workload of the mesh that no policy knows.
pub(crate) async fn write_tokens(dir: &Path, plan: &Plan) -> Result<Probe, Failure> {
    let state = dir.join("plane");
    fs::create_dir_all(&state)?;
    fs::create_dir_all(tokens(dir))?;
    let authority = Authority::open_or_create(&state, "bookshop.example".parse()?)?;
    let key = TokenKey::open_or_create(&state)?;
    for (name, id) in plan.identities() {
        let token = key.mint(&id.parse()?, authority.fingerprint(), TOKEN_LIFE, SystemTime::now());
        fs::write(tokens(dir).join(name), token)?;
    }
    let stranger = InProcess { authority, id: identity("bookshop", "stranger").parse()? };
    let credential = towpath_ca::request(&stranger, None, SystemTime::now).await?;
    Ok(Probe { stranger: Identity::new(credential) })
}

/// Signs in this process, with the plane's own authority.
struct InProcess {
    authority: Authority,
    id: SpiffeId,
}

impl Signer for InProcess {
    async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
        let chain = self.authority.issue(request.csr.as_bytes(), &self.id, TOKEN_LIFE)?;
        Ok(SigningAnswer::new(&chain, &self.authority.bundle()?))
    }
}

/// Comes to sockets of the mesh in ways that must not work.
#[derive(Clone)]
pub(crate) struct Probe {
    stranger: Identity,
}

impl Probe {
    /// What a plaintext request gets.
    pub(crate) async fn plaintext(&self, address: SocketAddr) -> Result<String, Failure> {
        Ok(ask(TcpStream::connect(address).await?).await)
    }

    /// What a TLS client without a certificate gets.
    pub(crate) async fn without_identity(&self, address: SocketAddr) -> Result<String, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from("probe.invalid")?;
        let stream = TcpStream::connect(address).await?;
        match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(stream) => Ok(ask(stream).await),
            Err(_) => Ok("closed without an answer".into()),
        }
    }

    /// The status that the stranger gets from a workload's sidecar.
    pub(crate) async fn as_stranger(
        &self,
        workload: &Workload,
        traceparent: &str,
    ) -> Result<String, Failure> {
        let endpoint =
            Endpoint::plaintext(workload.inbound()).with_mtls([workload.identity().parse::<SpiffeId>()?]);
        let connector = service_fn(|to: Destination| async move { connect(to).await });
        let originate = OriginateLayer::new(Some(self.stranger.clone())).layer(connector);
        let to = Destination { endpoint: Arc::new(endpoint), protocol: Protocol::Http1 };
        let connected = originate.oneshot(to).await?;
        let request = get("/", "details", &[("traceparent", traceparent)])?;
        let answer = Connection::over(connected.io).await?.send(request).await?;
        Ok(answer.status.as_u16().to_string())
    }

    /// The metrics page of a process.
    pub(crate) async fn metrics(&self, admin: SocketAddr) -> Result<String, Failure> {
        let mut connection = Connection::over(TcpStream::connect(admin).await?).await?;
        let answer = connection.send(get("/metrics", "admin", &[])?).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

async fn connect(to: Destination) -> Result<Connected, Fault> {
    let stream = TcpStream::connect(to.endpoint.address).await;
    let stream = stream.map_err(|why| Fault::new(Reason::ConnectFailed).with_source(why))?;
    let connection = Arc::new(Facts::plaintext(to.endpoint.address, to.endpoint.address));
    Ok(Connected { io: Box::new(stream), connection })
}

/// Sends a request by hand and says how the other side answered it.
async fn ask<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let exchange = async {
        io.write_all(request).await?;
        io.read_to_end(&mut answer).await
    };
    let outcome = tokio::time::timeout(PATIENCE, exchange).await;
    let status = String::from_utf8_lossy(&answer).split_whitespace().nth(1).map(str::to_owned);
    match (status, outcome) {
        (Some(status), _) => status,
        (None, Ok(_)) => "closed without an answer".into(),
        (None, Err(_)) => "neither answered nor closed".into(),
    }
}

/// Takes any server: the probe wants to know what servers do to it, not who they are.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

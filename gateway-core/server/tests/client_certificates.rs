//! What an edge asks of clients, over real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;
use tower::{Layer, Service};
use towpath_gateway_core::{Accepted, Connection, Live};
use towpath_server::{EdgeCertificates, EdgeConfig, TerminateLayer};

struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

impl Authority {
    fn new() -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self(Issuer::new(params, key), root)
    }

    /// An authority below this one.
    fn below(&self) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        Self(Issuer::new(params, key), certificate)
    }

    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let (key, mut params) =
            (KeyPair::generate().unwrap(), CertificateParams::new(["client".to_owned()]).unwrap());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.0).unwrap().der().clone();
        (vec![leaf], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

struct Edge {
    config: Live<EdgeConfig>,
    roots: RootCertStore,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn edge(ask: impl FnOnce(&mut EdgeCertificates)) -> Edge {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (mut roots, certificate) = (RootCertStore::empty(), made.cert.der().clone());
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Edge { config: Live::new(configured(certificate.clone(), key.clone_key(), ask)), roots, certificate, key }
}

fn configured(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    ask: impl FnOnce(&mut EdgeCertificates),
) -> EdgeConfig {
    let mut certificates = EdgeCertificates::new();
    certificates.add("a.example", vec![certificate], key).unwrap();
    ask(&mut certificates);
    certificates.server_config().unwrap()
}

impl Edge {
    /// Whether a client that shows this gets an answer.
    async fn takes(&self, version: &'static SupportedProtocolVersion, shown: Option<Shown>) -> bool {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match shown {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        self.reaches(Arc::new(config)).await.is_some()
    }

    /// What backends are told of a client that gets an answer.
    async fn reaches(&self, config: Arc<ClientConfig>) -> Option<String> {
        let inner = tower::service_fn(|mut accepted: Accepted| async move {
            let told = accepted.connection.tls.unwrap().forwarded_cert.unwrap_or_default();
            let _ = accepted.io.write_all(format!("hello{told}").as_bytes()).await;
            let _ = accepted.io.shutdown().await;
            Ok::<_, std::convert::Infallible>(())
        });
        let (client, server) = duplex(16 * 1024);
        let local = "127.0.0.1:0".parse().unwrap();
        let accepted = Accepted { io: Box::new(server), connection: Connection::plaintext(local, local) };
        let mut service = TerminateLayer::new(self.config.clone(), Duration::from_secs(10)).layer(inner);
        let serving = tokio::spawn(service.call(accepted));
        let name = ServerName::try_from("a.example").unwrap();
        let mut text = String::new();
        // With TLS 1.3 the client is done before the server has looked at its certificate.
        if let Ok(mut stream) = TlsConnector::from(config).connect(name, client).await {
            let _ = stream.read_to_string(&mut text).await;
        }
        serving.await.unwrap().unwrap();
        text.strip_prefix("hello").map(ToOwned::to_owned)
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test]
async fn only_clients_that_an_authority_vouches_for_are_taken() {
    let (ours, second, other) = (Authority::new(), Authority::new(), Authority::new());
    let edge = edge(|edge| edge.require_clients(vec![ours.1.clone(), second.1.clone()]).unwrap());
    let below = ours.below();
    let with_chain = || {
        let (mut chain, key) = below.sign(|_| {});
        chain.push(below.1.clone());
        (chain, key)
    };
    for version in VERSIONS {
        for (what, shown, taken) in [
            ("nothing", None, false),
            ("ours", Some(ours.sign(|_| {})), true),
            ("the second", Some(second.sign(|_| {})), true),
            ("another", Some(other.sign(|_| {})), false),
            ("by an intermediate", Some(with_chain()), true),
            ("without the intermediate", Some(below.sign(|_| {})), false),
            ("too old", Some(ours.sign(|params| params.not_after = date_time_ymd(2020, 1, 1))), false),
            (
                "for servers",
                Some(ours.sign(|params| {
                    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                })),
                false,
            ),
        ] {
            assert_eq!(edge.takes(version, shown).await, taken, "{what} by {version:?}");
        }
    }
}

#[tokio::test]
async fn who_only_asks_takes_everybody() {
    let edge = edge(EdgeCertificates::ask_clients);
    for version in VERSIONS {
        assert!(edge.takes(version, None).await);
        assert!(edge.takes(version, Some(Authority::new().sign(|_| {}))).await);
        let (chain, key) = Authority::new().sign(|_| {});
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(edge.roots.clone())
            .with_client_auth_cert(chain, key)
            .unwrap();
        // Nobody vouches for what it says: nothing of it is told.
        assert_eq!(edge.reaches(Arc::new(config)).await.as_deref(), Some(""));
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_its_authorities() {
    let (old, new) = (Authority::new(), Authority::new());
    let require = |root: &Authority| {
        let root = root.1.clone();
        move |edge: &mut EdgeCertificates| edge.require_clients(vec![root]).unwrap()
    };
    let edge = edge(require(&old));
    let (chain, key) = old.sign(|_| {});
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(edge.roots.clone())
        .with_client_auth_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    for _ in 0..2 {
        // The second time by a ticket: the certificate is known all the same.
        let told = edge.reaches(Arc::clone(&config)).await.unwrap();
        assert!(told.starts_with("Hash=") && told.contains(";Subject="), "{told}");
    }
    // The client still has tickets of sessions that were allowed.
    edge.config.store(configured(edge.certificate.clone(), edge.key.clone_key(), require(&new)));
    assert_eq!(edge.reaches(config).await, None);
}

#[test]
fn what_is_no_authority_is_refused() {
    let error = EdgeCertificates::new().require_clients(vec![vec![1, 2, 3].into()]).unwrap_err();
    assert!(error.to_string().contains("an authority of clients"), "{error}");
    assert!(EdgeCertificates::new().require_clients(Vec::new()).is_err());
}

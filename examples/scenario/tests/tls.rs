//! TLS on both sides of the gateway: clients that prove themselves, a backend that both sides prove themselves to, and
//! authorities that change while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::{Running, free, get, route, wait_for, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Shown {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> Shown {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.0).unwrap();
        Shown { certificate: made.der().clone(), pem: made.pem(), key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Shown {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    fn secret(&self, name: &str) -> String {
        let indented = |text: &str| text.replace('\n', "\n    ");
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: edge}}\nstringData:\n  \
             tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            indented(&self.pem),
            indented(&self.key.serialize_pem())
        )
    }
}

fn authorities(dir: &Path, name: &str, of: &[&Authority]) {
    let pem: String = of.iter().map(|authority| authority.0.pem()).collect();
    let pem = pem.replace('\n', "\n    ");
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: edge}}\ndata:\n  ca.crt: |\n    {pem}\n"
    );
    write(dir, &format!("{name}.yaml"), &text);
}

/// Answers each connection of a client that `clients` vouches for once, with what it is told of the client at the edge.
async fn backend(shown: &Shown, clients: &Authority) -> SocketAddr {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), Arc::clone(&provider)).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(vec![shown.certificate.clone()], shown.key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(free()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|read| read > 0)
                {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let told: Vec<_> =
                    head.lines().filter(|line| line.starts_with("x-forwarded-client-cert")).collect();
                let told = told.join("\n");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{told}",
                    told.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// The answer to one request on a connection of its own; nothing if TLS ends before.
async fn ask(address: SocketAddr, server: &Authority, shown: Option<&Shown>) -> Option<String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(server.roots());
    let config = match shown {
        Some(shown) => builder.with_client_auth_cert(vec![shown.certificate.clone()], shown.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("shop.example").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let forged = "x-forwarded-client-cert: Subject=\"CN=forged\"";
    let head = format!("GET / HTTP/1.1\r\nhost: shop.example\r\n{forged}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_themselves_and_authorities_change_while_it_runs() {
    let [edge, clients, newer_clients, servers, other_servers, gateways] =
        std::array::from_fn(|_| Authority::new());
    let app = backend(&servers.sign("app.example"), &gateways).await;
    let dir = tempfile::tempdir().unwrap();
    let gateway = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: edge}}\nspec:\n  \
         gatewayClassName: c\n  listeners: [{{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: shop}}]}}}}]\n  \
         tls:\n    frontend: {{default: {{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: clients}}]}}}}}}\n    \
         backend: {{clientCertificateRef: {{group: '', kind: Secret, name: gateway}}}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: app, namespace: edge}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: app}}], validation: {{hostname: app.example, \
         caCertificateRefs: [{{group: '', kind: ConfigMap, name: servers}}]}}}}\n---\n{}---\n{}",
        edge.sign("shop.example").secret("shop"),
        gateways.sign("gateway.example").secret("gateway")
    );
    write(dir.path(), "gateway.yaml", &gateway);
    write(dir.path(), "route.yaml", &route(app));
    authorities(dir.path(), "clients", &[&clients]);
    authorities(dir.path(), "servers", &[&servers]);
    let (address, admin) = (free(), free());
    let _gateway = Running::start(&[
        "gateway",
        "--config",
        &dir.path().display().to_string(),
        "--port-map",
        &format!("edge/web:443={address}"),
        "--admin",
        &admin.to_string(),
        "--workers",
        "1",
    ]);
    let ready = || get(admin, "/ready").is_some_and(|answer| answer.status == 200);
    tokio::task::block_in_place(|| wait_for("the gateway", ready));

    let (client, newer) = (clients.sign("client"), newer_clients.sign("client"));
    let status = async |shown| ask(address, &edge, shown).await.map(|answer| answer[9..12].to_owned());
    let answer = ask(address, &edge, Some(&client)).await.unwrap();
    let (_, told) = answer.split_once("\r\n\r\n").unwrap();
    assert!(told.starts_with("x-forwarded-client-cert: Hash="), "{told}");
    assert!(told.ends_with(";Subject=\"CN=rcgen self signed cert\";DNS=client"), "{told}");
    assert_eq!(status(None).await, None);
    assert_eq!(status(Some(&newer)).await, None);

    // A backend that nobody vouches for any more is not spoken to; with its authority it is again.
    authorities(dir.path(), "servers", &[&other_servers]);
    until(async || status(Some(&client)).await.as_deref() == Some("503")).await;
    authorities(dir.path(), "servers", &[&other_servers, &servers]);
    until(async || status(Some(&client)).await.as_deref() == Some("200")).await;

    // So it is with clients.
    authorities(dir.path(), "clients", &[&newer_clients]);
    until(async || status(Some(&newer)).await.as_deref() == Some("200")).await;
    assert_eq!(status(Some(&client)).await, None);

    // Without a readable authority nobody comes in.
    write(
        dir.path(),
        "clients.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: clients, namespace: edge}\ndata: {}\n",
    );
    until(async || TcpStream::connect(address).await.is_err()).await;
}

/// Waits until `condition` holds.
async fn until(condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("waited in vain");
}

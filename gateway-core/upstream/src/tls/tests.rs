use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use towpath_gateway_core::{Endpoint, TlsClient, TlsSubject};

use super::*;
use crate::{MESH_CONNECT_TIMEOUT, TcpConnector};

const URI: &str = "spiffe://a.example/server";

struct Authority(Issuer<'static, KeyPair>, Arc<[u8]>);

fn authority() -> Authority {
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().der().to_vec().into();
    Authority(Issuer::new(params, key), root)
}

/// A server for `a.example` and [`URI`], which greets everybody.
async fn server(authority: &Authority) -> std::net::SocketAddr {
    serve(authority, Arc::new(NoClientAuth), &[b"h2", b"http/1.1"]).await
}

async fn serve(
    authority: &Authority,
    clients: Arc<dyn ClientCertVerifier>,
    protocols: &[&[u8]],
) -> std::net::SocketAddr {
    let (key, mut params) =
        (KeyPair::generate().unwrap(), CertificateParams::new(["a.example".into()]).unwrap());
    params.subject_alt_names.push(SanType::URI(URI.try_into().unwrap()));
    let leaf = params.signed_by(&key, &authority.0).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}

async fn connect(
    address: std::net::SocketAddr,
    protocol: Protocol,
    (name, subjects, root): (&str, Vec<TlsSubject>, &Arc<[u8]>),
) -> Result<(String, TlsFacts), Fault> {
    reach(address, protocol, TlsServer::new(name, subjects, vec![Arc::clone(root)])).await
}

async fn reach(
    address: std::net::SocketAddr,
    protocol: Protocol,
    server: TlsServer,
) -> Result<(String, TlsFacts), Fault> {
    let server = Arc::new(server);
    let endpoint = Endpoint { transport: Transport::Tls { server }, ..Endpoint::plaintext(address) };
    let connector = OriginateTlsLayer::new().layer(TcpConnector::new(MESH_CONNECT_TIMEOUT));
    let to = Destination { endpoint: Arc::new(endpoint), protocol };
    let Connected { mut io, connection } = connector.oneshot(to).await?;
    let mut text = String::new();
    let _ = io.read_to_string(&mut text).await;
    Ok((text, connection.tls.clone().unwrap()))
}

#[tokio::test]
async fn a_server_that_proves_its_name_is_spoken_to_in_the_protocol_that_is_wanted() {
    let authority = authority();
    let address = server(&authority).await;
    for (protocol, alpn) in
        [(Protocol::Http1, Some("http/1.1")), (Protocol::Http2, Some("h2")), (Protocol::Opaque, None)]
    {
        let (text, tls) = connect(address, protocol, ("a.example", vec![], &authority.1)).await.unwrap();
        assert_eq!((text.as_str(), tls.alpn.as_deref()), ("hello", alpn));
        assert_eq!(tls.server_name.as_deref(), Some("a.example"));
    }
}

#[tokio::test]
async fn subjects_decide_where_there_are_any() {
    let (ours, other) = (authority(), authority());
    let address = server(&ours).await;
    let dns = |name: &str| TlsSubject::Dns(name.into());
    let uri = |uri: &str| TlsSubject::Uri(uri.into());
    for (name, subjects, root, proved) in [
        ("a.example", vec![], &ours.1, true),
        ("b.example", vec![], &ours.1, false),
        ("b.example", vec![dns("a.example")], &ours.1, true),
        ("a.example", vec![dns("b.example")], &ours.1, false),
        ("a.example", vec![uri(URI)], &ours.1, true),
        ("a.example", vec![uri("spiffe://a.example/other")], &ours.1, false),
        ("a.example", vec![dns("b.example"), uri(URI)], &ours.1, true),
        ("a.example", vec![], &other.1, false),
        ("a.example", vec![uri(URI)], &other.1, false),
    ] {
        let reached = connect(address, Protocol::Http1, (name, subjects.clone(), root)).await;
        let reason = reached.err().map(|fault| fault.reason());
        assert_eq!(reason, (!proved).then_some(Reason::PeerIdentity), "{name} {subjects:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let fault = connect(address, Protocol::Http1, ("a.example", vec![], &authority().1)).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::ConnectFailed);
}

#[tokio::test]
async fn a_server_that_asks_is_shown_the_certificate_of_this_side() {
    let (servers, clients) = (authority(), authority());
    let mut roots = RootCertStore::empty();
    roots.add(clients.1.to_vec().into()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let address = serve(&servers, verifier, &[]).await;
    let shown = |authority: &Authority| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["gateway".into()]).unwrap().signed_by(&key, &authority.0).unwrap();
        Arc::new(TlsClient { chain: vec![leaf.der().as_ref().into()], key: key.serialize_der() })
    };
    let to = || TlsServer::new("a.example", vec![], vec![Arc::clone(&servers.1)]);
    for (to, taken) in
        [(to(), false), (to().with_client(shown(&clients)), true), (to().with_client(shown(&servers)), false)]
    {
        let greeted = reach(address, Protocol::Http1, to).await.is_ok_and(|(text, _)| text == "hello");
        assert_eq!(greeted, taken);
    }
}

#[tokio::test]
async fn a_key_that_is_none_ends_the_request_and_nothing_else() {
    let authority = authority();
    let client = Arc::new(TlsClient { chain: vec![Arc::clone(&authority.1)], key: b"nonsense".to_vec() });
    let to = TlsServer::new("a.example", vec![], vec![Arc::clone(&authority.1)]).with_client(client);
    let fault = reach(server(&authority).await, Protocol::Http1, to).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::PeerIdentity);
}

#[tokio::test]
async fn http2_is_spoken_only_to_servers_that_agree_to_it() {
    let authority = authority();
    let address = serve(&authority, Arc::new(NoClientAuth), &[]).await;
    let fault = connect(address, Protocol::Http2, ("a.example", vec![], &authority.1)).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::ConnectFailed);
    assert!(fault.to_string().contains("ALPN") || format!("{fault:?}").contains("ALPN"), "{fault:?}");
}

#[tokio::test]
async fn settings_are_made_once_for_a_server_and_go_with_it() {
    let layer = OriginateTlsLayer::new().layer(TcpConnector::new(MESH_CONNECT_TIMEOUT));
    let made = |name: &str| Arc::new(TlsServer::new(name, vec![], vec![Arc::clone(&authority().1)]));
    let (first, known) = (made("a.example"), || layer.known.lock().unwrap().len());
    let settings = layer.settings(&first, Protocol::Http1).unwrap();
    // Configuration made the same server anew.
    let again = Arc::new(TlsServer::clone(&first));
    assert!(Arc::ptr_eq(&settings, &layer.settings(&again, Protocol::Http1).unwrap()));
    assert!(!Arc::ptr_eq(&settings, &layer.settings(&again, Protocol::Http2).unwrap()));
    assert_eq!(known(), 2);
    drop((first, again));
    let other = made("b.example");
    layer.settings(&other, Protocol::Http1).unwrap();
    assert_eq!(known(), 1, "what nobody uses any more is gone");
}

//! TLS at an edge: what is agreed, what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::{LOCAL, get, h1_over, h2_over, handler};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Connection, Context, Live, Response};
use towpath_server::{
    ConnectionService, Drain, EdgeCertificates, EdgeConfig, Limits, Serve, TerminateLayer, serve_on,
};

struct Edge {
    address: SocketAddr,
    config: Live<EdgeConfig>,
    roots: RootCertStore,
}

fn certificate(hostname: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed([hostname.to_owned()]).unwrap();
    (made.cert.der().clone(), PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()))
}

fn server_config(hostname: &str, roots: &mut RootCertStore) -> EdgeConfig {
    let (certificate, key) = certificate(hostname);
    roots.add(certificate.clone()).unwrap();
    let mut certificates = EdgeCertificates::new();
    certificates.add(hostname, vec![certificate], key).unwrap();
    certificates.server_config().unwrap()
}

/// Answers with what the connection says about TLS and with the HTTP version.
async fn edge() -> Edge {
    let mut roots = RootCertStore::empty();
    let config = Live::new(server_config("shop.example", &mut roots));
    let service = handler(|request| async move {
        let context = Context::find(request.extensions()).unwrap();
        let tls = context.connection().unwrap().tls.clone().expect("TLS facts");
        let facts =
            (tls.version.as_str(), tls.server_name.as_deref(), tls.alpn.as_deref(), request.version());
        Ok(Response::new(format!("{facts:?}").into()))
    });
    let drain = Drain::default();
    let layer = TerminateLayer::new(config.clone(), Duration::from_secs(10));
    let stack = ConnectionService::new(layer.layer(Serve::new(service, Limits::edge(), drain.clone())));
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_on(listener, stack, drain));
    Edge { address, config, roots }
}

impl Edge {
    async fn connect(&self, name: &str, alpn: &[&str], old: bool) -> std::io::Result<TlsStream<TcpStream>> {
        let versions: &[_] = if old { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

async fn text(response: http::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_the_facts_reach_the_request() {
    let edge = edge().await;
    let stream = edge.connect("shop.example", &["h2", "http/1.1"], false).await.unwrap();
    let answer = h2_over(stream).await.send_request(get("https://shop.example/")).await.unwrap();
    assert_eq!(text(answer).await, r#"("TLSv1.3", Some("shop.example"), Some("h2"), HTTP/2.0)"#);
    let stream = edge.connect("shop.example", &["http/1.1"], true).await.unwrap();
    let answer = h1_over(stream).await.send_request(get("/")).await.unwrap();
    assert_eq!(text(answer).await, r#"("TLSv1.2", Some("shop.example"), Some("http/1.1"), HTTP/1.1)"#);
}

#[tokio::test]
async fn without_alpn_the_first_bytes_decide() {
    let edge = edge().await;
    let stream = edge.connect("shop.example", &[], false).await.unwrap();
    let answer = h2_over(stream).await.send_request(get("https://shop.example/")).await.unwrap();
    assert_eq!(text(answer).await, r#"("TLSv1.3", Some("shop.example"), None, HTTP/2.0)"#);
    let stream = edge.connect("shop.example", &[], false).await.unwrap();
    let answer = h1_over(stream).await.send_request(get("/")).await.unwrap();
    assert_eq!(text(answer).await, r#"("TLSv1.3", Some("shop.example"), None, HTTP/1.1)"#);
}

#[tokio::test]
async fn a_name_without_certificate_is_refused_by_its_own_alert() {
    let edge = edge().await;
    for old in [false, true] {
        let error = edge.connect("other.example", &["h2"], old).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("unrecogni"), "{error}");
    }
}

#[tokio::test]
async fn a_swap_takes_effect_for_new_handshakes_and_spares_open_connections() {
    let mut edge = edge().await;
    let mut open = h1_over(edge.connect("shop.example", &["http/1.1"], false).await.unwrap()).await;
    edge.config.store(server_config("new.example", &mut edge.roots));
    assert!(edge.connect("shop.example", &[], false).await.is_err());
    assert!(edge.connect("new.example", &[], false).await.is_ok());
    assert!(text(open.send_request(get("/")).await.unwrap()).await.contains("shop.example"));
}

#[tokio::test]
async fn plaintext_on_a_tls_port_is_closed_without_an_answer() {
    let edge = edge().await;
    let mut client = TcpStream::connect(edge.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_ends_at_its_timeout() {
    let config = Live::new(server_config("shop.example", &mut RootCertStore::empty()));
    for sent in [&b""[..], &[22, 3, 1], &[22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]] {
        let (mut client, server) = duplex(1024);
        let inner = tower::service_fn(|_: Accepted| async { panic!("no handshake, no connection") });
        let mut service = TerminateLayer::new(config.clone(), Duration::from_secs(10)).layer(inner);
        let accepted = Accepted { io: Box::new(server), connection: Connection::plaintext(LOCAL, LOCAL) };
        client.write_all(sent).await.unwrap();
        let start = Instant::now();
        let ended: Result<(), std::convert::Infallible> = service.call(accepted).await;
        ended.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_does_not_hold_the_drain_back() {
    let config = Live::new(server_config("shop.example", &mut RootCertStore::empty()));
    let drain = Drain::default();
    let (_client, server) = duplex(1024);
    let inner = tower::service_fn(|_: Accepted| async { Ok::<_, std::convert::Infallible>(()) });
    let layer = TerminateLayer::new(config, Duration::from_secs(10)).with_drain(drain.clone());
    let accepted = Accepted { io: Box::new(server), connection: Connection::plaintext(LOCAL, LOCAL) };
    let serving = tokio::spawn(layer.layer(inner).call(accepted));
    let start = Instant::now();
    drain.signal();
    serving.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}

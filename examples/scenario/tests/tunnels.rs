//! Tunnels of an ambient mesh between two sidecars, and policies that change while something goes through them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use support::{MeshDir, Running, ambient_pod, free, get, pod, policy, service, wait_for};

const PORT: &str = "{name: http, port: 80, targetPort: 80}";

fn who(accounts: &str) -> String {
    let principals = format!("{{rules: [{{from: [{{source: {{serviceAccounts: [{accounts}]}}}}]}}]}}");
    policy("AuthorizationPolicy", "shop", "who", &principals)
}

/// Asks for something that takes this long.
fn begin(at: SocketAddr, milliseconds: u32) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!("GET /slow?ms={milliseconds} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Why a client that speaks TLS 1.2 alone gets nowhere.
fn refusal_of_tls_1_2(at: SocketAddr) -> rustls::Error {
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "app.example".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.complete_io(&mut stream).unwrap_err().downcast().unwrap()
}

#[test]
fn what_goes_through_a_tunnel_is_held_to_later_policies() {
    let (tunnels, application) = (free(), free());
    let _application = Running::start(&["service", "--listen", &application.to_string()]);
    wait_for("the application", || get(application, "/").is_some());
    let at = SocketAddr::new(tunnels.ip(), 80);
    let ambient = ambient_pod("shop", "app", tunnels.port());
    let strict = policy("PeerAuthentication", "shop", "strict", "{mtls: {mode: STRICT}}");
    let pods = [ambient, pod("shop", "web"), pod("shop", "books"), service("shop", "app", PORT, at), strict];
    let mesh = MeshDir::new(&pods.concat());
    mesh.write("who.yaml", &who("web, books"));
    // Tunnels alone lead in: nobody is to come by the port itself.
    let takes = format!("80={}>{application}", free());
    // A socket of both families.
    let both = format!("[::ffff:{}]:{}", tunnels.ip(), tunnels.port());
    let _server = mesh.sidecar("shop/app", &["--inbound", &takes, "--hbone", &both]);
    let refusal = refusal_of_tls_1_2(tunnels);
    assert_eq!(refusal, rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion));
    let near = [free(), free()];
    let _clients: Vec<_> = ["shop/web", "shop/books"]
        .iter()
        .zip(near)
        .map(|(account, near)| mesh.sidecar(account, &["--port-map", &format!("shop/app:80={near}")]))
        .collect();
    for (near, account) in near.into_iter().zip(["web", "books"]) {
        let told = get(near, "/headers").unwrap();
        assert_eq!(told.status, 200, "{account}: {}", told.body);
        assert!(
            told.body.contains(&format!("URI=spiffe://cluster.local/ns/shop/sa/{account}")),
            "{}",
            told.body
        );
    }

    let [ends, lives] = [begin(near[0], 25_000), begin(near[1], 1500)];
    mesh.write("who.yaml", &who("books"));
    let ended = answer(ends);
    assert!(ended.starts_with("HTTP/1.1 503"), "the tunnel of who is denied now went on: {ended}");
    let lived = answer(lives);
    assert!(lived.starts_with("HTTP/1.1 200"), "{lived}");
    // Nothing new is let in for the one, and all is for the other.
    assert_ne!(get(near[0], "/headers").map(|answer| answer.status), Some(200));
    assert_eq!(get(near[1], "/headers").map(|answer| answer.status), Some(200));
}

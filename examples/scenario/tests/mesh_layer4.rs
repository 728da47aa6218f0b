//! Layer 4 between sidecars: connections of servers that speak first, identities, policies, and TLS that is not the mesh's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::{MeshDir, Sidecar, free, pod, policy, service, wait_for};

/// Greets, then says everything back.
fn greeter() -> SocketAddr {
    let listener = TcpListener::bind(free()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.write_all(b"hello\n");
                let mut bytes = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..read]);
                }
            });
        }
    });
    address
}

/// What comes of a connection: the greeting and an echo, or nothing.
fn talk(address: SocketAddr, says: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut heard = Vec::new();
    let mut until = |stream: &mut TcpStream, length: usize| {
        let mut bytes = [0; 1024];
        while heard.len() < length {
            match stream.read(&mut bytes) {
                Ok(read @ 1..) => heard.extend_from_slice(&bytes[..read]),
                _ => break,
            }
        }
    };
    until(&mut stream, 6);
    let _ = stream.write_all(says);
    until(&mut stream, 6 + says.len());
    String::from_utf8_lossy(&heard).into_owned()
}

/// A server behind its sidecar, and a client's sidecar in front of it.
struct World {
    mesh: MeshDir,
    app: SocketAddr,
    inbound: SocketAddr,
    outbound: SocketAddr,
    _sidecars: Vec<Sidecar>,
}

fn world(port: &str, mode: &str) -> World {
    let (app, inbound, outbound) = (greeter(), free(), free());
    let strict = policy("PeerAuthentication", "istio-system", "mesh", &format!("{{mtls: {{mode: {mode}}}}}"));
    let mesh = MeshDir::new(
        &[pod("shop", "app"), pod("shop", "web"), service("shop", "app", port, inbound), strict].concat(),
    );
    let takes = format!("7000={inbound}>{app}");
    let sends = format!("shop/app:7000={outbound}");
    let sidecars = vec![
        mesh.sidecar("shop/app", &["--inbound", &takes]),
        mesh.sidecar("shop/web", &["--port-map", &sends]),
    ];
    World { mesh, app, inbound, outbound, _sidecars: sidecars }
}

const TCP: &str = "{name: tcp-greet, port: 7000, targetPort: 7000}";

#[test]
fn a_server_that_speaks_first_is_heard_at_once_and_policies_know_who_asks() {
    let world = world(TCP, "STRICT");
    assert_eq!(talk(world.outbound, b"ping"), "hello\nping");
    // Without an identity nobody gets in.
    let mut stream = TcpStream::connect(world.inbound).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    assert!(heard.is_empty());
    let rule = |account: &str| {
        policy(
            "AuthorizationPolicy",
            "shop",
            "who",
            &format!(
                "{{rules: [{{from: [{{source: {{principals: [cluster.local/ns/shop/sa/{account}]}}}}]}}]}}"
            ),
        )
    };
    world.mesh.write("policy.yaml", &rule("other"));
    wait_for("the refusal", || talk(world.outbound, b"ping").is_empty());
    world.mesh.write("policy.yaml", &rule("web"));
    wait_for("the permission", || talk(world.outbound, b"ping") == "hello\nping");
}

#[test]
fn where_nothing_is_said_of_a_port_the_first_bytes_tell() {
    let world = world("{name: main, port: 7000, targetPort: 7000}", "PERMISSIVE");
    // At the server's sidecar, and at the client's, which asks the server's by mTLS.
    for at in [world.inbound, world.outbound] {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"\x01ping").unwrap();
        let mut bytes = [0; 11];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello\n\x01ping");
        // HTTP is HTTP: what is no answer of that kind is told so.
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
    assert!(support::connects(world.app));
}

#[test]
fn tls_that_is_not_the_meshs_reaches_the_application_as_it_is() {
    let world = world(TCP, "PERMISSIVE");
    let mut config =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = "app.shop".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(world.inbound).unwrap();
    stream.write_all(&hello).unwrap();
    let mut heard = vec![0; 6 + hello.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [b"hello\n", &hello[..]].concat());
}

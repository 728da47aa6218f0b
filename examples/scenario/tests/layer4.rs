//! Layer 4 through the program: connections, TLS that ends at the backend, datagrams, changes while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use support::{Running, free, get, wait_for, write};

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: edge}
spec:
  gatewayClassName: towpath
  listeners:
    - {name: tcp, port: 5432, protocol: TCP}
    - {name: tls, port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}}
    - {name: udp, port: 5432, protocol: UDP}
";

/// A route to a Service of its own, whose one endpoint is at `at`.
fn route(kind: &str, name: &str, hostnames: &str, at: SocketAddr) -> String {
    let protocol = if kind == "UDPRoute" { "UDP" } else { "TCP" };
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: {kind}
metadata: {{name: {name}, namespace: edge}}
spec:
  parentRefs: [{{name: web}}]
{hostnames}  rules: [{{backendRefs: [{{name: {name}, port: 1}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: edge}}
spec: {{ports: [{{port: 1, protocol: {protocol}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: edge, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [{}]}}]
ports: [{{port: {}}}]
",
        at.ip(),
        at.port()
    )
}

/// Greets each connection with `name`, then sends back what comes.
fn greeter(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let mut room = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut room) {
                    let _ = stream.write_all(&room[..n]);
                }
            });
        }
    });
    address
}

/// Answers each datagram with `name` and the datagram.
fn answerer(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut room = [0; 4096];
        while let Ok((n, from)) = socket.recv_from(&mut room) {
            let _ = socket.send_to(&[name.as_bytes(), &room[..n]].concat(), from);
        }
    });
    address
}

struct Gateway {
    tcp: SocketAddr,
    tls: SocketAddr,
    admin: SocketAddr,
    process: Running,
}

fn gateway(dir: &Path) -> Gateway {
    write(dir, "gateway.yaml", GATEWAY);
    let (tcp, tls, admin) = (free(), free(), free());
    let process = Running::start(&[
        "gateway",
        "--config",
        &dir.display().to_string(),
        "--port-map",
        &format!("edge/web:5432={tcp},edge/web:443={tls}"),
        "--admin",
        &admin.to_string(),
        "--access-log",
        &dir.join("access.log").display().to_string(),
    ]);
    wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    Gateway { tcp, tls, admin, process }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A TLS 1.2 hello for `name` (RFC 5246 section 7.4.1.2) with the extensions that a server asks for.
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let names = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions =
        [extension(0, &names), extension(13, &sized(&[4, 3])), extension(10, &sized(&[0, 29]))].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0xc0, 0x2b]), &[1, 0], &sized(&extensions)].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

fn ask(client: &UdpSocket) -> Option<String> {
    client.send(b"?").ok()?;
    let mut room = [0; 64];
    let n = client.recv(&mut room).ok()?;
    Some(String::from_utf8_lossy(&room[..n]).into_owned())
}

fn udp_client(to: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
    client.connect(to).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client
}

#[test]
fn connections_and_datagrams_reach_their_backends_and_follow_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, dns) = (greeter("one"), greeter("two"), answerer("dns"));
    write(dir.path(), "tcp.yaml", &route("TCPRoute", "db", "", one));
    write(dir.path(), "a.yaml", &route("TLSRoute", "a", "  hostnames: [a.example.com]\n", one));
    write(dir.path(), "rest.yaml", &route("TLSRoute", "rest", "  hostnames: ['*.example.com']\n", two));
    write(dir.path(), "udp.yaml", &route("UDPRoute", "dns", "", dns));
    let mut gateway = gateway(dir.path());

    let mut kept = connect(gateway.tcp);
    assert_eq!(exactly(&mut kept, 3), b"one");
    for (name, wanted) in [("A.example.com", b"one"), ("b.example.com", b"two")] {
        let mut client = connect(gateway.tls);
        client.write_all(&hello(name)).unwrap();
        assert_eq!(&exactly(&mut client, 3), wanted, "{name}");
        assert_eq!(exactly(&mut client, hello(name).len()), hello(name), "the backend sees every byte");
    }
    for bytes in [hello("a.example.org"), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut client = connect(gateway.tls);
        client.write_all(&bytes).unwrap();
        // Closed, or reset: bytes were left unread.
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
    let client = udp_client(gateway.tcp);
    wait_for("an answer by UDP", || ask(&client).as_deref() == Some("dns?"));

    // A connection keeps its backend; the next one takes the new route.
    write(dir.path(), "tcp.yaml", &route("TCPRoute", "db", "", two));
    wait_for("the new backend", || exactly(&mut connect(gateway.tcp), 3) == b"two");
    kept.write_all(b"still").unwrap();
    assert_eq!(exactly(&mut kept, 5), b"still");

    let metrics = get(gateway.admin, "/metrics").unwrap().body;
    assert!(metrics.contains("protocol=\"TLS\",route=\"edge/a\",reason=\"none\""), "{metrics}");
    let log = dir.path().join("access.log");
    wait_for("the log", || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\"reason\":\"no_route\""))
    });
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("\"server_name\":\"a.example.com\""), "{log}");

    drop(kept);
    gateway.process.terminate();
    assert!(gateway.process.ended_well());
}

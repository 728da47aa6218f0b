//! The sidecar with Envoy at the other end, set up as Istio sets up its sidecars, in both directions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod peer;
mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use process::{Envoy, inbound, outbound, program, tunnels_in, tunnels_out};
use support::{Answer, Identities, MeshDir, ambient_pod, free, get, pod, policy, service, wait_for};

/// Answers every request with the head that it has.
fn mirror() -> SocketAddr {
    let listener = TcpListener::bind(free()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    if !matches!(stream.read(&mut byte), Ok(1)) {
                        return;
                    }
                    head.push(byte[0]);
                }
                let length = head.len();
                let line =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(&[line.as_bytes(), &head].concat());
            });
        }
    });
    address
}

fn answer(address: SocketAddr) -> Answer {
    get(address, "/a").expect("an answer")
}

/// The value of a header in a head.
fn header(head: &str, name: &str) -> String {
    let named = format!("{name}:");
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&named));
    line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

const PORT: &str = "{name: http, port: 80, targetPort: 80}";

fn mesh(at: SocketAddr, mode: &str) -> MeshDir {
    let peers = policy("PeerAuthentication", "istio-system", "mesh", &format!("{{mtls: {{mode: {mode}}}}}"));
    let who = policy(
        "AuthorizationPolicy",
        "shop",
        "who",
        "{selector: {matchLabels: {app: app}}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}",
    );
    MeshDir::new(
        &[pod("shop", "app"), pod("shop", "web"), service("shop", "app", PORT, at), peers, who].concat(),
    )
}

#[test]
fn envoy_is_a_client_of_the_sidecar() {
    let Some(program) = program() else { return };
    let (app, at) = (mirror(), free());
    let mesh = mesh(at, "STRICT");
    let takes = format!("80={at}>{app}");
    let _sidecar = mesh.sidecar("shop/app", &["--inbound", &takes]);
    let dir = mesh.dir.path();
    let ask = |mesh: &MeshDir, account: &str, peer: &str, h2: bool| {
        let near = free();
        let (listener, cluster) = outbound(mesh, account, peer, h2, near, at);
        let _envoy = Envoy::start(&program, dir, &listener, &cluster);
        answer(near)
    };
    for h2 in [false, true] {
        let told = ask(&mesh, "shop/web", "shop/app", h2);
        assert_eq!(told.status, 200, "{}", told.body);
        let xfcc = header(&told.body, "x-forwarded-client-cert");
        assert!(xfcc.starts_with("By=spiffe://cluster.local/ns/shop/sa/app;Hash="), "{xfcc}");
        assert!(xfcc.ends_with(";Subject=\"\";URI=spiffe://cluster.local/ns/shop/sa/web"), "{xfcc}");
    }
    // A workload of the mesh that no policy lets pass, and a server that is not who Envoy wants.
    assert_eq!(ask(&mesh, "shop/other", "shop/app", false).status, 403);
    assert_eq!(ask(&mesh, "shop/web", "shop/other", false).status, 503);
    // Another authority.
    let stranger = MeshDir { identities: Identities::new(), ..self::mesh(at, "STRICT") };
    assert_eq!(ask(&stranger, "shop/web", "shop/app", false).status, 503);
}

#[test]
fn envoy_is_a_server_for_the_sidecar() {
    let Some(program) = program() else { return };
    let (app, at) = (mirror(), free());
    let mesh = mesh(at, "STRICT");
    for strict in [true, false] {
        let (listener, cluster) = inbound(&mesh, "shop/app", "shop/web", strict, at, app);
        let _envoy = Envoy::start(&program, mesh.dir.path(), &listener, &cluster);
        let near = free();
        let sends = format!("shop/app:80={near}");
        let _sidecar = mesh.sidecar("shop/web", &["--port-map", &sends]);
        let told = answer(near);
        assert_eq!(told.status, 200, "{}", told.body);
        let xfcc = header(&told.body, "x-forwarded-client-cert");
        assert!(xfcc.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{strict}: {xfcc}");
        if strict {
            // A workload that Envoy's policy refuses.
            let other = free();
            std::fs::write(mesh.dir.path().join("config/other.yaml"), pod("shop", "other")).unwrap();
            let _sidecar = mesh.sidecar("shop/other", &["--port-map", &format!("shop/app:80={other}")]);
            assert_eq!(answer(other).status, 403);
        }
    }
}

#[test]
fn a_server_that_is_somebody_else_gets_nothing() {
    let Some(program) = program() else { return };
    let (app, at) = (mirror(), free());
    let mesh = mesh(at, "STRICT");
    // Envoy proves to be `shop/other` where `shop/app` is wanted; then it is of another authority.
    let stranger = MeshDir { identities: Identities::new(), ..self::mesh(at, "STRICT") };
    for (of, account) in [(&mesh, "shop/other"), (&stranger, "shop/app")] {
        let (listener, cluster) = inbound(of, account, "shop/web", true, at, app);
        let _envoy = Envoy::start(&program, mesh.dir.path(), &listener, &cluster);
        let near = free();
        let _sidecar = mesh.sidecar("shop/web", &["--port-map", &format!("shop/app:80={near}")]);
        assert_eq!(answer(near).status, 503, "{account}");
    }
}

#[test]
fn envoy_reaches_a_permissive_sidecar_by_mtls_and_plaintext_does_too() {
    let Some(program) = program() else { return };
    let (app, at, near) = (mirror(), free(), free());
    let mesh = mesh(at, "PERMISSIVE");
    let takes = format!("80={at}>{app}");
    let _sidecar = mesh.sidecar("shop/app", &["--inbound", &takes]);
    let (listener, cluster) = outbound(&mesh, "shop/web", "shop/app", false, near, at);
    let _envoy = Envoy::start(&program, mesh.dir.path(), &listener, &cluster);
    assert_eq!(answer(near).status, 200);
    // The policy wants an identity; plaintext has none.
    assert_eq!(answer(at).status, 403);
    mesh.write("resources.yaml", "");
    wait_for("the other answer", || get(at, "/").is_none_or(|answer| answer.status != 403));
}

#[test]
fn envoy_sends_tunnels_to_the_sidecar() {
    let Some(program) = program() else { return };
    let (app, at) = (mirror(), free());
    let mesh = mesh(at, "STRICT");
    let tunnels = SocketAddr::new(at.ip(), free().port());
    let (takes, hbone) = (format!("80={at}>{app}"), tunnels.to_string());
    let _sidecar = mesh.sidecar("shop/app", &["--inbound", &takes, "--hbone", &hbone]);
    let ask = |account: &str, port: u16| {
        let near = free();
        let target = SocketAddr::new(at.ip(), port);
        let (listener, cluster) = tunnels_out(&mesh, account, "shop/app", target, near, tunnels);
        let _envoy = Envoy::start(&program, mesh.dir.path(), &listener, &cluster);
        get(near, "/a")
    };
    // In the tunnel it is a request like any other: routes, policies and who is at the other end hold.
    let told = ask("shop/web", 80).unwrap();
    assert_eq!(told.status, 200, "{}", told.body);
    let xfcc = header(&told.body, "x-forwarded-client-cert");
    assert!(xfcc.ends_with(";URI=spiffe://cluster.local/ns/shop/sa/web"), "{xfcc}");
    // Refused before the tunnel opens, and a port that is not taken in.
    assert!(ask("shop/other", 80).is_none());
    assert!(ask("shop/web", 81).is_none());
}

#[test]
fn the_sidecar_sends_tunnels_to_envoy() {
    let Some(program) = program() else { return };
    let (app, at) = (mirror(), free());
    let mesh = mesh(SocketAddr::new(at.ip(), 80), "STRICT");
    let ambient = ambient_pod("shop", "app", at.port());
    let rest = service("shop", "app", PORT, SocketAddr::new(at.ip(), 80)) + &pod("shop", "web");
    mesh.write("resources.yaml", &(ambient + &rest));
    let (listener, cluster) = tunnels_in(&mesh, "shop/app", at, app);
    let _envoy = Envoy::start(&program, mesh.dir.path(), &listener, &cluster);
    let near = free();
    let _sidecar = mesh.sidecar("shop/web", &["--port-map", &format!("shop/app:80={near}")]);
    for _ in 0..3 {
        let told = answer(near);
        assert_eq!(told.status, 200, "{}", told.body);
        assert!(told.body.starts_with("GET /a"), "{}", told.body);
    }
    // Another identity at the end of the tunnel.
    let (listener, cluster) = tunnels_in(&mesh, "shop/other", free(), app);
    let other = Envoy::start(&program, mesh.dir.path(), &listener, &cluster);
    let place: SocketAddr = {
        let at = &listener["address"]["socket_address"];
        format!("{}:{}", at["address"].as_str().unwrap(), at["port_value"]).parse().unwrap()
    };
    let wrong = mesh_with_tunnel(&mesh, place);
    let near = free();
    let _sidecar = wrong.sidecar("shop/web", &["--port-map", &format!("shop/app:80={near}")]);
    assert_eq!(answer(near).status, 503);
    drop(other);
}

/// The same authority, with the pod's tunnel elsewhere.
fn mesh_with_tunnel(mesh: &MeshDir, tunnel: SocketAddr) -> MeshDir {
    let other = self::mesh(SocketAddr::new(tunnel.ip(), 80), "STRICT");
    let ambient = ambient_pod("shop", "app", tunnel.port());
    let rest = service("shop", "app", PORT, SocketAddr::new(tunnel.ip(), 80)) + &pod("shop", "web");
    other.write("resources.yaml", &(ambient + &rest));
    let credential = other.dir.path().join("shop/web");
    mesh.identities.write(&credential, "shop/web", &mesh.identities.root());
    other
}

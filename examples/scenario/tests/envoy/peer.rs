//! The same with a program that plays Istio's sidecar, named by `SIDECAR_PEER`: Envoy in a configuration that is not ours.
//! Without the variable these tests say so, and pass.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::process::program;
use super::support::{MeshDir, ambient_pod, free, get, pod, service};
use super::{PORT, answer, header, mesh, mirror};

/// A part that the program plays, ended with its handle.
struct Peer(Child);

impl Peer {
    /// Plays `role` as `account`; `None` where no program is named.
    fn start(mesh: &MeshDir, account: &str, role: &str, port: u16, more: &[&str]) -> Option<Self> {
        program()?;
        let Ok(peer) = std::env::var("SIDECAR_PEER") else {
            eprintln!("skipped: SIDECAR_PEER names no program");
            return None;
        };
        let mut command = Command::new("python3");
        command.args([&peer, role, "--certs", &credential(mesh, account), "--port", &port.to_string()]);
        command
            .args(["--lifetime", "120", "--trust-domain", "cluster.local", "--log-level", "error"])
            .args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"ready\": true")));
        assert!(ready.is_some(), "{role} did not begin");
        // What it logs is not read; a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self(child))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Asked, so that it ends its Envoy.
        let _ = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A credential under the names that Istio's agent gives to its files.
fn credential(mesh: &MeshDir, account: &str) -> String {
    let dir = mesh.identity(account);
    for (ours, its) in [("tls.crt", "cert-chain.pem"), ("tls.key", "key.pem"), ("ca.crt", "root-cert.pem")] {
        std::fs::copy(format!("{dir}/{ours}"), format!("{dir}/{its}")).unwrap();
    }
    dir
}

/// The program knows no other address.
fn local() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const WEB: &str = "cluster.local/ns/shop/sa/web";

#[test]
fn the_peer_is_a_client() {
    for mode in ["STRICT", "PERMISSIVE"] {
        let (app, at) = (mirror(), local());
        let mesh = mesh(at, mode);
        let _sidecar = mesh.sidecar("shop/app", &["--inbound", &format!("80={at}>{app}")]);
        let ask = |account: &str, server: &str, more: &[&str]| {
            let (near, port) = (local(), at.port().to_string());
            let san = format!("spiffe://cluster.local/ns/shop/sa/{server}");
            let args = [&["--peer-port", &port, "--peer-san", &san], more].concat();
            let peer = Peer::start(&mesh, account, "outbound", near.port(), &args)?;
            let answer = answer(near);
            drop(peer);
            Some(answer)
        };
        for more in [&[][..], &["--h2"]] {
            let Some(told) = ask("shop/web", "app", more) else { return };
            assert_eq!(told.status, 200, "{mode} {more:?} {}", told.body);
            let xfcc = header(&told.body, "x-forwarded-client-cert");
            assert!(xfcc.ends_with("URI=spiffe://cluster.local/ns/shop/sa/web"), "{xfcc}");
        }
        assert_eq!(ask("shop/other", "app", &[]).unwrap().status, 403, "{mode}");
        assert_eq!(ask("shop/web", "other", &[]).unwrap().status, 503, "{mode}");
    }
}

#[test]
fn the_peer_is_a_server() {
    for mode in ["strict", "permissive"] {
        let (app, at) = (mirror(), local());
        let mesh = mesh(at, "STRICT");
        mesh.write("other.yaml", &pod("shop", "other"));
        let app = SocketAddr::new([127, 0, 0, 1].into(), forwarded(app));
        let port = app.port().to_string();
        let args = ["--mode", mode, "--app-port", &port, "--allow-principal", WEB];
        for (server, client, status) in
            [("shop/app", "shop/web", 200), ("shop/app", "shop/other", 403), ("shop/other", "shop/web", 503)]
        {
            let Some(peer) = Peer::start(&mesh, server, "inbound", at.port(), &args) else { return };
            let near = free();
            let _sidecar = mesh.sidecar(client, &["--port-map", &format!("shop/app:80={near}")]);
            let told = answer(near);
            assert_eq!(told.status, status, "{mode}: {client} to {server}: {}", told.body);
            drop(peer);
        }
    }
}

/// Carries connections to 127.0.0.1 on to an application at another address; the port.
fn forwarded(app: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), std::net::TcpStream::connect(app).unwrap());
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || {
                let (mut from, mut to) = (far, near);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

#[test]
fn the_peer_sends_tunnels() {
    let (app, at, tunnels) = (mirror(), local(), local());
    let mesh = mesh(at, "STRICT");
    let (takes, hbone) = (format!("80={at}>{app}"), tunnels.to_string());
    let _sidecar = mesh.sidecar("shop/app", &["--inbound", &takes, "--hbone", &hbone]);
    let ask = |account: &str, target: &str| {
        let (near, port) = (local(), tunnels.port().to_string());
        let san = "spiffe://cluster.local/ns/shop/sa/app";
        let args = ["--peer-port", &port, "--peer-san", san, "--hbone-authority", target];
        let peer = Peer::start(&mesh, account, "hbone-outbound", near.port(), &args)?;
        let answer = get(near, "/a");
        drop(peer);
        Some(answer)
    };
    let Some(told) = ask("shop/web", "127.0.0.1:80") else { return };
    assert_eq!(told.unwrap().status, 200);
    assert!(ask("shop/other", "127.0.0.1:80").unwrap().is_none());
    assert!(ask("shop/web", "127.0.0.1:81").unwrap().is_none());
}

#[test]
fn the_peer_takes_tunnels() {
    let (app, at) = (mirror(), local());
    let mesh = mesh(SocketAddr::new(at.ip(), 80), "STRICT");
    let ambient = ambient_pod("shop", "app", at.port());
    let rest = service("shop", "app", PORT, SocketAddr::new(at.ip(), 80)) + &pod("shop", "web");
    mesh.write("resources.yaml", &(ambient + &rest));
    let port = forwarded(app).to_string();
    for (server, status) in [("shop/app", 200), ("shop/other", 503)] {
        let args = ["--app-port", &port];
        let Some(peer) = Peer::start(&mesh, server, "hbone-inbound", at.port(), &args) else { return };
        let near = free();
        let _sidecar = mesh.sidecar("shop/web", &["--port-map", &format!("shop/app:80={near}")]);
        assert_eq!(answer(near).status, status, "{server}");
        drop(peer);
    }
}

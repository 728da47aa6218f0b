//! What happens to traffic while a process is told to stop, and while certificates change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{GATEWAY, Kept, Running, backend, free, get, mint, route, wait_for, write};

#[test]
fn a_request_in_flight_is_answered_when_the_process_is_told_to_stop() {
    let app = free();
    let _service = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
    wait_for("the service", || get(app, "/page").is_some());
    let mut gateway = backend(app);
    let address = gateway.address;
    let slow = std::thread::spawn(move || get(address, "/slow?ms=1000"));
    // The request is in flight once the application is working on it: its answer cannot have come yet.
    wait_for("the request to be in flight", || gateway.in_flight() > 0);
    gateway.terminate();
    let answer = slow.join().unwrap().expect("an answer");
    assert!(answer.status == 200 && answer.complete);
    assert!(gateway.ended_well());
    assert!(get(address, "/page").is_none(), "nothing listens any more");
}

#[test]
fn certificates_rotate_and_a_kept_connection_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::start(dir.path());
    let mut kept = Kept::open(mesh.outbound);
    assert_eq!(kept.status("/page"), 200);
    let first = mesh.expiry().expect("a certificate");
    let began = Instant::now();
    while mesh.expiry().is_some_and(|expiry| expiry < first + 6) {
        assert!(began.elapsed() < Duration::from_secs(30), "certificates do not rotate");
        assert_eq!(kept.status("/page"), 200, "the kept connection must live");
        assert_eq!(get(mesh.outbound, "/page").unwrap().status, 200, "new connections must work");
    }
    assert_eq!(kept.status("/page"), 200);
}

/// A client's and a server's sidecar, whose certificates live for four seconds.
struct Mesh {
    outbound: SocketAddr,
    admin: SocketAddr,
    _processes: Vec<Running>,
}

const WORKLOADS: &str = "\
apiVersion: towpath.dev/v1alpha1
kind: Mesh
metadata: {name: m}
---
apiVersion: v1
kind: Pod
metadata: {namespace: edge, name: client, labels: {app: client}}
spec: {serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: edge, name: app-0, labels: {app: app, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: app}
";

impl Mesh {
    fn start(dir: &Path) -> Self {
        let (plane, app, inbound, outbound) = (free(), free(), free(), free());
        let (client_admin, server_admin) = (free(), free());
        let (state, config) = (dir.join("plane"), dir.join("config"));
        std::fs::create_dir(&config).unwrap();
        write(&config, "workloads.yaml", WORKLOADS);
        write(&config, "gateway.yaml", GATEWAY);
        let target = format!(
            "addresses: [\"{}\"]\n    targetRef: {{kind: Pod, namespace: edge, name: app-0}}",
            inbound.ip()
        );
        let services = route(inbound).replace(&format!("addresses: [\"{}\"]", inbound.ip()), &target);
        write(&config, "services.yaml", &services);
        let (state, config) = (state.display().to_string(), config.display().to_string());
        let (client_token, server_token) = (mint(dir, &state, "client"), mint(dir, &state, "app"));
        let from_plane = format!("plane={plane}");
        let sidecar = |workload: &str, token: &str, admin: SocketAddr, more: [&str; 2]| {
            let admin = admin.to_string();
            let mut args =
                vec!["sidecar", "--config", &from_plane, "--identity", &from_plane, "--workers", "1"];
            args.extend(["--workload", workload, "--join-token", token, "--admin", &admin]);
            args.extend(more);
            Running::start(&args)
        };
        let processes = vec![
            Running::start(&["service", "--name", "app", "--listen", &app.to_string()]),
            Running::start(&[
                "control-plane",
                "--listen",
                &plane.to_string(),
                "--state",
                &state,
                "--config",
                &config,
                "--ttl",
                "4s",
            ]),
            sidecar("edge/app-0", &server_token, server_admin, ["--inbound", &format!("80={inbound}>{app}")]),
            sidecar(
                "edge/client",
                &client_token,
                client_admin,
                ["--port-map", &format!("edge/app:80={outbound}")],
            ),
        ];
        let mesh = Self { outbound, admin: client_admin, _processes: processes };
        for admin in [client_admin, server_admin] {
            wait_for("both sidecars", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
        }
        mesh
    }

    /// When the client's certificate expires, in seconds since the epoch.
    fn expiry(&self) -> Option<i64> {
        let page = get(self.admin, "/metrics")?.body;
        let line = page.lines().find(|line| line.starts_with("towpath_certificate_expiry_seconds "))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

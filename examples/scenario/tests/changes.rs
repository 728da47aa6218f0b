//! What a change of the configuration, or the lack of one, does to a process that runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use support::{GATEWAY, Kept, Running, backend, free, get, identity_files, mint, route, wait_for, write};

fn service() -> (Running, SocketAddr) {
    let app = free();
    let service = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
    wait_for("the service", || get(app, "/page").is_some());
    (service, app)
}

fn metric(admin: SocketAddr, line: &str) -> bool {
    get(admin, "/metrics").is_some_and(|answer| answer.body.lines().any(|found| found == line))
}

#[test]
fn connections_of_a_listener_that_is_gone_end() {
    let (_service, app) = service();
    let dir = tempfile::tempdir().unwrap();
    let second = "\n    - {name: second, port: 81, protocol: HTTP}\n---";
    write(dir.path(), "gateway.yaml", &GATEWAY.replacen("\n---", second, 1));
    write(dir.path(), "route.yaml", &route(app));
    let (first, second, admin) = (free(), free(), free());
    let _gateway = Running::start(&[
        "gateway",
        "--config",
        &dir.path().display().to_string(),
        "--port-map",
        &format!("edge/web:80={first},edge/web:81={second}"),
        "--admin",
        &admin.to_string(),
    ]);
    wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    let (mut stays, mut goes) = (Kept::open(first), Kept::open(second));
    assert_eq!((stays.status("/page"), goes.status("/page")), (200, 200));
    write(dir.path(), "gateway.yaml", GATEWAY);
    // Nothing renews the routes that it is served by: it must not be served for good.
    wait_for("the connection to end", || goes.get("/page").is_none());
    assert_eq!(stays.status("/page"), 200);
}

fn sidecar(dir: &Path, app: SocketAddr, inbound: SocketAddr, admin: SocketAddr) -> [Running; 2] {
    let (plane, state) = (free(), dir.join("state").display().to_string());
    let token = mint(dir, &state, "app");
    let control = Running::start(&["control-plane", "--listen", &plane.to_string(), "--state", &state]);
    let sidecar = Running::start(&[
        "sidecar",
        "--config",
        &dir.join("resources").display().to_string(),
        "--workload",
        "edge/app-0",
        "--inbound",
        &format!("80={inbound}>{app}"),
        "--identity",
        &format!("plane={plane}"),
        "--join-token",
        &token,
        "--admin",
        &admin.to_string(),
    ]);
    wait_for("the sidecar", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    [control, sidecar]
}

#[test]
fn strict_ends_the_plaintext_connections_of_before() {
    let (_service, app) = service();
    let dir = tempfile::tempdir().unwrap();
    let resources = dir.path().join("resources");
    std::fs::create_dir(&resources).unwrap();
    let mode = |mode: &str| {
        let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                    metadata: {namespace: edge, name: default}\nspec: {mtls: {mode: MODE}}\n";
        write(&resources, "mode.yaml", &text.replace("MODE", mode));
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: edge, name: app-0}\n\
               spec: {serviceAccountName: app}\n";
    write(&resources, "pod.yaml", pod);
    mode("PERMISSIVE");
    let (inbound, admin) = (free(), free());
    let _mesh = sidecar(dir.path(), app, inbound, admin);
    let mut kept = Kept::open(inbound);
    assert_eq!(kept.status("/page"), 200);
    mode("STRICT");
    wait_for("the connection to end", || kept.get("/page").is_none());
    assert!(get(inbound, "/page").is_none());
    wait_for("the refusal to be counted", || {
        metric(admin, "towpath_connections_refused_total{reason=\"plaintext\"} 1")
    });
    mode("PERMISSIVE");
    wait_for("plaintext to be taken again", || get(inbound, "/page").is_some());
    let mut again = Kept::open(inbound);
    assert_eq!((again.status("/page"), again.status("/page")), (200, 200));
}

#[test]
fn a_file_that_is_being_written_in_place_takes_nothing_down() {
    let (_service, app) = service();
    let gateway = backend(app);
    let file = gateway.dir.path().join("route.yaml");
    let moved = route(app).replace("value: /", "value: /only");
    // Emptied first, as shells and editors do it, and filled a moment later than it takes to notice.
    std::fs::write(&file, "").unwrap();
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(get(gateway.address, "/page").unwrap().status, 200);
    }
    std::fs::write(&file, moved).unwrap();
    wait_for("the change to take effect", || get(gateway.address, "/page").unwrap().status == 404);
    assert_eq!(get(gateway.address, "/only").unwrap().status, 200);
}

#[test]
fn files_that_are_no_resources_are_no_change() {
    let (_service, app) = service();
    let gateway = backend(app);
    for n in 0..5 {
        write(gateway.dir.path(), "notes.txt", &n.to_string());
        std::thread::sleep(Duration::from_millis(100));
    }
    write(gateway.dir.path(), "route.yaml", &route(app).replace("value: /", "value: /only"));
    wait_for("the change", || get(gateway.address, "/page").is_some_and(|answer| answer.status == 404));
    assert!(metric(gateway.admin, "towpath_config_applied_total 2"));
}

#[test]
fn a_reader_of_messages_that_is_gone_ends_nothing() {
    let (_service, app) = service();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route(app));
    let (address, admin) = (free(), free());
    let (config, map) = (dir.path().display().to_string(), format!("edge/web:80={address}"));
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .args(["gateway", "--config", &config, "--port-map", &map, "--admin", &admin.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(gateway.stderr.take());
    wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    write(dir.path(), "route.yaml", "kind: HTTPRoute\nspec: [broken");
    wait_for("the error to be counted, or the end", || {
        metric(admin, "towpath_config_rejected_total 1") || gateway.try_wait().unwrap().is_some()
    });
    let ended = gateway.try_wait().unwrap();
    let _ = gateway.kill();
    let _ = gateway.wait();
    assert_eq!(ended, None);
}

#[test]
fn a_listener_whose_port_was_taken_is_opened_once_it_is_free() {
    let (_service, app) = service();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route(app));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (first, second, admin) = (free(), taken.local_addr().unwrap(), free());
    let _gateway = Running::start(&[
        "gateway",
        "--config",
        &dir.path().display().to_string(),
        "--port-map",
        &format!("edge/web:80={first},edge/web:81={second}"),
        "--admin",
        &admin.to_string(),
    ]);
    wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    let more = "\n    - {name: second, port: 81, protocol: HTTP}\n---";
    write(dir.path(), "gateway.yaml", &GATEWAY.replacen("\n---", more, 1));
    wait_for("the change", || metric(admin, "towpath_config_applied_total 2"));
    assert_eq!(get(first, "/page").unwrap().status, 200);
    drop(taken);
    wait_for("the listener", || get(second, "/page").is_some_and(|answer| answer.status == 200));
}

#[test]
fn a_reader_that_has_seen_enough_of_a_report_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    let config = dir.path().display().to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .args(["gateway", "check", "--config", &config, "--port-map", "edge/web:80=127.0.0.1:8080"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_process_is_not_ready_with_a_certificate_that_ran_out() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let identity = dir.path().join("identity");
    std::fs::create_dir(&identity).unwrap();
    let now = SystemTime::now();
    let before = now - Duration::from_mins(1);
    identity_files(&identity, before, now + Duration::from_secs(5));
    let admin = free();
    let _gateway = Running::start(&[
        "gateway",
        "--config",
        &dir.path().display().to_string(),
        "--port-map",
        &format!("edge/web:80={}", free()),
        "--identity",
        &identity.display().to_string(),
        "--admin",
        &admin.to_string(),
    ]);
    let ready = |status| get(admin, "/ready").is_some_and(|answer| answer.status == status);
    wait_for("the gateway", || ready(200));
    wait_for("the certificate to run out", || ready(503));
    assert!(get(admin, "/ready").unwrap().body.contains("identity"));
    identity_files(&identity, before, now + Duration::from_hours(1));
    wait_for("a new certificate to be taken", || ready(200));
}

#[test]
fn a_silent_tls_client_does_not_hold_the_end_back() {
    let dir = tempfile::tempdir().unwrap();
    let tls = "{name: https, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: web}]}}";
    write(dir.path(), "gateway.yaml", &GATEWAY.replace("{name: http, port: 80, protocol: HTTP}", tls));
    write(dir.path(), "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let issued = rcgen::generate_simple_self_signed(vec!["shop.example.com".to_owned()]).unwrap();
    let secret = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "edge", "name": "web"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": issued.cert.pem(), "tls.key": issued.signing_key.serialize_pem()},
    });
    write(dir.path(), "secret.json", &secret.to_string());
    let (address, admin) = (free(), free());
    let mut gateway = Running::start(&[
        "gateway",
        "--config",
        &dir.path().display().to_string(),
        "--port-map",
        &format!("edge/web:80={address}"),
        "--admin",
        &admin.to_string(),
    ]);
    wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    let _silent = TcpStream::connect(address).unwrap();
    let began = Instant::now();
    gateway.terminate();
    assert!(gateway.ended_well());
    // The handshake alone would have had 10 seconds.
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

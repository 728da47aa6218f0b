//! What goes wrong is told, where it stands and what to do; nothing else is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use support::{GATEWAY, Running, backend, free, get, identity_files, mint, route, wait_for, write};

fn scenario(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scenario")).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("panicked at"), "{text}");
    text
}

#[test]
fn an_unknown_word_lists_the_four() {
    let output = scenario(&["sidecarless"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2));
    for word in ["ingress", "in-cluster", "attached", "gateway-api"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let config = dir.path().display().to_string();
    let output = scenario(&["gateway", "--config", &config, "--port-map", &format!("edge/web:80={address}")]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&address.to_string()) && text.contains("already in use") && text.contains("edge/web"),
        "{text}"
    );
}

#[test]
fn two_gateways_do_not_share_a_port_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let (address, admin) = (free(), free());
    let config = dir.path().display().to_string();
    let map = format!("edge/web:80={address}");
    let first =
        Running::start(&["gateway", "--config", &config, "--port-map", &map, "--admin", &admin.to_string()]);
    wait_for("the first gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    let text = said(&scenario(&["gateway", "--config", &config, "--port-map", &map]));
    assert!(text.contains("already in use"), "{text}");
    drop(first);
}

#[test]
fn check_tells_every_error_at_once_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    let typo = route("127.0.0.1:9".parse().unwrap()).replace("backendRefs:", "backendRef:");
    write(dir.path(), "route.yaml", &typo);
    write(
        dir.path(),
        "mesh.yaml",
        "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec:\n  scenario: atached\n",
    );
    write(dir.path(), "broken.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x\n");
    let config = dir.path().display().to_string();
    let output = scenario(&["gateway", "check", "--config", &config]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = typo.lines().position(|line| line.contains("backendRef:")).unwrap() + 1;
    assert!(text.contains(&format!("route.yaml:{line}:")) && text.contains("backendRefs"), "{text}");
    assert!(text.contains("mesh.yaml:5:") && text.contains("in-cluster"), "{text}");
    assert!(text.contains("broken.yaml:"), "{text}");

    let output = scenario(&["gateway", "check", "--config", &config, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("only JSON on standard output");
    assert!(report["problems"].as_array().unwrap().len() >= 3, "{report:#}");
}

#[test]
fn an_unreadable_directory_ends_the_program() {
    for arguments in
        [vec!["gateway", "--config", "no/such/place"], vec!["gateway", "check", "--config", "no/such/place"]]
    {
        let output = scenario(&arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("no/such/place"), "{text}");
    }
}

#[test]
fn certificates_that_are_missing_or_expired_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let config = dir.path().display().to_string();
    let map = format!("edge/web:80={}", free());
    let empty = dir.path().join("identity");
    std::fs::create_dir(&empty).unwrap();
    let identity = empty.display().to_string();
    let arguments = ["gateway", "--config", &config, "--port-map", &map, "--identity", &identity];
    let text = said(&scenario(&arguments));
    assert!(text.contains("tls.crt"), "{text}");

    let long_ago = std::time::UNIX_EPOCH;
    identity_files(&empty, long_ago, long_ago + Duration::from_hours(24));
    let output = scenario(&arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("expired"), "{text}");
}

#[test]
fn a_plane_that_is_not_there_is_waited_for_and_told_on_ready() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("plane");
    let (plane, admin, outbound) = (free(), free(), free());
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let token = mint(dir.path(), &state.display().to_string(), "web");
    let from_plane = format!("plane={plane}");
    let _sidecar = Running::start(&[
        "sidecar",
        "--config",
        &from_plane,
        "--identity",
        &from_plane,
        "--join-token",
        &token,
        "--admin",
        &admin.to_string(),
        "--port-map",
        &format!("edge/app:80={outbound}"),
    ]);
    wait_for("/ready to tell of the plane", || {
        get(admin, "/ready")
            .is_some_and(|answer| answer.status == 503 && answer.body.contains(&plane.to_string()))
    });
    let config = dir.path().join("resources");
    std::fs::create_dir(&config).unwrap();
    write(&config, "route.yaml", &route("127.0.0.1:9".parse().unwrap()));
    let _plane = Running::start(&[
        "control-plane",
        "--listen",
        &plane.to_string(),
        "--state",
        &state.display().to_string(),
        "--config",
        &config.display().to_string(),
    ]);
    wait_for("the sidecar to be ready once the plane is there", || {
        get(admin, "/ready").is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn an_upstream_that_dies_mid_response_is_not_taken_for_a_whole_answer() {
    let app = free();
    let _service = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
    wait_for("the service", || get(app, "/page").is_some());
    let gateway = backend(app);
    let answer = get(gateway.address, "/break?bytes=1000").expect("the head arrives");
    assert_eq!(answer.status, 200);
    assert!(!answer.complete, "a broken body must not look whole");
    let next = get(gateway.address, "/page").expect("the gateway serves on");
    assert!(next.status == 200 && next.complete);
}

#[test]
fn a_dead_upstream_answers_503_at_once() {
    let gateway = backend(free());
    let began = std::time::Instant::now();
    assert_eq!(get(gateway.address, "/page").expect("an answer").status, 503);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_broken_change_keeps_what_was_in_force() {
    let app = free();
    let _service = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
    wait_for("the service", || get(app, "/page").is_some());
    let gateway = backend(app);
    assert_eq!(get(gateway.address, "/page").unwrap().status, 200);
    write(gateway.dir.path(), "route.yaml", "kind: HTTPRoute\nspec: [broken");
    wait_for("the error to be told", || {
        get(gateway.admin, "/metrics")
            .is_some_and(|answer| answer.body.contains("towpath_config_rejected_total 1"))
    });
    assert_eq!(get(gateway.address, "/page").unwrap().status, 200);
}

#[test]
fn a_change_takes_effect_without_dropping_a_connection() {
    let app = free();
    let _service = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
    wait_for("the service", || get(app, "/page").is_some());
    let gateway = backend(app);
    let mut kept = support::Kept::open(gateway.address);
    assert_eq!(kept.status("/page"), 200);
    let moved = route(app).replace("value: /", "value: /only");
    write(gateway.dir.path(), "route.yaml", &moved);
    wait_for("the change to take effect on the kept connection", || kept.status("/page") == 404);
    assert_eq!(kept.status("/only/here"), 200);
}

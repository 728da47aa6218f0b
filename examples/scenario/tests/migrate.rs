//! `migrate` as people use it: from a directory of Istio's to one that the gateway serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::process::{Command, Output};

use support::{GATEWAY, World, free, route, send, write};

fn gateway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scenario")).arg("gateway").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const VIRTUAL_SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: edge, name: shop}
spec:
  hosts: [shop.example.com]
  gateways: [web]
  http:
    - match: [{uri: {prefix: /old}, withoutHeaders: {x: {}}}]
      redirect: {authority: new.example.com}
    - match: [{uri: {exact: /teapot}}]
      directResponse: {status: 418, body: {string: short and stout}}
    - match: [{uri: {exact: /lost}, sourceLabels: {app: web}}]
      redirect: {authority: lost.example.com}
    - route: [{destination: {host: app}}]
";

#[test]
fn what_is_written_is_served_and_what_is_lost_is_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "all.yaml", &format!("{GATEWAY}---{VIRTUAL_SERVICE}---\n{}", route(free())));
    let config = dir.path().display().to_string();
    let checked = text(&gateway(&["check", "--config", &config]).stdout);
    assert!(checked.contains("VirtualService has no effect here (`gateway migrate` writes"), "{checked}");

    let made = gateway(&["migrate", "--config", &config]);
    assert_eq!(made.status.code(), Some(0));
    let (routes, told) = (text(&made.stdout), text(&made.stderr));
    assert!(told.contains("all.yaml:") && told.contains("spec.http[2].match[0].sourceLabels"), "{told}");
    assert!(told.ends_with("2 objects; fields lost: 1, changed: 0, notes: 1\n"), "{told}");
    assert_eq!(gateway(&["migrate", "--strict", "--config", &config]).status.code(), Some(1));

    let world = World::start("", &routes);
    for (request, answer) in [
        ("GET /old/book HTTP/1.1", "HTTP/1.1 301 "),
        ("GET /old/book HTTP/1.1\r\nx: 1", "HTTP/1.1 200 "),
        ("GET /teapot HTTP/1.1", "HTTP/1.1 418 "),
        ("GET /lost HTTP/1.1", "HTTP/1.1 200 "),
        ("GET /else HTTP/1.1", "HTTP/1.1 200 "),
    ] {
        let got = send(world.address, request, "");
        assert!(got.starts_with(answer), "{request}: {got}");
    }
}

#[test]
fn for_programs_there_is_json() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "all.yaml", VIRTUAL_SERVICE);
    write(
        dir.path(),
        "broken.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x\n",
    );
    let made = gateway(&["migrate", "-o", "json", "--config", &dir.path().display().to_string()]);
    assert_eq!(made.status.code(), Some(1), "a document could not be read");
    let whole: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(whole["problems"].as_array().unwrap().len(), 1);
    assert!(whole["objects"].as_array().unwrap().iter().any(|object| object["kind"] == "HTTPRoute"));
    let lost =
        whole["findings"].as_array().unwrap().iter().find(|finding| finding["loss"] == "lost").unwrap();
    assert_eq!(lost["field"], "spec.http[2].match[0].sourceLabels");
    assert_eq!(lost["position"]["line"], 13);

    let none = gateway(&["migrate", "--config", &dir.path().join("none").display().to_string()]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("none"), "{}", text(&none.stderr));
}

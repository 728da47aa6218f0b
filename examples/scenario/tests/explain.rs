//! `explain` beside the gateway that serves the same directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{GATEWAY, World, free, route, send, write};

const RULES: &str = "    - matches: [{path: {type: Exact, value: /books}, method: POST}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: posted.example}}]
    - matches: [{path: {type: PathPrefix, value: /books}, headers: [{name: x, value: one}]}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: one.example}}]
    - matches: [{path: {type: PathPrefix, value: /books}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: rest.example}}]
";

fn explain(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .args(["gateway", "explain"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_explained_is_what_the_gateway_does() {
    let world = World::start(RULES, "");
    let (config, port) = (world.config(), world.address.port());
    for (method, target, header, location) in [
        ("POST", "/books", "", "posted.example"),
        ("POST", "/books/", "", "rest.example"),
        ("GET", "/books", "x: one", "one.example"),
        ("GET", "/x/..//books/7?q", "x: two", "rest.example"),
    ] {
        let line = if header.is_empty() { String::new() } else { format!("\r\n{header}") };
        let answer = send(world.address, &format!("{method} {target} HTTP/1.1{line}"), "");
        assert!(answer.contains(&format!("location: http://{location}")), "{target}: {answer}");
        let url = format!("{method} http://shop.example.com:{port}{target}");
        let mut arguments =
            vec!["--config", &config, "--port-map", world.port_map(), "-o", "json", "--request", &url];
        if !header.is_empty() {
            arguments.extend(["-H", header]);
        }
        let (code, out, err) = explain(&arguments);
        assert_eq!(code, Some(0), "{err}");
        let told: Value = serde_json::from_str(&out).unwrap();
        let decision = &told["sockets"][0]["decision"];
        let rule =
            ["posted.example", "one.example", "rest.example"].iter().position(|name| *name == location);
        assert_eq!(decision["rule"], format!("edge/all#{}", rule.unwrap()), "{out}");
        assert_eq!(decision["settings"]["filters"], serde_json::json!(["redirect"]));
        // Every other rule is there, with its reason.
        let candidates = told["sockets"][0]["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 3, "{out}");
        assert!(candidates.iter().all(|candidate| !candidate["message"].as_str().unwrap().is_empty()));
    }
    let bad = send(world.address, "GET /%00 HTTP/1.1", "");
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
    let url = format!("http://shop.example.com:{port}/%00");
    let (_, out, _) = explain(&["--config", &config, "--port-map", world.port_map(), "--request", &url]);
    assert!(out.contains("answer    400 bad_request: the path holds `%00`"), "{out}");
}

#[test]
fn people_read_which_rule_won_and_why_the_others_did_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    let routes = route(free()).replace("  rules:\n", &format!("  rules:\n{RULES}"));
    write(dir.path(), "route.yaml", &routes);
    let config = dir.path().display().to_string();
    let (code, out, err) =
        explain(&["--config", &config, "--request", "GET http://shop.example.com/books/7"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "request   GET http://shop.example.com/books/7\n",
        "seen as   /books/7 with host shop.example.com\n",
        "rule      edge/all#2: path prefix `/books`\n",
        "the winner's path is more specific\n",
        "there is no header `x` = `one`\n",
        "the path is not `/books`\n",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let (code, _, err) = explain(&["--config", &config, "--request", "GET https://shop.example.com/"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("no socket takes https requests on port 443; there is edge/web:80 (http on 0.0.0.0:80)"),
        "{err}"
    );
    let (code, _, err) = explain(&["--config", &config, "--request", "GET /books"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("does not begin with http:// or https://"), "{err}");
}

#[test]
fn where_no_certificate_is_for_the_name_the_handshake_ends() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let indented = |text: String| text.replace('\n', "\n    ");
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: s, namespace: edge}}\nstringData:\n  \
         tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(made.cert.pem()),
        indented(made.signing_key.serialize_pem())
    );
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: edge}\n\
                   spec: {gatewayClassName: c, listeners: [{name: one, port: 443, protocol: HTTPS, hostname: a.example, \
                   tls: {certificateRefs: [{name: s}]}}, {name: two, port: 443, protocol: HTTPS, hostname: '*.b.example', \
                   tls: {certificateRefs: [{name: s}]}}]}\n";
    write(dir.path(), "all.yaml", &format!("{gateway}{secret}"));
    let config = dir.path().display().to_string();
    for (url, more, says) in [
        ("https://a.example/", &[][..], "answer    404 no_route"),
        (
            "https://c.example/",
            &[],
            "answer    none: the TLS handshake ends, for no certificate is for c.example",
        ),
        ("https://x.b.example/", &["--server-name", "a.example"], "answer    421 misdirected"),
        ("https://127.0.0.1/", &[], "no certificate is for a client that names no host"),
    ] {
        let mut arguments = vec!["--config", &config, "--request", url];
        arguments.extend(more);
        let (code, out, err) = explain(&arguments);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains(says), "{url}: {out}");
    }
}

#[test]
fn rules_of_one_name_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    let grpc = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {namespace: edge, name: all}\n\
                spec: {parentRefs: [{name: web}], hostnames: [grpc.example], rules: [{backendRefs: [{name: gone, port: 80}]}]}\n";
    let routes = route(free()).replace("  rules:\n", "  hostnames: [http.example]\n  rules:\n");
    write(dir.path(), "route.yaml", &format!("{routes}{grpc}"));
    let config = dir.path().display().to_string();
    for (host, backend) in [("http.example", "edge/app:80"), ("grpc.example", "edge/gone:80")] {
        let url = format!("POST http://{host}/a.B/c");
        let (_, out, _) = explain(&["--config", &config, "-o", "json", "--request", &url]);
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["sockets"][0]["decision"]["settings"]["backends"][0]["name"], backend, "{out}");
    }
}

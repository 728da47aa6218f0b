//! Filters of routes over sockets: from the directory to what a client sees and what the access log says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use support::{World, send};

#[test]
fn faults_and_fixed_answers_come_from_the_gateway_and_the_log_says_so() {
    let rule = "    - matches: [{path: {type: PathPrefix, value: /closed}}]
      filters: [{type: ExtensionRef, extensionRef: {group: towpath.dev, kind: HTTPRouteFilter, name: closed}}]
    - matches: [{path: {type: PathPrefix, value: /broken}}]
      filters: [{type: ExtensionRef, extensionRef: {group: towpath.dev, kind: HTTPRouteFilter, name: broken}}]
      backendRefs: [{name: app, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /late}}]
      filters: [{type: ExtensionRef, extensionRef: {group: towpath.dev, kind: HTTPRouteFilter, name: late}}]
      timeouts: {request: 250ms}
      backendRefs: [{name: app, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /lost}}]
      filters: [{type: ExtensionRef, extensionRef: {group: towpath.dev, kind: HTTPRouteFilter, name: none}}]
      backendRefs: [{name: app, port: 80}]
";
    let filter = |name: &str, spec: &str| {
        format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: HTTPRouteFilter\nmetadata: {{namespace: edge, name: {name}}}\nspec: {spec}\n"
        )
    };
    let more = [
        filter("closed", "{directResponse: {status: 451, body: not for you, contentType: text/plain}}"),
        filter("broken", "{fault: {abort: {grpcStatus: UNAVAILABLE}}}"),
        filter("late", "{fault: {delay: {fixedDelay: 300ms}}}"),
    ];
    let world = World::start(rule, &more.join("---\n"));

    let closed = send(world.address, "GET /closed HTTP/1.1", "");
    assert!(closed.starts_with("HTTP/1.1 451 ") && closed.ends_with("\r\n\r\nnot for you"), "{closed}");
    assert!(closed.contains("content-type: text/plain\r\n"), "{closed}");
    let head = send(world.address, "HEAD /closed HTTP/1.1", "");
    assert!(head.starts_with("HTTP/1.1 451 ") && head.ends_with("\r\n\r\n"), "{head}");

    let broken = send(world.address, "GET /broken HTTP/1.1", "");
    assert!(broken.starts_with("HTTP/1.1 503 "), "{broken}");
    let grpc = send(
        world.address,
        "POST /broken/grpc HTTP/1.1\r\ncontent-type: application/grpc\r\ncontent-length: 0",
        "",
    );
    assert!(grpc.starts_with("HTTP/1.1 200 ") && grpc.contains("grpc-status: 14\r\n"), "{grpc}");
    let line = world.logged("/broken");
    assert_eq!(
        (&line["status"], &line["reason"], &line["flag"]),
        (&503.into(), &"fault_injected".into(), &"FI".into())
    );

    // Held back for longer than the route's limit, which does not count it.
    let began = Instant::now();
    let late = send(world.address, "GET /late HTTP/1.1", "");
    assert!(late.starts_with("HTTP/1.1 200 ") && began.elapsed() >= Duration::from_millis(300), "{late}");
    assert_eq!(world.logged("/late")["injected_delay_us"], 300_000);

    assert!(send(world.address, "GET /lost HTTP/1.1", "").starts_with("HTTP/1.1 500 "));
    assert!(send(world.address, "GET /else HTTP/1.1", "").starts_with("HTTP/1.1 200 "));
}

//! Layer 4 at the edge: listeners for TLS, TCP and UDP, their routes, their sockets and what is said of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, condition, gateway, in_scenario, problems, source, status};
use serde_json::Value;
use towpath_config::{Options, Role, Scenario, Snapshot, compile};

const DNS: &str = "
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: shop}
spec:
  ports:
    - {name: udp, port: 53, protocol: UDP}
    - {name: tcp, port: 53}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-1, namespace: shop, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
endpoints: [{addresses: [10.0.4.1], targetRef: {kind: Pod, name: pages-0}}]
ports: [{name: udp, port: 5300}, {name: tcp, port: 5301}]
";

fn world(listeners: &str) -> String {
    let all = "allowedRoutes: {namespaces: {from: All}}";
    WORLD.replace(
        "    - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}",
        &listeners.replace("ALL", all),
    )
}

fn flow_route(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  parentRefs: [{{name: gw, namespace: edge}}]\n{spec}"
    )
}

/// `duty tls address: route -> endpoint transport` of every route of layer 4.
fn served(snapshot: &Snapshot) -> Vec<String> {
    let (json, mut lines) = (snapshot.to_json(), Vec::new());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for listener in list(&json["listeners"]) {
        for route in list(&listener["routes"]).iter().flat_map(|table| list(&table["routes"])) {
            let backend = &route["backends"][0];
            let endpoint = &backend["endpoints"][0];
            lines.push(format!(
                "{} {} {}: {} {} -> {} {} {}",
                listener["duty"].as_str().unwrap(),
                listener["tls"].as_str().unwrap_or("-"),
                listener["address"].as_str().unwrap(),
                route["name"].as_str().unwrap(),
                route["hostnames"],
                backend["name"].as_str().unwrap_or("-"),
                endpoint["address"].as_str().unwrap_or("-"),
                endpoint["transport"].as_str().unwrap_or("-"),
            ));
        }
    }
    lines
}

fn verdict(snapshot: &Snapshot, kind: &str, name: &str) -> (String, String) {
    let conditions = &status(snapshot, kind, name)["parents"][0]["conditions"];
    (condition(conditions, "Accepted"), condition(conditions, "ResolvedRefs"))
}

fn listener(snapshot: &Snapshot, at: usize) -> Value {
    status(snapshot, "Gateway", "gw")["listeners"][at].clone()
}

#[test]
fn each_kind_of_route_has_sockets_of_its_kind() {
    let world = world(
        "    - {name: dns, port: 53, protocol: UDP, ALL}
    - {name: dns-tcp, port: 53, protocol: TCP, hostname: ignored.example, ALL}
    - {name: tls, port: 443, protocol: TLS, hostname: '*.example', tls: {mode: Passthrough}, ALL}",
    );
    let to = |service: &str, port: u16| {
        format!("  rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]\n")
    };
    let routes = [
        flow_route("UDPRoute", "u", &to("dns", 53)),
        flow_route("TCPRoute", "t", &to("dns", 53)),
        flow_route("TLSRoute", "s", &format!("  hostnames: [a.example, b.other]\n{}", to("pages", 9080))),
    ];
    let snapshot = compiled(&[&world, DNS, &routes[0], &routes[1], &routes[2]], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    assert_eq!(
        served(&snapshot),
        [
            "stream none 0.0.0.0:53: shop/t#0 [] -> shop/dns:53 10.0.4.1:5301 mtls",
            "stream passthrough 0.0.0.0:443: shop/s#0 [\"a.example\"] -> shop/pages:9080 10.0.0.1:15006 mtls",
            "datagram - 0.0.0.0:53: shop/u#0 [] -> shop/dns:53 10.0.4.1:5300 plaintext",
        ]
    );
    // A workload of the mesh is spoken to in plaintext by UDP, and that is said.
    let hops: Vec<_> = snapshot.plaintext_hops.iter().map(|hop| (&*hop.to, hop.why.as_str())).collect();
    assert_eq!(hops, [("shop/dns:53", "the mesh does not protect UDP")]);
    for (at, kind) in ["UDPRoute", "TCPRoute", "TLSRoute"].into_iter().enumerate() {
        let listener = listener(&snapshot, at);
        assert_eq!(
            (&listener["supportedKinds"][0]["kind"], &listener["attachedRoutes"]),
            (&kind.into(), &1.into())
        );
        assert_eq!(condition(&listener["conditions"], "Programmed"), "True/Programmed");
    }
}

#[test]
fn listeners_that_nothing_tells_apart_are_refused() {
    for (listeners, wanted) in [
        ("{name: a, port: 1, protocol: TCP}, {name: b, port: 1, protocol: TCP}", "True/HostnameConflict"),
        ("{name: a, port: 1, protocol: TCP}, {name: b, port: 1, protocol: HTTP}", "True/ProtocolConflict"),
        ("{name: a, port: 1, protocol: TCP}, {name: b, port: 1, protocol: UDP}", "False/NoConflicts"),
        ("{name: a, port: 1, protocol: UDP}, {name: b, port: 1, protocol: HTTP}", "False/NoConflicts"),
        (
            "{name: a, port: 1, protocol: TLS, hostname: a.example, tls: {mode: Passthrough}}, \
             {name: b, port: 1, protocol: TLS, hostname: b.example, tls: {mode: Passthrough}}",
            "False/NoConflicts",
        ),
        (
            "{name: a, port: 1, protocol: TLS, hostname: a.example, tls: {mode: Passthrough}}, \
             {name: b, port: 1, protocol: TLS, hostname: b.example, tls: {mode: Terminate}}",
            "True/ProtocolConflict",
        ),
    ] {
        let world = WORLD.replace(
            "  listeners:\n    - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}",
            &format!("  listeners: [{listeners}]"),
        );
        let snapshot = compiled(&[&world], &gateway());
        for at in [0, 1] {
            assert_eq!(
                condition(&listener(&snapshot, at)["conditions"], "Conflicted"),
                wanted,
                "{listeners}"
            );
        }
    }
}

#[test]
fn what_does_not_go_together_is_said() {
    let world = world("    - {name: t, port: 9, protocol: TCP, ALL}");
    for (kind, spec, wanted) in [
        (
            "TCPRoute",
            "  rules: [{backendRefs: [{name: none, port: 1}]}]\n",
            ("True/Accepted", "False/BackendNotFound"),
        ),
        (
            "TCPRoute",
            "  rules: [{backendRefs: [{name: pages, port: 1}]}]\n",
            ("True/Accepted", "False/BackendNotFound"),
        ),
        (
            "TCPRoute",
            "  rules: [{backendRefs: [{name: p, kind: X, port: 1}]}]\n",
            ("True/Accepted", "False/InvalidKind"),
        ),
        (
            "TCPRoute",
            "  rules: [{backendRefs: [{name: ingress, namespace: istio-system, port: 80}]}]\n",
            ("True/Accepted", "False/RefNotPermitted"),
        ),
        (
            "UDPRoute",
            "  rules: [{backendRefs: [{name: dns, port: 53}]}]\n",
            ("False/NotAllowedByListeners", "True/ResolvedRefs"),
        ),
    ] {
        let snapshot = compiled(&[&world, DNS, &flow_route(kind, "r", spec)], &gateway());
        let (accepted, resolved) = verdict(&snapshot, kind, "r");
        assert_eq!((accepted.as_str(), resolved.as_str()), wanted, "{spec}");
        assert!(!snapshot.problems.is_empty(), "{spec}");
    }
    let twice =
        "  rules: [{backendRefs: [{name: pages, port: 9080}]}, {backendRefs: [{name: dns, port: 53}]}]\n";
    let snapshot = compiled(&[&world, DNS, &flow_route("TCPRoute", "r", twice)], &gateway());
    assert!(problems(&snapshot)[0].contains("the first takes every flow"), "{:?}", problems(&snapshot));
    let filtered =
        "  rules: [{backendRefs: [{name: pages, port: 9080, filters: [{type: CORS, cors: {}}]}]}]\n";
    let snapshot = compiled(&[&world, &flow_route("TCPRoute", "r", filtered)], &gateway());
    assert!(problems(&snapshot)[0].contains("has no filters"), "{:?}", problems(&snapshot));
    assert_eq!(verdict(&snapshot, "TCPRoute", "r").0, "False/UnsupportedValue");
}

#[test]
fn a_route_that_names_the_gateway_twice_is_attached_once() {
    let world = world("    - {name: t, port: 9, protocol: TCP, ALL}");
    let route = flow_route("TCPRoute", "r", "  rules: [{backendRefs: [{name: pages, port: 9080}]}]\n")
        .replace(
            "[{name: gw, namespace: edge}]",
            "[{name: gw, namespace: edge}, {name: gw, namespace: edge, port: 9}]",
        );
    let snapshot = compiled(&[&world, &route], &gateway());
    assert_eq!(listener(&snapshot, 0)["attachedRoutes"], 1);
    assert_eq!(served(&snapshot).len(), 1);
}

#[test]
fn in_front_of_an_ingress_bytes_go_on_as_they_are_and_tls_ends_behind() {
    let world = world(
        "    - {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}, ALL}
    - {name: dns, port: 53, protocol: UDP, ALL}",
    )
    .replace(
        "spec: {selector: {app: ingress}, ports: [{name: http, port: 80}]}",
        "spec: {selector: {app: ingress}, ports: [{name: tls, port: 443}, {name: dns, port: 53, protocol: UDP}]}",
    );
    let routes = [
        flow_route(
            "TLSRoute",
            "s",
            "  hostnames: [a.example]\n  rules: [{backendRefs: [{name: pages, port: 9080}]}]\n",
        ),
        flow_route("UDPRoute", "u", "  rules: [{backendRefs: [{name: dns, port: 53}]}]\n"),
    ];
    let texts = [&*world, DNS, &routes[0], &routes[1]];
    let front = compiled(&texts, &in_scenario(Scenario::Ingress, gateway()));
    assert_eq!(
        served(&front),
        [
            "stream none 0.0.0.0:443: edge/gw/tls#ingress [] -> istio-system/ingress:443 10.0.3.1:443 plaintext",
            "datagram - 0.0.0.0:53: edge/gw/dns#ingress [] -> istio-system/ingress:53 10.0.3.1:53 plaintext",
        ]
    );
    let ingress = Options { has_identity: true, ..Options::new(Role::Ingress) };
    let behind = compiled(&texts, &in_scenario(Scenario::Ingress, ingress));
    let lines = served(&behind);
    assert!(
        lines.iter().any(|line| line.starts_with("stream passthrough 0.0.0.0:443: shop/s#0")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.starts_with("datagram - 0.0.0.0:53: shop/u#0")), "{lines:?}");
}

#[test]
fn over_an_attached_sidecar_connections_are_refused_and_not_sent_another_way() {
    let world = world("    - {name: t, port: 9, protocol: TCP, ALL}");
    let route = flow_route("TCPRoute", "r", "  rules: [{backendRefs: [{name: pages, port: 9080}]}]\n");
    let snapshot = compiled(&[&world, &route], &in_scenario(Scenario::Attached, gateway()));
    assert_eq!(verdict(&snapshot, "TCPRoute", "r").1, "False/UnsupportedProtocol");
    assert_eq!(served(&snapshot), ["stream none 0.0.0.0:9: shop/r#0 [] -> shop/pages:9080 - -"]);
}

#[test]
fn endpoints_that_stay_keep_their_counts() {
    let world = world("    - {name: t, port: 9, protocol: TCP, ALL}");
    let route = flow_route("TCPRoute", "r", "  rules: [{backendRefs: [{name: pages, port: 9080}]}]\n");
    let source = source(&[&world, &route]);
    let first = compile(&source, &gateway(), None);
    let second = compile(&source, &gateway(), Some(&first));
    let endpoint = |snapshot: &Snapshot| {
        let towpath_config::Duty::Stream { routes, .. } = &snapshot.listeners[0].duty else {
            panic!("a stream")
        };
        routes[0].routes[0].backends[0].backend.endpoints().unwrap()[0].clone()
    };
    assert!(std::sync::Arc::ptr_eq(&endpoint(&first), &endpoint(&second)));
}

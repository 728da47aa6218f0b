//! One directory under the four words: four snapshots side by side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, endpoints, in_scenario, problems, route, rule};
use serde_json::{Value, json};
use towpath_config::{Options, Role, Scenario, Snapshot};

const RULES: &str = "
    - name: page
      matches: [{path: {value: /page}}]
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: b}]}}]
      timeouts: {request: 3s}
      retry: {attempts: 2, codes: [503]}
      backendRefs: [{name: pages, port: 9080}]
    - name: moved
      matches: [{path: {value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]
    - name: plain
      matches: [{path: {value: /plain}}]
      backendRefs: [{name: plain, port: 80}]
";

const POLICIES: &str = "
apiVersion: towpath.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: shop}
spec: {apiKeys: [{sha256: 0572c17ed012b3efdf9df98db1718f225887132739b8da945d81ac5a7d1fea45}]}
---
apiVersion: towpath.dev/v1alpha1
kind: ApiKeyPolicy
metadata: {name: keys, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: page}]}
---
apiVersion: towpath.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limit, namespace: edge}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}], requests: 5, period: 1m}
";

const MAP: &str = "edge/gw:80=127.0.0.1:8080,shop/pages:9080=127.0.0.1:15001,shop/plain:80=127.0.0.1:15002";

fn world(role: Role, scenario: Scenario, has_identity: bool) -> Snapshot {
    let options = Options { has_identity, port_map: Some(MAP.parse().unwrap()), ..Options::new(role) };
    compiled(&[WORLD, &route("web", RULES), POLICIES], &in_scenario(scenario, options))
}

fn policies(rule: &Value) -> Vec<String> {
    rule["policies"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

const PAGES: &str = "10.0.0.1:15006 mtls spiffe://cluster.local/ns/shop/sa/pages east";
const PLAIN: &str = "10.0.2.1:8000 plaintext - ";

#[test]
fn every_word_opens_the_same_listener_for_clients() {
    for scenario in Scenario::ALL {
        let snapshot = world(Role::Gateway, scenario, true);
        let listeners: Vec<_> =
            snapshot.listeners.iter().map(|l| (&*l.name, l.address.to_string())).collect();
        assert_eq!(listeners, [("edge/gw:80", "127.0.0.1:8080".to_owned())], "{scenario}");
        assert_eq!(snapshot.scenario, scenario);
        assert!(!snapshot.has_errors(), "{scenario}: {:?}", problems(&snapshot));
    }
}

#[test]
fn the_gateway_sends_where_its_scenario_says() {
    for (scenario, page, plain) in [
        (Scenario::GatewayApi, PAGES, PLAIN),
        (Scenario::InCluster, PAGES, PLAIN),
        (Scenario::Attached, "127.0.0.1:15001 plaintext - ", "127.0.0.1:15002 plaintext - "),
        (Scenario::Ingress, "10.0.3.1:80 plaintext - ", "10.0.3.1:80 plaintext - "),
    ] {
        let snapshot = world(Role::Gateway, scenario, true);
        assert_eq!(endpoints(&rule(&snapshot, "shop/web#page")), [page], "{scenario}");
        assert_eq!(endpoints(&rule(&snapshot, "shop/web#plain")), [plain], "{scenario}");
    }
}

#[test]
fn a_rule_is_carried_out_once_between_gateway_and_ingress() {
    let whole = ["apiKeys", "rateLimit", "retry", "timeouts"];
    for scenario in [Scenario::GatewayApi, Scenario::InCluster, Scenario::Attached] {
        let page = rule(&world(Role::Gateway, scenario, true), "shop/web#page");
        assert_eq!(
            (page["filters"].clone(), policies(&page)),
            (json!(["requestHeaders"]), whole.map(String::from).to_vec())
        );
    }
    let front = world(Role::Gateway, Scenario::Ingress, true);
    let page = rule(&front, "shop/web#page");
    assert_eq!(
        (page["filters"].clone(), policies(&page)),
        (json!([]), ["apiKeys", "rateLimit", "timeouts"].map(String::from).to_vec())
    );
    assert_eq!(rule(&front, "shop/web#moved")["filters"], json!(["redirect"]));

    let behind = world(Role::Ingress, Scenario::Ingress, true);
    let page = rule(&behind, "shop/web#page");
    assert_eq!(
        (page["filters"].clone(), policies(&page)),
        (json!(["requestHeaders"]), ["retry", "timeouts"].map(String::from).to_vec())
    );
    assert_eq!(endpoints(&page), [PAGES]);
    assert_eq!(rule(&behind, "shop/web#moved"), Value::Null);
    assert_eq!(policies(&rule(&behind, "shop/web#plain")), Vec::<String>::new());
}

#[test]
fn there_is_an_ingress_in_one_scenario_only() {
    for scenario in [Scenario::GatewayApi, Scenario::InCluster, Scenario::Attached] {
        let snapshot = world(Role::Ingress, scenario, true);
        assert!(snapshot.listeners.is_empty(), "{scenario}");
        let message = format!("there is an ingress in the scenario `ingress` only; this is `{scenario}`");
        assert!(snapshot.errors().any(|problem| problem.message == message), "{:?}", problems(&snapshot));
    }
}

#[test]
fn without_identity_no_plaintext_goes_to_the_mesh_unless_the_scenario_has_it() {
    for (scenario, page) in [
        (Scenario::GatewayApi, None),
        (Scenario::InCluster, Some("10.0.0.1:15006 plaintext - east")),
        (Scenario::Attached, Some("127.0.0.1:15001 plaintext - ")),
    ] {
        let snapshot = world(Role::Gateway, scenario, false);
        let page = page.into_iter().map(String::from).collect::<Vec<_>>();
        assert_eq!(endpoints(&rule(&snapshot, "shop/web#page")), page, "{scenario}");
        assert_eq!(snapshot.has_errors(), scenario == Scenario::GatewayApi, "{:?}", problems(&snapshot));
    }
    let left_out = world(Role::Gateway, Scenario::GatewayApi, false);
    let error = left_out.errors().next().unwrap();
    assert!(error.message.contains("no identity of the mesh: they are left out"), "{error}");
    assert_eq!(error.suggestion.as_deref(), Some("give --identity"));
}

#[test]
fn a_strict_workload_is_left_out_and_its_policy_named() {
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: all, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    let options = in_scenario(Scenario::InCluster, Options::new(Role::Gateway));
    let snapshot = compiled(&[WORLD, &route("web", RULES), strict], &options);
    assert_eq!(endpoints(&rule(&snapshot, "shop/web#page")), Vec::<String>::new());
    assert!(
        snapshot.errors().any(|p| p.message.contains("PeerAuthentication shop/all")),
        "{:?}",
        problems(&snapshot)
    );
    assert_eq!(endpoints(&rule(&snapshot, "shop/web#plain")), [PLAIN]);
}

#[test]
fn every_plaintext_hop_is_reported() {
    let hops = |role, scenario, identity| {
        let snapshot = world(role, scenario, identity);
        snapshot.plaintext_hops.iter().map(|hop| format!("{} -> {}", hop.from, hop.to)).collect::<Vec<_>>()
    };
    let (pages, plain) = ("edge/gw:80 -> shop/pages:9080", "edge/gw:80 -> shop/plain:80");
    assert_eq!(hops(Role::Gateway, Scenario::GatewayApi, true), [plain]);
    assert_eq!(hops(Role::Gateway, Scenario::InCluster, true), [plain]);
    assert_eq!(hops(Role::Gateway, Scenario::InCluster, false), [pages, plain]);
    assert_eq!(hops(Role::Gateway, Scenario::Attached, false), Vec::<String>::new());
    assert_eq!(hops(Role::Gateway, Scenario::Ingress, true), ["edge/gw:80 -> istio-system/ingress:80"]);
    assert_eq!(hops(Role::Ingress, Scenario::Ingress, true), [plain]);
}

#[test]
fn an_ingress_of_the_mesh_is_reached_by_mtls() {
    let world =
        WORLD.replace("labels: {app: ingress}", "labels: {app: ingress, security.istio.io/tlsMode: istio}");
    let options =
        in_scenario(Scenario::Ingress, Options { has_identity: true, ..Options::new(Role::Gateway) });
    let snapshot = compiled(&[&world, &route("web", RULES)], &options);
    assert_eq!(
        endpoints(&rule(&snapshot, "shop/web#page")),
        ["10.0.3.1:80 mtls spiffe://cluster.local/ns/istio-system/sa/default "]
    );
    assert!(snapshot.plaintext_hops.is_empty());
}

#[test]
fn the_attached_sidecar_must_have_a_listener() {
    let options = in_scenario(Scenario::Attached, Options::new(Role::Gateway));
    let snapshot = compiled(&[WORLD, &route("web", RULES)], &options);
    assert_eq!(endpoints(&rule(&snapshot, "shop/web#page")), Vec::<String>::new());
    let advice: Vec<_> = snapshot.errors().filter_map(|problem| problem.suggestion.clone()).collect();
    assert_eq!(
        advice,
        [
            "add shop/pages:9080=ADDRESS:PORT to the port map",
            "add shop/plain:80=ADDRESS:PORT to the port map"
        ]
    );
}

#[test]
fn behind_the_gateway_plaintext_carries_every_listener() {
    let https_only = WORLD.replace(
        "{name: http, port: 80, protocol: HTTP,",
        "{name: https, port: 443, protocol: HTTPS, hostname: a.example,",
    );
    let options = in_scenario(Scenario::Ingress, Options::new(Role::Ingress));
    let options = Options { port_map: Some("edge/gw:80=127.0.0.1:8080".parse().unwrap()), ..options };
    let snapshot = compiled(&[&https_only, &route("web", RULES)], &options);
    assert_eq!(snapshot.listeners.len(), 1);
    assert_eq!(
        snapshot.to_json()["listeners"][0]["routes"][0]["routes"][0]["hostnames"],
        json!(["a.example"])
    );
}

#[test]
fn the_word_of_the_mesh_resource_holds_unless_it_is_overridden() {
    let mesh = "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {scenario: in-cluster, trustDomain: td.example, rootNamespace: sys, ingress: {service: a/b}}\n";
    let snapshot = compiled(&[mesh], &Options::new(Role::Gateway));
    assert_eq!((snapshot.scenario, &*snapshot.mesh.root_namespace), (Scenario::InCluster, "sys"));
    assert_eq!(snapshot.mesh.trust_domain.as_str(), "td.example");
    let overridden = compiled(&[mesh], &in_scenario(Scenario::Attached, Options::new(Role::Gateway)));
    assert_eq!(overridden.scenario, Scenario::Attached);
    assert_eq!(compiled(&[], &Options::new(Role::Gateway)).scenario, Scenario::GatewayApi);
}

#[test]
fn nothing_is_served_by_a_mesh_resource_that_cannot_be_read() {
    let mesh =
        "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {scenario: sidecarless}\n";
    let snapshot = compiled(&[WORLD, mesh], &Options::new(Role::Gateway));
    assert!(snapshot.listeners.is_empty());
    assert_eq!(
        problems(&snapshot),
        [
            "error: 1.yaml:4:18: Mesh m: unknown scenario `sidecarless`: it is one of ingress, in-cluster, attached, gateway-api"
        ]
    );
}

#[test]
fn a_listener_through_which_keys_are_passed_by_is_reported() {
    let two = WORLD.replace(
        "allowedRoutes: {namespaces: {from: All}}}",
        "allowedRoutes: {namespaces: {from: All}}}\n    - {name: inner, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}",
    );
    let at = |name: &str, listener: &str, rules: &str| {
        route(name, rules).replace("namespace: edge}", &format!("namespace: edge, sectionName: {listener}}}"))
    };
    let guarded = at("web", "http", RULES);
    let (forwarding, redirecting) = (
        "[{backendRefs: [{name: pages, port: 9080}]}]",
        "[{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]",
    );
    let by_gateway = POLICIES.split("---").last().unwrap();
    let options = in_scenario(Scenario::Ingress, common::gateway());
    let snapshot = compiled(&[&two, &guarded, &at("open", "inner", forwarding), by_gateway], &options);
    assert!(!snapshot.has_errors(), "a limit of the whole Gateway holds at both: {:?}", problems(&snapshot));
    for (scenario, rules, reported) in [
        (Scenario::Ingress, forwarding, 1),
        (Scenario::Ingress, redirecting, 0),
        (Scenario::InCluster, forwarding, 0),
    ] {
        let options = in_scenario(scenario, common::gateway());
        let snapshot = compiled(&[&two, &guarded, &at("open", "inner", rules), POLICIES], &options);
        let found = problems(&snapshot)
            .iter()
            .filter(|p| p.contains("listener `inner`") && p.contains("HTTPRoute shop/web"))
            .count();
        assert_eq!(found, reported, "{scenario} {rules}: {:?}", problems(&snapshot));
    }
}

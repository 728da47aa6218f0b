//! East-west: what a sidecar takes in and sends out, and who may do what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, condition, endpoints, in_scenario, problems, route, rule, sidecar, status};
use serde_json::{Value, json};
use towpath_config::{Options, Scenario, Snapshot};

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    let created = if name == "old" { ", creationTimestamp: '2020-01-01T00:00:00Z'" } else { "" };
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}{created}}}\nspec: {spec}\n---\n"
    )
}

fn inbound(snapshot: &Snapshot) -> Value {
    snapshot.to_json()["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["duty"] == "inbound")
        .cloned()
        .unwrap_or(Value::Null)
}

#[test]
fn the_most_specific_peer_authentication_decides() {
    let (strict, permissive, disable, unset) = (
        "{mtls: {mode: STRICT}}",
        "{mtls: {mode: PERMISSIVE}}",
        "{mtls: {mode: DISABLE}}",
        "{mtls: {mode: UNSET}}",
    );
    let chosen =
        |mode: &str| format!("{{selector: {{matchLabels: {{app: pages}}}}, mtls: {{mode: {mode}}}}}");
    let port = "{selector: {matchLabels: {app: pages}}, mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: DISABLE}}}";
    let other_port = "{selector: {matchLabels: {app: pages}}, portLevelMtls: {'8080': {mode: DISABLE}}}";
    let unset_port =
        "{selector: {matchLabels: {app: pages}}, mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: UNSET}}}";
    for (policies, expected) in [
        (vec![], "PERMISSIVE"),
        (vec![peer("a", "istio-system", strict)], "STRICT"),
        (vec![peer("a", "istio-system", strict), peer("b", "shop", permissive)], "PERMISSIVE"),
        (vec![peer("a", "istio-system", strict), peer("b", "shop", unset)], "STRICT"),
        (vec![peer("a", "other", strict)], "PERMISSIVE"),
        (vec![peer("a", "shop", strict), peer("b", "shop", &chosen("PERMISSIVE"))], "PERMISSIVE"),
        (vec![peer("a", "shop", strict), peer("b", "shop", &chosen("UNSET"))], "STRICT"),
        (vec![peer("a", "istio-system", &chosen("STRICT"))], "PERMISSIVE"),
        (vec![peer("a", "shop", port)], "DISABLE"),
        (vec![peer("a", "shop", &port.replace("9080", "'09080'"))], "DISABLE"),
        (vec![peer("a", "shop", strict), peer("b", "shop", other_port)], "STRICT"),
        (vec![peer("b", "shop", unset_port)], "STRICT"),
        (vec![peer("b", "shop", "{mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: DISABLE}}}")], "STRICT"),
        (vec![peer("a", "shop", disable), peer("old", "shop", strict)], "STRICT"),
    ] {
        let snapshot = compiled(&[WORLD, &policies.concat()], &sidecar("shop/pages-0", ""));
        assert_eq!(inbound(&snapshot)["mode"], expected, "{policies:?} {:?}", problems(&snapshot));
    }
}

#[test]
fn a_peer_authentication_that_is_for_nobody_is_told_of() {
    let chosen = "{selector: {matchLabels: {app: pages}}, mtls: {mode: STRICT}}";
    let port = "{mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: DISABLE}}}";
    for (policy, expected) in [
        (peer("a", "istio-system", chosen), Some("in the root namespace a `selector` is for no workload")),
        (peer("a", "shop", chosen), None),
        (peer("a", "istio-system", port), Some("`portLevelMtls` holds for no port")),
        (peer("a", "shop", port), Some("`portLevelMtls` holds for no port")),
        (peer("a", "shop", "{selector: {}, mtls: {mode: STRICT}}"), None),
    ] {
        let snapshot = compiled(&[WORLD, &policy], &sidecar("shop/pages-0", ""));
        let told =
            snapshot.problems.iter().find(|problem| problem.to_string().contains("PeerAuthentication"));
        match (told, expected) {
            (Some(problem), Some(expected)) => {
                assert!(problem.message.starts_with(expected), "{policy} {problem}");
                assert_eq!(problem.severity, towpath_config::Severity::Warning);
            }
            (told, expected) => assert!(told.is_none() && expected.is_none(), "{policy} {told:?}"),
        }
    }
}

#[test]
fn the_default_is_the_strictest_that_the_scenario_can_bear() {
    let mesh = "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\n";
    let front = route("web", "[{backendRefs: [{name: pages, port: 9080}]}]");
    for scenario in Scenario::ALL {
        let mode = |texts: &[&str], workload: &str| {
            inbound(&compiled(texts, &in_scenario(scenario, sidecar(workload, ""))))["mode"].clone()
        };
        let behind_the_edge = if scenario == Scenario::InCluster { "PERMISSIVE" } else { "STRICT" };
        assert_eq!(mode(&[WORLD, &front], "shop/pages-0"), "PERMISSIVE", "without a Mesh, as in Istio");
        assert_eq!(mode(&[WORLD, mesh, &front], "shop/pages-0"), behind_the_edge, "{scenario}");
        assert_eq!(mode(&[WORLD, mesh, &front], "shop/ratings-vm"), "STRICT", "{scenario}");
        let asked = peer("a", "shop", "{mtls: {mode: PERMISSIVE}}");
        assert_eq!(mode(&[WORLD, mesh, &asked], "shop/ratings-vm"), "PERMISSIVE", "{scenario}");
    }
}

#[test]
fn a_peer_authentication_that_cannot_be_read_counts_as_strict() {
    let snapshot =
        compiled(&[WORLD, &peer("a", "shop", "{mtls: {mode: STRIKT}}")], &sidecar("shop/pages-0", ""));
    assert_eq!(inbound(&snapshot)["mode"], "STRICT");
}

#[test]
fn a_port_is_a_number_and_there_once() {
    for (ports, expected) in [
        (
            "{9080: {mode: DISABLE}, '09080': {mode: STRICT}}",
            "1.yaml:4:62: PeerAuthentication shop/a: port 9080 is in portLevelMtls twice",
        ),
        (
            "{'+80': {mode: DISABLE}}",
            "1.yaml:4:62: PeerAuthentication shop/a: `+80` in portLevelMtls is not a port",
        ),
        (
            "{70000: {mode: DISABLE}}",
            "1.yaml:4:62: PeerAuthentication shop/a: `70000` in portLevelMtls is not a port",
        ),
        (
            "{http: {mode: DISABLE}}",
            "1.yaml:4:62: PeerAuthentication shop/a: `http` in portLevelMtls is not a port",
        ),
    ] {
        let spec = format!("{{selector: {{matchLabels: {{app: pages}}}}, portLevelMtls: {ports}}}");
        let snapshot = compiled(&[WORLD, &peer("a", "shop", &spec)], &sidecar("shop/pages-0", ""));
        assert_eq!(inbound(&snapshot)["mode"], "STRICT", "{ports}");
        let found = problems(&snapshot);
        assert!(found[0].starts_with(&format!("error: {expected}")), "{found:?}");
    }
}

#[test]
fn without_identity_only_what_may_be_plaintext_is_let_in() {
    let options = Options { has_identity: false, ..sidecar("shop/pages-0", "") };
    assert_eq!(inbound(&compiled(&[WORLD], &options))["mode"], "DISABLE");
    let strict = compiled(&[WORLD, &peer("a", "shop", "{mtls: {mode: STRICT}}")], &options);
    // STRICT without a credential lets nothing in, which is what the policy asks for.
    assert_eq!(inbound(&strict)["mode"], "STRICT");
    assert!(
        strict
            .errors()
            .any(|p| p.message.starts_with("PeerAuthentication shop/a asks for STRICT at port 9080"))
    );
}

#[test]
fn a_workload_that_is_not_known_takes_nothing_in() {
    for options in [sidecar("shop/nobody", ""), Options { workload: None, ..sidecar("shop/nobody", "") }] {
        let snapshot = compiled(&[WORLD], &options);
        assert!(snapshot.listeners.is_empty() && snapshot.has_errors());
    }
}

#[test]
fn the_inbound_listener_leads_to_the_application() {
    let snapshot = compiled(&[WORLD], &sidecar("shop/pages-0", ""));
    assert_eq!(snapshot.identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/pages");
    let listener = inbound(&snapshot);
    assert_eq!((&listener["name"], &listener["address"]), (&json!("inbound:9080"), &json!("10.0.0.1:15006")));
    assert_eq!(listener["app"]["endpoints"][0]["address"], "127.0.0.1:9080");
    let vm = compiled(&[WORLD], &sidecar("shop/ratings-vm", ""));
    assert_eq!(vm.identity.unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/ratings");
    let h2 = WORLD.replace(
        "port: 9080, targetPort: 9080",
        "port: 9080, targetPort: 9080, appProtocol: kubernetes.io/h2c",
    );
    assert_eq!(
        inbound(&compiled(&[&h2], &sidecar("shop/pages-0", "")))["app"]["endpoints"][0]["protocol"],
        "http2"
    );
}

fn mesh_route(name: &str, namespace: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: pages, namespace: shop}}]\n  rules: {rules}\n---\n"
    )
}

const TO_RATINGS: &str = "[{backendRefs: [{name: ratings, namespace: shop, port: 9080}]}]";
const VM: &str = "10.0.1.1:15006 mtls spiffe://cluster.local/ns/shop/sa/ratings vm";

#[test]
fn without_routes_requests_go_straight_to_the_service() {
    let snapshot = compiled(
        &[WORLD],
        &sidecar("shop/pages-0", "shop/ratings:9080=127.0.0.1:15101,edge/gw:80=127.0.0.1:1"),
    );
    assert_eq!(endpoints(&rule(&snapshot, "shop/ratings#0")), [VM]);
    let json = snapshot.to_json();
    let outbound: Vec<_> =
        json["listeners"].as_array().unwrap().iter().filter(|l| l["duty"] == "outbound").collect();
    assert_eq!(outbound.len(), 1);
    assert_eq!(
        (&outbound[0]["name"], &outbound[0]["address"]),
        (&json!("outbound:shop/ratings:9080"), &json!("127.0.0.1:15101"))
    );
    assert_eq!(outbound[0]["routes"][0]["hostname"], "*");
}

#[test]
fn routes_of_the_callers_namespace_beat_those_of_the_service() {
    let (own, foreign) =
        (mesh_route("own", "shop", TO_RATINGS), mesh_route("foreign", "edge", "[{name: x}]"));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: caller, namespace: edge}\n---\n";
    let texts = [WORLD, &own, &foreign, pod];
    let map = "shop/pages:9080=127.0.0.1:15101";
    let producer = compiled(&texts, &sidecar("shop/pages-0", map));
    assert_eq!(endpoints(&rule(&producer, "shop/own#0")), [VM]);
    assert_eq!(rule(&producer, "edge/foreign#x"), Value::Null);
    let consumer = compiled(&texts, &sidecar("edge/caller", map));
    assert_eq!(rule(&consumer, "shop/own#0"), Value::Null);
    assert_ne!(rule(&consumer, "edge/foreign#x"), Value::Null);
    let parents = &status(&consumer, "HTTPRoute", "foreign")["parents"];
    assert_eq!(condition(&parents[0]["conditions"], "Accepted"), "True/Accepted");
}

#[test]
fn a_route_for_one_port_leaves_the_others_alone() {
    let route = mesh_route("own", "shop", TO_RATINGS)
        .replace("namespace: shop}]\n  rules", "namespace: shop, port: 1}]\n  rules");
    let snapshot = compiled(&[WORLD, &route], &sidecar("shop/pages-0", "shop/pages:9080=127.0.0.1:15101"));
    assert_eq!(rule(&snapshot, "shop/own#0"), Value::Null);
    assert_ne!(rule(&snapshot, "shop/pages#0"), Value::Null);
}

#[test]
fn a_sidecar_without_identity_sends_no_plaintext_into_the_mesh() {
    let map = "shop/ratings:9080=127.0.0.1:15101,shop/plain:80=127.0.0.1:15102";
    let snapshot = compiled(&[WORLD], &Options { has_identity: false, ..sidecar("shop/pages-0", map) });
    assert_eq!(endpoints(&rule(&snapshot, "shop/ratings#0")), Vec::<String>::new());
    assert_eq!(endpoints(&rule(&snapshot, "shop/plain#0")), ["10.0.2.1:8000 plaintext - "]);
    let hops: Vec<_> = snapshot.plaintext_hops.iter().map(|hop| &*hop.to).collect();
    assert_eq!(hops, ["shop/plain:80"]);
    assert!(snapshot.has_errors());
}

#[test]
fn mtls_that_is_turned_off_is_plaintext_and_a_hop() {
    let texts = [WORLD, &peer("a", "shop", "{mtls: {mode: DISABLE}}")];
    let snapshot = compiled(&texts, &sidecar("shop/pages-0", "shop/ratings:9080=127.0.0.1:15101"));
    assert_eq!(endpoints(&rule(&snapshot, "shop/ratings#0")), ["10.0.1.1:15006 plaintext - vm"]);
    assert_eq!(snapshot.plaintext_hops.len(), 1);
}

#[test]
fn the_port_map_may_not_name_what_is_not_there() {
    let snapshot =
        compiled(&[WORLD], &sidecar("shop/pages-0", "shop/none:1=127.0.0.1:1,shop/pages:1=127.0.0.1:2"));
    assert_eq!(
        problems(&snapshot),
        [
            "error: the port map has shop/none:1: there is no Service shop/none",
            "error: the port map has shop/pages:1: Service shop/pages has no port 1"
        ]
    );
}

#[test]
fn the_oldest_version_of_tls_is_the_mesh_s() {
    for (spec, version) in [
        ("{}", Some("TLSv1.2")),
        ("{meshMTLS: {}}", Some("TLSv1.2")),
        ("{meshMTLS: {minProtocolVersion: TLS_AUTO}}", Some("TLSv1.2")),
        ("{meshMTLS: {minProtocolVersion: TLSV1_3}}", Some("TLSv1.3")),
        ("{meshMTLS: {minProtocolVersion: TLSV1_1}}", None),
    ] {
        let mesh = format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {spec}\n---\n"
        );
        let snapshot = compiled(&[WORLD, &mesh], &sidecar("shop/pages-0", ""));
        let told = problems(&snapshot);
        match version {
            Some(version) => assert_eq!(snapshot.mesh.min_tls_version.as_str(), version, "{spec} {told:?}"),
            None => {
                assert!(told.iter().any(|problem| problem.contains("unknown value `TLSV1_1`")), "{told:?}");
            }
        }
    }
}

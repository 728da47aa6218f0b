//! Listeners that others add to a Gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, condition, gateway, problems, route, status};
use towpath_config::Snapshot;

/// The world, whose Gateway takes listeners from these namespaces.
fn world(from: &str) -> String {
    WORLD.replace(
        "  gatewayClassName: towpath\n",
        &format!("  gatewayClassName: towpath\n  allowedListeners: {{namespaces: {from}}}\n"),
    )
}

fn set(name: &str, listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-0{}T00:00:00Z'}}\n\
         spec:\n  parentRef: {{name: gw, namespace: edge}}\n  listeners: {listeners}\n",
        name.len()
    )
}

fn set_condition(snapshot: &Snapshot, name: &str, kind: &str) -> String {
    condition(&status(snapshot, "ListenerSet", name)["conditions"], kind)
}

fn attached(snapshot: &Snapshot) -> serde_json::Value {
    status(snapshot, "Gateway", "gw")["attachedListenerSets"].clone()
}

const OWN: &str = "[{name: own, port: 8080, protocol: HTTP, hostname: set.example}]";
const PAGES: &str = "[{backendRefs: [{name: pages, port: 9080}]}]";

#[test]
fn a_gateway_takes_no_sets_unless_it_says_so() {
    for (from, accepted, count) in [
        ("{}", "False/NotAllowed", 0),
        ("{from: None}", "False/NotAllowed", 0),
        ("{from: Same}", "False/NotAllowed", 0),
        ("{from: All}", "True/Accepted", 1),
        (
            "{from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}",
            "True/Accepted",
            1,
        ),
        (
            "{from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: other}}}",
            "False/NotAllowed",
            0,
        ),
    ] {
        let snapshot = compiled(&[&world(from), &set("s", OWN)], &gateway());
        assert_eq!(set_condition(&snapshot, "s", "Accepted"), accepted, "{from}");
        assert_eq!(attached(&snapshot), count, "{from}");
    }
}

#[test]
fn routes_attach_to_the_set_they_name_and_to_no_other_listener() {
    let to_set = route("web", PAGES).replace("{name: gw, namespace: edge}", "{kind: ListenerSet, name: s}");
    let snapshot = compiled(&[&world("{from: All}"), &set("s", OWN), &to_set], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    let json = snapshot.to_json();
    let listeners: Vec<_> = json["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| (l["address"].as_str().unwrap(), l["routes"][0]["routes"].as_array().unwrap().len()))
        .collect();
    assert_eq!(listeners, [("0.0.0.0:80", 0), ("0.0.0.0:8080", 1)]);
    let parents = &status(&snapshot, "HTTPRoute", "web")["parents"];
    assert_eq!(
        (parents[0]["parentRef"]["kind"].as_str(), parents.as_array().unwrap().len()),
        (Some("ListenerSet"), 1)
    );
    let listeners = &status(&snapshot, "ListenerSet", "s")["listeners"];
    assert_eq!((&listeners[0]["name"], &listeners[0]["attachedRoutes"]), (&"own".into(), &1.into()));
}

#[test]
fn what_a_set_takes_by_default_is_of_its_own_namespace() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: far, namespace: edge}\n\
                spec:\n  parentRefs: [{kind: ListenerSet, name: s, namespace: shop}]\n  rules: [{}]\n";
    let snapshot = compiled(&[&world("{from: All}"), &set("s", OWN), text], &gateway());
    let parents = &status(&snapshot, "HTTPRoute", "far")["parents"];
    assert_eq!(condition(&parents[0]["conditions"], "Accepted"), "False/NotAllowedByListeners");
}

#[test]
fn listeners_that_were_there_before_win() {
    let one = set("s", "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]");
    let two = set("ss", "[{name: b, port: 81, protocol: HTTP}]");
    let three = set("sss", "[{name: c, port: 81, protocol: TCP}, {name: d, port: 82, protocol: HTTP}]");
    let snapshot = compiled(&[&world("{from: All}"), &two, &three, &one], &gateway());
    let listener = |set: &str, at: usize, kind: &str| {
        condition(&status(&snapshot, "ListenerSet", set)["listeners"][at]["conditions"], kind)
    };
    assert_eq!(
        listener("s", 0, "Conflicted"),
        "True/HostnameConflict",
        "the Gateway's own listener has the port"
    );
    assert_eq!(listener("s", 1, "Accepted"), "True/Accepted");
    assert_eq!(listener("ss", 0, "Accepted"), "False/HostnameConflict", "the older set has it");
    assert_eq!(set_condition(&snapshot, "ss", "Accepted"), "False/ListenersNotValid");
    assert_eq!(listener("sss", 0, "Accepted"), "False/ProtocolConflict");
    assert_eq!(
        (set_condition(&snapshot, "sss", "Programmed").as_str(), attached(&snapshot)),
        ("True/Programmed", 2.into())
    );
}

#[test]
fn a_set_without_its_gateway_is_reported_where_it_stands() {
    let text = set("s", OWN).replace("name: gw", "name: gv");
    let problems = problems(&compiled(&[&world("{from: All}"), &text], &gateway()));
    assert_eq!(problems, ["error: 1.yaml:5:21: ListenerSet shop/s: there is no Gateway edge/gv"]);
}

#[test]
fn a_gateway_that_asks_for_client_certificates_leaves_no_set_open() {
    let world = world("{from: All}").replace(
        "  gatewayClassName: towpath\n",
        "  gatewayClassName: towpath\n  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}\n",
    );
    let listeners = "[{name: own, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}]";
    let snapshot = compiled(&[&world, &set("s", listeners)], &gateway());
    let listener = &status(&snapshot, "ListenerSet", "s")["listeners"][0]["conditions"];
    assert_eq!(condition(listener, "Accepted"), "False/NoValidCACertificate");
    assert_eq!(set_condition(&snapshot, "s", "Accepted"), "False/ListenersNotValid");
    assert!(snapshot.listeners.iter().all(|listener| listener.address.port() != 8443));
}

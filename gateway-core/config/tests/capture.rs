//! Captured connections: which listeners a sidecar has for them, and what becomes of the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, problems, sidecar, status};
use serde_json::{Value, json};
use towpath_config::{Capture, Options, Snapshot};

fn captures(inbound: &[&str], outbound: &[&str]) -> Options {
    let parse = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
    let capture = Capture {
        inbound: parse(inbound),
        outbound: parse(outbound),
        application: "127.0.0.1".parse().unwrap(),
    };
    Options { capture: Some(capture), ..sidecar("shop/pages-0", "") }
}

fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: {name}}}\nspec: {spec}\n")
}

/// The listeners behind the sockets of this duty, of the first socket.
fn behind(snapshot: &Snapshot, duty: &str) -> Vec<Value> {
    let json = snapshot.to_json();
    let found = json["listeners"].as_array().unwrap().iter().find(|listener| listener["duty"] == duty);
    found.map(|listener| listener["listeners"].as_array().unwrap().clone()).unwrap_or_default()
}

fn facts(listeners: &[Value], fields: [&str; 2]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    listeners.iter().map(|one| format!("{} {}", text(&one[fields[0]]), text(&one[fields[1]]))).collect()
}

#[test]
fn ports_that_somebody_named_are_taken_in_under_the_policies_that_hold_for_them() {
    let more = [
        service(
            "admin",
            "{selector: {app: pages}, ports: [{name: http, port: 80, targetPort: web}, {name: dns, port: 53, protocol: UDP}]}",
        ),
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: pages-0, namespace: shop, labels: {app: pages, \
         security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: pages, containers: [{ports: [{name: web, containerPort: \
         8081}, {containerPort: 8082}]}]}\n"
            .to_owned(),
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {namespace: shop, name: pages}\nspec: {selector: \
         {matchLabels: {app: pages}}, mtls: {mode: STRICT}, portLevelMtls: {9443: {mode: PERMISSIVE}}}\n"
            .to_owned(),
    ];
    let world = WORLD.replace(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: pages-0, namespace: shop, labels: {app: pages, security.istio.io/tlsMode: \
         istio}}\nspec: {serviceAccountName: pages}\n---\n",
        "",
    );
    let options = captures(&["0.0.0.0:15006", "[::]:15006"], &[]);
    let options = Options { has_identity: true, ..options };
    let snapshot = compiled(&[&world, &more.concat()], &options);
    let inside = behind(&snapshot, "captured inbound");
    let modes = facts(&inside, ["port", "mode"]);
    assert_eq!(
        modes,
        ["8081 STRICT", "8082 STRICT", "9080 STRICT", "9443 PERMISSIVE"],
        "{:?}",
        problems(&snapshot)
    );
    let sockets = snapshot.listeners.iter().map(|listener| format!("{} {}", listener.name, listener.address));
    assert_eq!(
        sockets.collect::<Vec<_>>(),
        ["inbound:9080 10.0.0.1:15006", "captured-inbound 0.0.0.0:15006", "captured-inbound [::]:15006"],
    );
    assert_eq!(inside[0]["app"]["endpoints"][0]["address"], "127.0.0.1:8081");
}

#[test]
fn services_are_reached_by_the_addresses_that_clients_use() {
    let more = [
        service(
            "both",
            "{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], selector: {app: pages}, ports: [{name: http, port: 80}, \
             {name: tcp, port: 81}, {port: 82}, {name: udp, port: 83, protocol: UDP}]}",
        ),
        service("each", "{clusterIP: None, selector: {app: ratings}, ports: [{name: http, port: 8080}]}"),
        service("elsewhere", "{type: ExternalName, clusterIP: 10.96.0.2, ports: [{port: 80}]}"),
        service("unaddressed", "{selector: {app: pages}, ports: [{port: 80}]}"),
    ];
    let options = captures(&[], &["127.0.0.1:15001"]);
    let snapshot = compiled(&[WORLD, &more.concat()], &options);
    let inside = behind(&snapshot, "captured outbound");
    let mut found = facts(&inside, ["address", "carries"]);
    found.sort();
    assert_eq!(
        found,
        [
            "10.0.1.1:15006 HTTP",
            "10.96.0.1:80 HTTP",
            "10.96.0.1:81 null",
            "10.96.0.1:82 HTTP or TCP, by the first bytes",
            "10.96.0.2:80 null",
            "[fd00::1]:80 HTTP",
            "[fd00::1]:81 null",
            "[fd00::1]:82 HTTP or TCP, by the first bytes",
        ],
    );
    let elsewhere = inside.iter().find(|listener| listener["address"] == "10.96.0.2:80").unwrap();
    assert_eq!(elsewhere["routes"], json!([]), "it must not pass as it is");
    assert!(problems(&snapshot).iter().any(|problem| problem.contains("ExternalName")));
}

#[test]
fn a_strict_mesh_lets_nothing_pass_that_it_does_not_know() {
    let mesh = |more: &str| {
        format!(
            "---\napiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{strict: true{more}}}\n"
        )
    };
    let options = Options { has_identity: true, ..captures(&[], &["127.0.0.1:15001"]) };
    let any = compiled(&[WORLD, &mesh("")], &options);
    assert!(any.not_strict().unwrap().contains("anywhere else"), "{:?}", any.not_strict());
    let known = compiled(&[WORLD, &mesh(", outboundTrafficPolicy: {mode: REGISTRY_ONLY}")], &options);
    assert_eq!(known.not_strict(), None);
    let unknown = compiled(&[WORLD, &mesh(", outboundTrafficPolicy: {mode: SOME}")], &options);
    assert!(
        problems(&unknown).iter().any(|problem| problem.contains("REGISTRY_ONLY")),
        "{:?}",
        problems(&unknown)
    );
}

fn flow_route(kind: &str, namespace: &str, name: &str, hostnames: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: \
         {{parentRefs: [{{group: '', kind: Service, namespace: shop, name: db, port: 5432}}]{hostnames}, rules: [{{backendRefs: \
         [{{name: ratings, namespace: shop, port: 9080}}]}}]}}\n"
    )
}

/// What an outbound listener for `db` is, and its routes.
fn outbound(routes: &[String]) -> (Value, Snapshot) {
    let db = service("db", "{selector: {app: ratings}, ports: [{port: 5432}]}");
    let options = sidecar("shop/pages-0", "shop/db:5432=127.0.0.1:15432");
    let snapshot = compiled(&[WORLD, &db, &routes.concat()], &options);
    let json = snapshot.to_json();
    let found =
        json["listeners"].as_array().unwrap().iter().find(|one| one["name"] == "outbound:shop/db:5432");
    (found.unwrap_or_else(|| panic!("{:?}", problems(&snapshot))).clone(), snapshot)
}

#[test]
fn routes_of_a_service_say_what_its_port_speaks() {
    let tcp = flow_route("TCPRoute", "shop", "tcp", "");
    let tls = flow_route("TLSRoute", "shop", "tls", ", hostnames: [a.example]");
    let foreign = flow_route("TCPRoute", "other", "foreign", "");
    let http = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {namespace: shop, name: http}\nspec: \
                {parentRefs: [{group: '', kind: Service, name: db}], rules: [{backendRefs: [{name: ratings, port: 9080}]}]}\n"
        .to_owned();
    let of = |routes: &[&String]| {
        let (listener, snapshot) = outbound(&routes.iter().map(|text| (*text).clone()).collect::<Vec<_>>());
        let names: Vec<_> = listener["routes"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|table| table["routes"].as_array().unwrap())
            .map(|route| route["name"].as_str().unwrap().to_owned())
            .collect();
        (format!("{} {}", listener["duty"].as_str().unwrap(), listener["tls"]), names.join(","), snapshot)
    };
    for (routes, expected) in [
        (vec![], ("outbound null", "shop/db")),
        (vec![&foreign], ("outbound null", "shop/db")),
        (vec![&tcp], ("stream \"none\"", "shop/tcp")),
        (vec![&tcp, &tls], ("stream \"passthrough\"", "shop/tls")),
        (vec![&tcp, &tls, &http], ("outbound null", "shop/http")),
    ] {
        let (duty, names, _) = of(&routes);
        assert_eq!((duty.as_str(), names.split('#').next().unwrap()), expected, "{routes:?}");
    }
    let (_, _, snapshot) = of(&[&tls]);
    let parents = status(&snapshot, "TLSRoute", "tls");
    assert_eq!(parents["parents"][0]["parentRef"]["kind"], "Service", "{parents}");
}

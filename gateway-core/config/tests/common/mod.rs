//! What the tests of the compiler share: short ways to a snapshot and into it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    missing_docs
)]

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::Value;
use towpath_config::{Options, Role, Scenario, Snapshot, Source, compile};

/// A mesh in miniature: a gateway, a service with one pod, another with a VM, and the ingress.
pub(crate) const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  gatewayClassName: towpath
  listeners:
    - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: v1
kind: Service
metadata: {name: pages, namespace: shop}
spec:
  selector: {app: pages}
  ports: [{name: http, port: 9080, targetPort: 9080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pages-1, namespace: shop, labels: {kubernetes.io/service-name: pages, topology.istio.io/cluster: east}}
addressType: IPv4
endpoints:
  - {addresses: [10.0.0.1], conditions: {ready: true}, zone: a, targetRef: {kind: Pod, name: pages-0}}
  - {addresses: [10.0.0.9], conditions: {ready: false}}
ports: [{name: http, port: 15006}]
---
apiVersion: v1
kind: Pod
metadata: {name: pages-0, namespace: shop, labels: {app: pages, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: pages}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: shop}
spec:
  selector: {app: ratings}
  ports: [{name: http, port: 9080, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ratings-vm, namespace: shop}
spec:
  address: 10.0.1.1
  ports: {http: 15006}
  labels: {app: ratings, security.istio.io/tlsMode: istio, topology.istio.io/cluster: vm}
  locality: r1/z1/s1
  weight: 3
  serviceAccount: ratings
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: plain-1, namespace: shop, labels: {kubernetes.io/service-name: plain}}
addressType: IPv4
endpoints: [{addresses: [10.0.2.1]}]
ports: [{name: '', port: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: istio-system}
spec: {selector: {app: ingress}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ingress-0, namespace: istio-system}
spec: {address: 10.0.3.1, labels: {app: ingress}}
";

/// A route of the world's gateway with these rules.
pub(crate) fn route(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  parentRefs: [{{name: gw, namespace: edge}}]\n  rules: {rules}\n"
    )
}

/// The sidecar of a workload that takes in port 9080.
pub(crate) fn sidecar(workload: &str, map: &str) -> Options {
    let inbound = vec!["9080=10.0.0.1:15006>127.0.0.1:9080".parse().unwrap()];
    Options {
        workload: Some(workload.parse().unwrap()),
        port_map: Some(map.parse().unwrap()),
        has_identity: true,
        ..Options::new(Role::Sidecar { inbound })
    }
}

/// A new authority, in PEM.
pub(crate) fn root() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// A `ConfigMap` with this under `ca.crt`.
pub(crate) fn authorities(namespace: &str, name: &str, text: &str) -> String {
    let text = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  ca.crt: |\n    {text}\n"
    )
}

/// A Secret with a certificate for `a.example` and its key.
pub(crate) fn certificate(namespace: &str, name: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    secret(namespace, name, &made.pem(), &key.serialize_pem())
}

/// A Secret with this certificate and key.
pub(crate) fn secret(namespace: &str, name: &str, certificate: &str, key: &str) -> String {
    let indented = |text: &str| text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
        indented(certificate),
        indented(key)
    )
}

pub(crate) fn source(texts: &[&str]) -> Source {
    Source::from_files(
        texts.iter().enumerate().map(|(i, text)| (format!("{i}.yaml"), (*text).to_owned())).collect(),
    )
}

pub(crate) fn gateway() -> Options {
    Options { has_identity: true, ..Options::new(Role::Gateway) }
}

pub(crate) fn in_scenario(scenario: Scenario, options: Options) -> Options {
    Options { scenario: Some(scenario), ..options }
}

pub(crate) fn compiled(texts: &[&str], options: &Options) -> Snapshot {
    compile(&source(texts), options, None)
}

/// Every finding as `check` prints it.
pub(crate) fn problems(snapshot: &Snapshot) -> Vec<String> {
    snapshot.problems.iter().map(ToString::to_string).collect()
}

/// The rule of this name, as `to_json` has it, wherever it is; nothing if there is none.
pub(crate) fn rule(snapshot: &Snapshot, name: &str) -> Value {
    let json = snapshot.to_json();
    let rules = json["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|l| l["routes"].as_array().into_iter().flatten());
    let rules = rules
        .flat_map(|table| table["routes"].as_array().unwrap())
        .flat_map(|r| r["rules"].as_array().unwrap());
    rules.into_iter().find(|rule| rule["name"] == name).cloned().unwrap_or(Value::Null)
}

/// The status of an object, as `to_json` has it.
pub(crate) fn status(snapshot: &Snapshot, kind: &str, name: &str) -> Value {
    let wanted = |item: &&Value| item["kind"] == kind && item["metadata"]["name"] == name;
    let items = serde_json::to_value(&snapshot.status).unwrap();
    items.as_array().unwrap().iter().find(wanted).map_or(Value::Null, |item| item["status"].clone())
}

/// `status/reason` of a condition.
pub(crate) fn condition(conditions: &Value, kind: &str) -> String {
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |c| {
        format!("{}/{}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap())
    })
}

/// `address transport identity cluster` of each endpoint of a rule's first backend.
pub(crate) fn endpoints(rule: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |e: &Value| {
        format!(
            "{} {} {} {}",
            text(&e["address"]),
            text(&e["transport"]),
            text(&e["identities"][0]),
            text(&e["cluster"])
        )
    };
    rule["backends"][0]["endpoints"].as_array().into_iter().flatten().map(line).collect()
}

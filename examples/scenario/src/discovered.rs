//! What a platform would write by itself: pods, endpoints, the VM's entry, and the edge certificate.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use towpath_config::Scenario;

use crate::plan::{Plan, Workload};

const RESOURCES: &[(&str, &str)] = &[
    ("mesh.yaml", include_str!("../resources/mesh.yaml")),
    ("gateway.yaml", include_str!("../resources/gateway.yaml")),
    ("routes.yaml", include_str!("../resources/routes.yaml")),
    ("services.yaml", include_str!("../resources/services.yaml")),
    ("policies.yaml", include_str!("../resources/policies.yaml")),
    ("api-management.yaml", include_str!("../resources/api-management.yaml")),
];

/// Writes the resources with the scenario's word in place, and what the platform adds to them.
/// `front` stands in for the first address behind the edge.
pub(crate) fn write(dir: &Path, plan: &Plan, front: SocketAddr, edge_secret: &Value) -> io::Result<()> {
    let config = dir.join("config");
    std::fs::create_dir_all(&config)?;
    for (name, text) in RESOURCES {
        let text = with_word(text, plan.scenario);
        std::fs::write(config.join(name), text)?;
    }
    let documents: Vec<_> = discovered(plan, front).iter().map(|object| format!("{object:#}\n")).collect();
    // JSON is YAML: one document each.
    std::fs::write(config.join("discovered.yaml"), documents.join("---\n"))?;
    let secrets = dir.join("edge-secrets");
    std::fs::create_dir_all(&secrets)?;
    std::fs::write(secrets.join("shop-tls.yaml"), format!("{edge_secret:#}\n"))
}

/// Lines of configuration that people wrote: neither blank nor comment, and how many of them hold the one word.
pub(crate) fn lines_of_configuration() -> usize {
    let counts =
        |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#') && line.trim() != "---";
    RESOURCES.iter().flat_map(|(_, text)| text.lines()).filter(counts).count()
}

/// Lines of configuration that are not the same in two scenarios.
pub(crate) fn lines_that_differ(one: Scenario, other: Scenario) -> usize {
    let pairs = RESOURCES.iter().map(|(_, text)| (with_word(text, one), with_word(text, other)));
    pairs.map(|(one, other)| one.lines().zip(other.lines()).filter(|(one, other)| one != other).count()).sum()
}

/// Lines beyond routes and policies that any scenario has: those of the `Mesh` resource.
pub(crate) fn lines_of_the_mesh() -> usize {
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    RESOURCES
        .iter()
        .filter(|(name, _)| *name == "mesh.yaml")
        .flat_map(|(_, text)| text.lines())
        .filter(counts)
        .count()
}

fn with_word(text: &str, scenario: Scenario) -> String {
    text.replace("scenario: attached", &format!("scenario: {scenario}"))
}

fn discovered(plan: &Plan, recorder: SocketAddr) -> Vec<Value> {
    let mut items =
        vec![pod("edge", "gateway-0", "gateway", &json!({"app": "gateway"}), &plan.gateway.ip().to_string())];
    if plan.has_ingress() {
        let labels = json!({"app": "ingress"});
        items.push(pod("mesh-system", "ingress-0", "ingress", &labels, &plan.ingress.ip().to_string()));
        let ports =
            json!([{"name": "http", "port": recorder.port()}, {"name": "https", "port": crate::plan::HTTPS}]);
        items.push(slice("mesh-system", "ingress", "ingress-0", "east", recorder, &ports));
    }
    for workload in &plan.workloads {
        let front = workload.pod == plan.front.pod && !plan.has_ingress();
        let address = if front { recorder } else { workload.inbound() };
        items.extend(of_workload(workload, address));
    }
    items
}

fn of_workload(workload: &Workload, address: SocketAddr) -> Vec<Value> {
    let labels = json!({
        "app": workload.app,
        "version": workload.version,
        "security.istio.io/tlsMode": "istio",
        "topology.istio.io/cluster": workload.cluster,
    });
    if workload.vm {
        return vec![json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"namespace": "bookshop", "name": workload.pod, "labels": labels},
            "spec": {
                "address": address.ip().to_string(),
                "ports": {"http": address.port()},
                "labels": labels,
                "serviceAccount": workload.app,
            },
        })];
    }
    let ports = json!([{"name": "http", "port": address.port()}]);
    let mut items =
        vec![pod("bookshop", workload.pod, workload.app, &labels, &workload.host.ip().to_string())];
    items.push(slice("bookshop", workload.app, workload.pod, workload.cluster, address, &ports));
    if workload.app == "reviews" {
        let service = format!("{}-{}", workload.app, workload.version);
        items.push(slice("bookshop", &service, workload.pod, workload.cluster, address, &ports));
    }
    items
}

fn pod(namespace: &str, name: &str, account: &str, labels: &Value, ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"serviceAccountName": account},
        "status": {"podIP": ip},
    })
}

fn slice(
    namespace: &str,
    service: &str,
    pod: &str,
    cluster: &str,
    address: SocketAddr,
    ports: &Value,
) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": format!("{service}-{pod}"),
            "labels": {"kubernetes.io/service-name": service, "topology.istio.io/cluster": cluster},
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [address.ip().to_string()],
            "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod},
        }],
        "ports": ports,
    })
}

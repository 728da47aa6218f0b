//! Destinations: hosts of Istio as Services, and subsets as Services of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::cursor::Cursor;
use super::input::{Input, Object, service};
use super::report::Report;
use super::tree::{Node, Value as Tree};
use crate::ObjectName;

/// Looks destinations up, and collects what they need to be there.
pub(super) struct Destinations<'a> {
    input: &'a Input,
    /// Services of subsets and grants of references, by kind and name.
    made: RefCell<BTreeMap<(&'static str, ObjectName), Value>>,
}

/// Where a Service has subsets.
struct Subset<'a> {
    labels: Map<String, Value>,
    of: &'a Object,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(input: &'a Input) -> Self {
        Self { input, made: RefCell::default() }
    }

    /// A reference of a route of this kind to what a `destination` names; `None` if it cannot be written, which is reported.
    pub(super) fn reference(&self, field: &Cursor<'_>, kind: &str) -> Option<Map<String, Value>> {
        let fields = field.fields();
        let own = &field.object().name.namespace;
        let host = fields.take("host")?;
        let subset = fields.take("subset");
        let port = fields.take("port").and_then(|port| {
            let fields = port.fields();
            fields.take("number").and_then(|number| number.port())
        });
        let Some(mut name) = service(host.text()?, own) else {
            host.lost("is not a Service of this cluster: the destination is left out");
            return None;
        };
        let port = self.port(&name, port, &host);
        if let Some(subset) = subset {
            name = self.subset(&name, subset.text()?, &subset)?;
        }
        let mut reference = Map::new();
        reference.insert("name".into(), (&*name.name).into());
        if name.namespace != *own {
            reference.insert("namespace".into(), (&*name.namespace).into());
            self.grant(kind, own, &name.namespace);
        }
        reference.insert("port".into(), port.into());
        Some(reference)
    }

    fn port(&self, name: &ObjectName, given: Option<u16>, host: &Cursor<'_>) -> u16 {
        if let Some(port) = given {
            return port;
        }
        let ports = self.input.services.get(name).map(ports).unwrap_or_default();
        match ports.as_slice() {
            [port] => *port,
            [first, ..] => {
                host.changed(format!("no port is named, and {name} has several: {first} is taken"));
                *first
            }
            [] => {
                host.changed(format!("no port is named, and {name} is not among the files: 80 is taken"));
                80
            }
        }
    }

    /// The Service of a subset, which is made here.
    fn subset(&self, name: &ObjectName, subset: &str, field: &Cursor<'_>) -> Option<ObjectName> {
        let Some(found) = self.find_subset(name, subset) else {
            field.lost(format!("no DestinationRule among the files has subset `{subset}` of {name}"));
            return None;
        };
        let Some(service) = self.input.services.get(name) else {
            field.lost(format!("{name} is not among the files: its subset cannot become a Service"));
            return None;
        };
        let spec = service.root.get("spec");
        let Some(Value::Object(mut selector)) = spec.and_then(|spec| spec.get("selector")).map(Node::to_json)
        else {
            field.lost(format!("{name} has no selector: its subset cannot become a Service"));
            return None;
        };
        selector.extend(found.labels);
        // Names of subsets are labels of any kind, and names of Services are of DNS.
        let label = subset.to_ascii_lowercase().replace(['.', '_'], "-");
        let made = ObjectName {
            namespace: Arc::clone(&name.namespace),
            name: format!("{}-{label}", name.name).into(),
        };
        if self.input.services.contains_key(&made) {
            field.changed(format!("the Service {made} is there already, and is taken for the subset"));
            return Some(made);
        }
        let mut ports = spec.and_then(|spec| spec.get("ports")).map_or(Value::Null, Node::to_json);
        // A port of the nodes is one Service's alone.
        for port in ports.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
        let value = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": &*made.name, "namespace": &*made.namespace},
            "spec": {"selector": selector, "ports": ports},
        });
        field.note(format!("the subset of {} becomes the Service {made}", found.of.label()));
        self.made.borrow_mut().insert(("Service", made.clone()), value);
        Some(made)
    }

    fn find_subset(&self, name: &ObjectName, subset: &str) -> Option<Subset<'a>> {
        self.input.destination_rules.iter().find_map(|rule| {
            let spec = rule.root.get("spec")?;
            let host = spec.get("host")?.text()?;
            if service(host, &rule.name.namespace).as_ref() != Some(name) {
                return None;
            }
            let Tree::List(subsets) = &spec.get("subsets")?.value else { return None };
            let found = subsets.iter().find(|one| one.get("name").and_then(Node::text) == Some(subset))?;
            let labels = match found.get("labels").map(Node::to_json) {
                Some(Value::Object(labels)) => labels,
                _ => Map::new(),
            };
            Some(Subset { labels, of: rule })
        })
    }

    /// Routes of a kind in `from` may refer to Services in `to`.
    fn grant(&self, kind: &str, from: &Arc<str>, to: &Arc<str>) {
        let name = ObjectName {
            namespace: Arc::clone(to),
            name: format!("{}s-from-{from}", kind.to_ascii_lowercase()).into(),
        };
        let value = json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": &*name.name, "namespace": &*name.namespace},
            "spec": {
                "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": &**from}],
                "to": [{"group": "", "kind": "Service"}],
            },
        });
        self.made.borrow_mut().insert(("ReferenceGrant", name), value);
    }

    /// What was made on the way.
    pub(super) fn into_objects(self) -> impl Iterator<Item = Value> {
        self.made.into_inner().into_values()
    }
}

fn ports(service: &Object) -> Vec<u16> {
    let ports = service.root.get("spec").and_then(|spec| spec.get("ports"));
    let Some(Tree::List(ports)) = ports.map(|ports| &ports.value) else { return Vec::new() };
    let number =
        |port: &Node| port.get("port").map(Node::to_json)?.as_u64().and_then(|port| port.try_into().ok());
    ports.iter().filter_map(number).collect()
}

/// Says of every field of a `DestinationRule` what becomes of it.
pub(super) fn read_rule(rule: &Object, report: &Report) {
    let Some(spec) = Cursor::spec(rule, report) else { return };
    let fields = spec.fields();
    let _ = fields.take("host");
    fields.skip("exportTo", "policies hold in their namespace");
    fields.refuse("workloadSelector", "there is nothing like it");
    if let Some(policy) = fields.take("trafficPolicy") {
        traffic_policy(&policy);
    }
    for subset in fields.take("subsets").iter().flat_map(Cursor::items) {
        let fields = subset.fields();
        let _ = (fields.take("name"), fields.take("labels"));
        if let Some(policy) = fields.take("trafficPolicy") {
            traffic_policy(&policy);
        }
    }
}

fn traffic_policy(policy: &Cursor<'_>) {
    let fields = policy.fields();
    if let Some(tls) = fields.take("tls") {
        let inner = tls.fields();
        match inner.take("mode").and_then(|mode| mode.text()) {
            Some("ISTIO_MUTUAL") => {
                tls.note("workloads of the mesh are spoken to by mTLS without it, as their PeerAuthentication asks");
            }
            Some("DISABLE") => tls.changed("workloads of the mesh are spoken to by mTLS all the same"),
            _ => tls.lost("write a BackendTLSPolicy: authorities are in a ConfigMap there, not in a file"),
        }
        // Said once, of the whole.
        for name in [
            "clientCertificate",
            "privateKey",
            "caCertificates",
            "credentialName",
            "subjectAltNames",
            "sni",
            "insecureSkipVerify",
            "caCrl",
        ] {
            let _ = inner.take(name);
        }
    }
    for (name, why) in [
        (
            "loadBalancer",
            "endpoints are chosen by the fewest requests in flight; sessions are `sessionPersistence` of rules",
        ),
        ("connectionPool", "limits of connections are the process's"),
        ("outlierDetection", "endpoints are as ready as their EndpointSlice says"),
        ("portLevelSettings", "settings by port are not carried over"),
        ("tunnel", "there is nothing like it"),
        ("proxyProtocol", "backends get no PROXY protocol"),
        ("retryBudget", "write an XBackendTrafficPolicy"),
    ] {
        fields.refuse(name, why);
    }
}

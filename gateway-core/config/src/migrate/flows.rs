//! Layer 4: `tls` and `tcp` sections as `TLSRoute`s and `TCPRoute`s.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::action::backends;
use super::cursor::{Cursor, Fields};
use super::destination::Destinations;
use super::input::Object;
use super::matches::gateway;
use super::virtual_service::MESH;

/// A gateway as the object names it, with the reference that routes have to it.
pub(super) type Parent = (String, Value);

/// The routes of both sections. Istio takes the first that fits: their names keep that order.
pub(super) fn migrate(
    object: &Object,
    fields: &Fields<'_>,
    parents: &[Parent],
    destinations: &Destinations<'_>,
) -> Vec<Value> {
    let mut routes = Vec::new();
    for (section, kind) in [("tls", "TLSRoute"), ("tcp", "TCPRoute")] {
        let Some(list) = fields.take(section) else { continue };
        if parents.is_empty() {
            list.lost(format!("routes of layer 4 are of gateways, and this object is of `{MESH}` alone"));
            continue;
        }
        for (number, rule) in list.items().iter().enumerate() {
            let fields = rule.fields();
            let backends = fields.take("route").map(|route| backends(&route, destinations, kind));
            let matches = match fields.take("match") {
                Some(list) if !list.items().is_empty() => {
                    list.items().iter().filter_map(|one| Wanted::read(one, kind)).collect()
                }
                _ => vec![Wanted::default()],
            };
            for (at, wanted) in matches.into_iter().enumerate() {
                let name = format!("{}-{section}-{number:03}-{at:03}", object.name.name);
                let parents = wanted.parents(parents);
                if parents.is_empty() {
                    continue;
                }
                let mut spec = Map::new();
                spec.insert("parentRefs".into(), parents.into());
                // `*` is every name, as none is.
                if !wanted.hostnames.is_empty() && !wanted.hostnames.iter().any(|name| name == "*") {
                    spec.insert("hostnames".into(), wanted.hostnames.into());
                }
                spec.insert("rules".into(), json!([{"backendRefs": backends.clone().unwrap_or_default()}]));
                routes.push(route(kind, &name, &object.name.namespace, spec));
            }
        }
    }
    routes
}

fn route(kind: &str, name: &str, namespace: &Arc<str>, spec: Map<String, Value>) -> Value {
    // In the versions that these kinds have in the Gateway API.
    let version = if kind == "TLSRoute" { "v1" } else { "v1alpha2" };
    json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": &**namespace},
        "spec": spec,
    })
}

/// Which flows a match takes.
#[derive(Default)]
struct Wanted {
    hostnames: Vec<String>,
    port: Option<u16>,
    gateways: Option<Vec<String>>,
}

impl Wanted {
    /// `None` if it cannot be written: it must not take what it did not take before.
    fn read(one: &Cursor<'_>, kind: &str) -> Option<Self> {
        let fields = one.fields();
        let mut whole = true;
        for name in ["destinationSubnets", "sourceSubnet", "sourceLabels", "sourceNamespace"] {
            whole &= !fields.refuse(name, "routes do not ask for it: the match is left out");
        }
        let texts = |list: Cursor<'_>| list.texts().into_iter().map(|(text, _)| text.to_owned()).collect();
        let hostnames = match kind {
            "TLSRoute" => fields.take("sniHosts").map(texts).unwrap_or_default(),
            _ => Vec::new(),
        };
        let port = fields.take("port").and_then(|port| port.port());
        let own = &one.object().name.namespace;
        let gateways = fields.take("gateways");
        let gateways = gateways.map(|list| list.texts().iter().map(|(text, _)| gateway(text, own)).collect());
        whole.then_some(Self { hostnames, port, gateways })
    }

    /// The gateways that it is for.
    fn parents(&self, all: &[Parent]) -> Vec<Value> {
        let wanted = |name: &String| self.gateways.as_ref().is_none_or(|list| list.contains(name));
        let parents = all.iter().filter(|(name, _)| wanted(name)).map(|(_, parent)| {
            let mut parent = parent.clone();
            if let Some(port) = self.port {
                crate::json::set(&mut parent, "port", port.into());
            }
            parent
        });
        parents.collect()
    }
}

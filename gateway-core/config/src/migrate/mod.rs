//! From Istio's `VirtualService` and `DestinationRule` to the Gateway API.
//!
//! A `VirtualService` takes the first match in its list and a route the most specific, so lists are rewritten until both
//! agree. Whatever is not carried over as it was written is named, field by field.

mod action;
mod condition;
mod cursor;
mod destination;
mod flows;
mod input;
mod matches;
mod order;
mod report;
mod strings;
mod tree;
mod virtual_service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use report::{Finding, Loss};
use serde_json::Value;

use self::destination::Destinations;
use self::input::Object;
use self::report::Report;
use self::tree::{Node, Value as Tree};
use crate::{Problem, Source};

/// What a migration makes of a directory.
#[derive(Debug, Default)]
pub struct Migration {
    /// The new objects, as Kubernetes has them. Those that were read are not among them.
    pub objects: Vec<Value>,
    /// What is not carried over as it was written, by its place.
    pub findings: Vec<Finding>,
    /// Documents that could not be read.
    pub problems: Vec<Problem>,
}

impl Migration {
    /// The new objects as documents of YAML.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        for object in &self.objects {
            if !text.is_empty() {
                text.push_str("---\n");
            }
            // A tree of texts and numbers can always be written; JSON is YAML as well.
            let written = serde_saphyr::to_string(object).unwrap_or_else(|_| format!("{object:#}\n"));
            text.push_str(written.trim_end());
            text.push('\n');
        }
        text
    }

    /// Whether something is not in the new objects at all.
    pub fn has_losses(&self) -> bool {
        self.findings.iter().any(|finding| finding.loss == Loss::Lost)
    }
}

/// Turns every `VirtualService` into routes and says of every field that is not carried over why not.
pub fn migrate(source: &Source) -> Migration {
    let mut migration = Migration::default();
    let input = input::read(source, &mut migration.problems);
    let (report, destinations) = (Report::default(), Destinations::new(&input));
    for object in &input.virtual_services {
        migration.objects.extend(virtual_service::migrate(object, &input, &destinations, &report));
    }
    input.destination_rules.iter().for_each(|rule| destination::read_rule(rule, &report));
    shared_hosts(&input.virtual_services, &report);
    unique_names(&mut migration.objects);
    migration.objects.extend(destinations.into_objects());
    migration.findings = report.into_findings();
    migration
}

/// Gives routes names of their own where two came to the same one.
fn unique_names(objects: &mut [Value]) {
    let mut known = BTreeSet::new();
    let field = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
    for object in
        objects.iter_mut().filter(|object| object.get("kind").is_some_and(|kind| kind == "HTTPRoute"))
    {
        let namespace = field(object, "/metadata/namespace").unwrap_or_default();
        let name = field(object, "/metadata/name").unwrap_or_default();
        let others = (2..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone())
            .chain(others)
            .find(|name| known.insert((namespace.clone(), name.clone())));
        if let (Some(free), Some(metadata)) = (free, object.get_mut("metadata")) {
            crate::json::set(metadata, "name", free.into());
        }
    }
}

/// Istio puts the rules of several objects for one host one after the other, the oldest first; routes are asked together.
fn shared_hosts(objects: &[Object], report: &Report) {
    let mut known: BTreeMap<(String, String), &Object> = BTreeMap::new();
    for object in objects {
        let texts = |field: &str| -> Vec<String> {
            let list = object.root.get("spec").and_then(|spec| spec.get(field)).map(|node| &node.value);
            let Some(Tree::List(items)) = list else { return Vec::new() };
            items.iter().filter_map(Node::text).map(str::to_owned).collect()
        };
        let mut gateways = texts("gateways");
        if gateways.is_empty() {
            gateways.push("mesh".to_owned());
        }
        for host in texts("hosts") {
            for gateway in &gateways {
                let whole = |name: &str| {
                    if name.contains('.') || name == "*" {
                        name.to_ascii_lowercase()
                    } else {
                        format!("{name}.{}.svc.cluster.local", object.name.namespace)
                    }
                };
                let gateway = if gateway.contains('/') || gateway == "mesh" {
                    gateway.clone()
                } else {
                    format!("{}/{gateway}", object.name.namespace)
                };
                let key = (whole(&host), gateway);
                if let Some(first) = known.get(&key) {
                    if std::ptr::eq(*first, object) {
                        continue;
                    }
                    report.add(Finding {
                        loss: Loss::Changed,
                        object: object.label().into(),
                        field: "spec.hosts".into(),
                        position: Some(object.place.at(Some(object.root.at))),
                        why: format!(
                            "`{host}` is in {} as well, and the rules of both are asked together: the most specific wins",
                            first.label()
                        ),
                    });
                } else {
                    known.insert(key, object);
                }
            }
        }
    }
}

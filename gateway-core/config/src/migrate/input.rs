//! The objects that a migration reads, and those that it looks things up in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tree::Node;
use crate::document::{Place, split};
use crate::kinds;
use crate::objects::label;
use crate::resources::meta::{Header, Named};
use crate::{ObjectName, Problem, Source};

/// An object with its place.
pub(super) struct Object {
    pub(super) kind: &'static str,
    pub(super) name: ObjectName,
    pub(super) created: i64,
    pub(super) place: Place,
    pub(super) root: Node,
}

impl Object {
    /// `Kind namespace/name`.
    pub(super) fn label(&self) -> String {
        label(self.kind, &self.name)
    }
}

/// What the files hold of the kinds that matter.
#[derive(Default)]
pub(super) struct Input {
    pub(super) virtual_services: Vec<Object>,
    pub(super) destination_rules: Vec<Object>,
    pub(super) services: BTreeMap<ObjectName, Object>,
    pub(super) istio_gateways: BTreeSet<ObjectName>,
    pub(super) gateways: BTreeSet<ObjectName>,
}

/// Reads every file; documents of other kinds are left alone, and broken ones are problems.
pub(super) fn read(source: &Source, problems: &mut Vec<Problem>) -> Input {
    let mut input = Input::default();
    for (file, text) in source.files() {
        for document in split(text) {
            let place = document.place(file);
            let Ok(header) = document.read::<Header>() else {
                problems.extend(document.read::<Header>().err().map(|defect| defect.problem(&place)));
                continue;
            };
            if header.kind.as_ref().is_some_and(|kind| kind.value == "List") {
                problems.push(kinds::list().at(place.at(header.kind.map(|kind| kind.referenced))));
                continue;
            }
            let Some(kind) = kind(&header) else { continue };
            let read = document.read::<Named>().and_then(|named| Ok((named, document.read::<Node>()?)));
            match read {
                Ok((named, root)) => input.put(kind, &named, place, root),
                Err(defect) => problems.push(defect.problem(&place).about(kind)),
            }
        }
    }
    input.virtual_services.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    input
}

const ISTIO_GATEWAY: &str = "Gateway (networking.istio.io)";

fn kind(header: &Header) -> Option<&'static str> {
    let version = header.api_version.as_ref()?.value.as_str();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, header.kind.as_ref()?.value.as_str()) {
        ("networking.istio.io", "VirtualService") => Some("VirtualService"),
        ("networking.istio.io", "DestinationRule") => Some("DestinationRule"),
        ("networking.istio.io", "Gateway") => Some(ISTIO_GATEWAY),
        ("gateway.networking.k8s.io", "Gateway") => Some("Gateway"),
        ("", "Service") => Some("Service"),
        _ => None,
    }
}

impl Input {
    fn put(&mut self, kind: &'static str, named: &Named, place: Place, root: Node) {
        let metadata = &named.metadata;
        let namespace: Arc<str> =
            metadata.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default").into();
        let name = ObjectName { namespace, name: metadata.name.value.as_str().into() };
        let created = metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0);
        match kind {
            "VirtualService" => {
                self.virtual_services.push(Object { kind, name, created, place, root });
            }
            "DestinationRule" => self.destination_rules.push(Object { kind, name, created, place, root }),
            "Service" => {
                self.services.entry(name.clone()).or_insert_with(|| Object {
                    kind,
                    name,
                    created,
                    place,
                    root,
                });
            }
            "Gateway" => drop(self.gateways.insert(name)),
            _ => drop(self.istio_gateways.insert(name)),
        }
    }
}

/// The Service that a host of Istio names: a short name in the object's own namespace, or `name.namespace.svc…`.
pub(super) fn service(host: &str, namespace: &Arc<str>) -> Option<ObjectName> {
    let mut labels = host.split('.');
    let name = labels.next().filter(|name| !name.is_empty() && !name.contains('*'))?;
    match (labels.next(), labels.next()) {
        (None, _) => Some(ObjectName { namespace: Arc::clone(namespace), name: name.into() }),
        (Some(namespace), Some("svc")) => Some(ObjectName { namespace: namespace.into(), name: name.into() }),
        _ => None,
    }
}

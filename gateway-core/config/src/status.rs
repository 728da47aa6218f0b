//! Status as Kubernetes writes it. `lastTransitionTime` is left to whoever writes it to a cluster: only they know what
//! was there before.

use serde_json::{Value, json};

use crate::json::set;
use crate::objects::{GATEWAY_GROUP, Refused, Stored};
use crate::resources::route::ParentRef;

/// The controller that status names if the command line gives no other.
pub(crate) const CONTROLLER: &str = "towpath.dev/gateway";

/// Why something does not hold: the word for its condition, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

pub(crate) type Verdict = Result<(), Refusal>;

/// A condition that is true unless refused.
pub(crate) fn condition(kind: &str, reason: &str, verdict: &Verdict, generation: Option<i64>) -> Value {
    match verdict {
        Ok(()) => given(kind, true, reason, "", generation),
        Err(refusal) => given(kind, false, refusal.reason, &refusal.message, generation),
    }
}

/// A condition as it is given.
pub(crate) fn given(kind: &str, holds: bool, reason: &str, message: &str, generation: Option<i64>) -> Value {
    json!({
        "type": kind,
        "status": if holds { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "observedGeneration": generation.unwrap_or(0),
    })
}

/// An object with its status.
pub(crate) fn item<S>(object: &Stored<S>, status: Value) -> Value {
    let name = (&*object.name.namespace, &*object.name.name);
    shell(&object.api_version, object.kind, name, object.generation, status)
}

fn shell(
    version: &str,
    kind: &str,
    (namespace, name): (&str, &str),
    generation: Option<i64>,
    status: Value,
) -> Value {
    let mut metadata = json!({ "name": name });
    if !namespace.is_empty() {
        set(&mut metadata, "namespace", namespace.into());
    }
    if let Some(generation) = generation {
        set(&mut metadata, "generation", generation.into());
    }
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "status": status})
}

/// What a route has from one of its parents.
pub(crate) fn parent(
    reference: &ParentRef,
    namespace: &str,
    controller: &str,
    (accepted, resolved): (&Verdict, &Verdict),
    generation: Option<i64>,
) -> Value {
    let mut parent_ref = json!({
        "group": reference.group.as_deref().unwrap_or(GATEWAY_GROUP),
        "kind": reference.kind.as_deref().unwrap_or("Gateway"),
        "namespace": reference.namespace.as_deref().unwrap_or(namespace),
        "name": reference.name.value,
    });
    if let Some(section) = &reference.section_name {
        set(&mut parent_ref, "sectionName", section.as_str().into());
    }
    if let Some(port) = reference.port {
        set(&mut parent_ref, "port", port.into());
    }
    let conditions = [
        condition("Accepted", "Accepted", accepted, generation),
        condition("ResolvedRefs", "ResolvedRefs", resolved, generation),
    ];
    json!({"parentRef": parent_ref, "controllerName": controller, "conditions": conditions})
}

/// The status of a route that could not be read.
pub(crate) fn refused_route(refused: &Refused, controller: &str) -> Value {
    let accepted = Err(Refusal::new("UnsupportedValue", refused.reason.clone()));
    let parents: Vec<_> = refused
        .parents
        .iter()
        .map(|reference| {
            parent(reference, &refused.name.namespace, controller, (&accepted, &Ok(())), refused.generation)
        })
        .collect();
    let name = (&*refused.name.namespace, &*refused.name.name);
    shell(&refused.api_version, refused.kind, name, refused.generation, json!({ "parents": parents }))
}

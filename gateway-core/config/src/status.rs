//! Status as Kubernetes writes it. `lastTransitionTime` is left to whoever writes it to a cluster: only they know what
//! was there before.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::ObjectName;
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

/// An object with its status, in Kubernetes form: `apiVersion`, `kind`, `metadata`, `status`. There is one for every route, so
/// it becomes JSON only where it is written.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    api_version: Arc<str>,
    kind: &'static str,
    metadata: Metadata,
    status: Body,
}

#[derive(Debug, Clone, Serialize)]
struct Metadata {
    name: Arc<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
}

/// What is under `status`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Body {
    Parents { parents: Vec<ParentStatus> },
    Other(Value),
}

/// What a route has from one of its parents.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentStatus {
    parent_ref: ParentName,
    controller_name: Arc<str>,
    conditions: [Condition; 2],
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ParentName {
    group: Cow<'static, str>,
    kind: Cow<'static, str>,
    namespace: Arc<str>,
    name: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// A condition of Kubernetes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
    observed_generation: i64,
}

/// A condition that is true unless refused.
pub(crate) fn condition(
    kind: &'static str,
    reason: &'static str,
    verdict: &Verdict,
    generation: Option<i64>,
) -> Condition {
    match verdict {
        Ok(()) => given(kind, true, reason, "", generation),
        Err(refusal) => given(kind, false, refusal.reason, &refusal.message, generation),
    }
}

/// A condition as it is given.
pub(crate) fn given(
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: &str,
    generation: Option<i64>,
) -> Condition {
    Condition {
        kind,
        status: if holds { "True" } else { "False" },
        reason,
        message: message.to_owned(),
        observed_generation: generation.unwrap_or(0),
    }
}

/// An object with its status.
pub(crate) fn item<S>(object: &Stored<S>, status: Body) -> ObjectStatus {
    let metadata = metadata(&object.name, object.generation);
    ObjectStatus { api_version: Arc::clone(&object.api_version), kind: object.kind, metadata, status }
}

fn metadata(name: &ObjectName, generation: Option<i64>) -> Metadata {
    Metadata { name: Arc::clone(&name.name), namespace: Arc::clone(&name.namespace), generation }
}

/// What a route in `namespace` has from one of its parents.
pub(crate) fn parent(
    reference: &ParentRef,
    namespace: &Arc<str>,
    controller: &Arc<str>,
    (accepted, resolved): (&Verdict, &Verdict),
    generation: Option<i64>,
) -> ParentStatus {
    let word =
        |given: Option<&str>, default| given.map_or(Cow::Borrowed(default), |word| word.to_owned().into());
    ParentStatus {
        parent_ref: ParentName {
            group: word(reference.group.as_deref(), GATEWAY_GROUP),
            kind: word(reference.kind.as_deref(), "Gateway"),
            namespace: reference.namespace.as_deref().map_or_else(|| Arc::clone(namespace), Arc::from),
            name: reference.name.value.as_str().into(),
            section_name: reference.section_name.clone(),
            port: reference.port,
        },
        controller_name: Arc::clone(controller),
        conditions: [
            condition("Accepted", "Accepted", accepted, generation),
            condition("ResolvedRefs", "ResolvedRefs", resolved, generation),
        ],
    }
}

/// The status of a route that could not be read.
pub(crate) fn refused_route(refused: &Refused, controller: &Arc<str>) -> ObjectStatus {
    let accepted = Err(Refusal::new("UnsupportedValue", refused.reason.clone()));
    let (verdicts, generation) = ((&accepted, &Ok(())), refused.generation);
    let parents = refused
        .parents
        .iter()
        .map(|reference| parent(reference, &refused.name.namespace, controller, verdicts, generation))
        .collect();
    ObjectStatus {
        api_version: Arc::clone(&refused.api_version),
        kind: refused.kind,
        metadata: metadata(&refused.name, generation),
        status: Body::Parents { parents },
    }
}

//! What policies for Services share: what they are attached to, and their status.

use std::sync::Arc;

use serde_json::json;

use crate::gateway::GatewayState;
use crate::objects::{GATEWAY_GROUP, Objects, Stored};
use crate::resources::towpath::TargetRef;
use crate::status::{Body, Condition, ObjectStatus, item};
use crate::{ObjectName, Problem};

/// Whether a target is a Service at all.
pub(crate) fn is_service(target: &TargetRef) -> bool {
    matches!(target.group.as_deref(), None | Some("" | "core")) && target.kind == "Service"
}

/// The name of what a policy in `namespace` is for.
pub(crate) fn target_name(namespace: &Arc<str>, target: &TargetRef) -> ObjectName {
    ObjectName { namespace: Arc::clone(namespace), name: target.name.value.as_str().into() }
}

/// The Service that a policy is for; one that is not there is reported.
pub(crate) fn service<S>(
    objects: &Objects,
    policy: &Stored<S>,
    target: &TargetRef,
    problems: &mut Vec<Problem>,
) -> Option<ObjectName> {
    let service = target_name(&policy.name.namespace, target);
    if is_service(target) && objects.services.contains_key(&service) {
        return Some(service);
    }
    let message = format!("there is no {} {service} to attach to", target.kind);
    problems.push(policy.error(target.name.referenced, message));
    None
}

/// The policy with what it says for every Gateway that is concerned (Gateway API, `PolicyStatus`); `None` if no Gateway has a
/// route to one of its Services.
pub(crate) fn status<S>(
    policy: &Stored<S>,
    targets: &[TargetRef],
    gateways: &[GatewayState<'_>],
    controller: &str,
    conditions: &[Condition],
) -> Option<ObjectStatus> {
    let service = |target| format!("{}:", target_name(&policy.name.namespace, target));
    let backends: Vec<_> = targets.iter().map(service).collect();
    let concerned = gateways.iter().filter(|gateway| {
        gateway.backend_names().any(|name| backends.iter().any(|service| name.starts_with(&**service)))
    });
    let ancestors: Vec<_> = concerned
        .map(|gateway| {
            let name = &gateway.object.name;
            json!({
                "ancestorRef": {
                    "group": GATEWAY_GROUP, "kind": "Gateway", "namespace": &*name.namespace, "name": &*name.name,
                },
                "controllerName": controller,
                "conditions": conditions,
            })
        })
        .collect();
    (!ancestors.is_empty()).then(|| item(policy, Body::Other(json!({ "ancestors": ancestors }))))
}

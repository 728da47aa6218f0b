//! The status of policies for Services: what it says, for every Gateway that is concerned (Gateway API, `PolicyStatus`).

use serde_json::json;

use crate::ObjectName;
use crate::gateway::GatewayState;
use crate::objects::{GATEWAY_GROUP, Stored};
use crate::status::{Body, Condition, ObjectStatus, item};

/// The policy with its status; `None` if no Gateway has a route to one of its Services.
pub(crate) fn status<S>(
    policy: &Stored<S>,
    services: impl Iterator<Item = ObjectName>,
    gateways: &[GatewayState<'_>],
    controller: &str,
    conditions: &[Condition],
) -> Option<ObjectStatus> {
    let backends: Vec<_> = services.map(|service| format!("{service}:")).collect();
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

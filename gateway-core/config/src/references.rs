//! References across namespaces: allowed if the other side grants them (Gateway API, `ReferenceGrant`).

use std::sync::Arc;

use crate::ObjectName;
use crate::objects::{GATEWAY_GROUP, Objects};
use crate::resources::gateway::ObjectRef;

/// The name of what an object in `own` refers to.
pub(crate) fn target(own: &Arc<str>, reference: &ObjectRef) -> ObjectName {
    let namespace = reference.namespace.as_deref().map_or_else(|| Arc::clone(own), Arc::from);
    ObjectName { namespace, name: reference.name.value.as_str().into() }
}

/// Whether an object of `kind` (of the Gateway API's group) in `namespace` may refer to a core object.
pub(crate) fn is_granted(
    objects: &Objects,
    kind: &str,
    namespace: &str,
    to_kind: &str,
    to: &ObjectName,
) -> bool {
    *to.namespace == *namespace
        || objects.reference_grants.values().filter(|grant| grant.name.namespace == to.namespace).any(
            |grant| {
                let from = |from: &&crate::resources::gateway::GrantFrom| {
                    from.group == GATEWAY_GROUP && from.kind == kind && from.namespace == namespace
                };
                let target = |target: &&crate::resources::gateway::GrantTo| {
                    target.group.is_empty()
                        && target.kind == to_kind
                        && target.name.as_deref().is_none_or(|name| name.is_empty() || name == &*to.name)
                };
                grant.spec.from.iter().any(|f| from(&f)) && grant.spec.to.iter().any(|t| target(&t))
            },
        )
}

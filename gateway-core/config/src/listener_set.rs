//! Listeners that others add to a Gateway (Gateway API, `ListenerSet`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::ObjectName;
use crate::compile::Work;
use crate::listener::{self, ListenerState};
use crate::objects::{GATEWAY_GROUP, Stored};
use crate::parents::namespace_labels;
use crate::resources::gateway::{FromNamespaces, GatewaySpec, ListenerSetSpec, RouteNamespaces};
use crate::status::{Body, ObjectStatus, Refusal, Verdict, condition, item};

/// A set whose parent is one of our Gateways.
pub(crate) struct SetState<'a> {
    pub(crate) object: &'a Arc<Stored<ListenerSetSpec>>,
    pub(crate) accepted: Verdict,
}

/// Judges the sets of a Gateway, the oldest first, and adds their listeners to those of the Gateway, which come before
/// them where two are in each other's way. Listeners of a set that the Gateway does not allow are not added.
pub(crate) fn attach<'a>(
    work: &mut Work<'a>,
    gateway: &Stored<GatewaySpec>,
    listeners: &mut Vec<ListenerState<'a>>,
) -> Vec<SetState<'a>> {
    let mut objects: Vec<_> =
        work.objects.listener_sets.values().filter(|set| parent(set) == Some(gateway.name.clone())).collect();
    objects.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
    let mut sets = Vec::new();
    for object in objects {
        let accepted = allowed(work, gateway, object);
        if let Err(refusal) = &accepted {
            let name = object.spec.parent_ref.name.referenced;
            work.problems.push(object.error(name, refusal.message.clone()));
        } else {
            for spec in &object.spec.listeners {
                let mut state = listener::judge(work, object, spec);
                state.set = Some(sets.len());
                listeners.push(state);
                settle(listeners);
            }
        }
        sets.push(SetState { object, accepted });
    }
    sets
}

/// A set of which no listener can be served is none.
pub(crate) fn settle_sets(sets: &mut [SetState<'_>], listeners: &[ListenerState<'_>]) {
    for (at, set) in sets.iter_mut().enumerate().filter(|(_, set)| set.accepted.is_ok()) {
        let own = listeners.iter().filter(|listener| listener.set == Some(at));
        if !own.into_iter().any(ListenerState::is_programmed) {
            set.accepted = Err(Refusal::new("ListenersNotValid", "no listener is valid"));
        }
    }
}

/// The Gateway that a set is for.
fn parent(set: &Stored<ListenerSetSpec>) -> Option<ObjectName> {
    let reference = &set.spec.parent_ref;
    let group = reference.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = reference.kind.as_deref().unwrap_or("Gateway");
    (group == GATEWAY_GROUP && kind == "Gateway").then(|| ObjectName {
        namespace: reference.namespace.as_deref().map_or_else(|| Arc::clone(&set.name.namespace), Arc::from),
        name: reference.name.value.as_str().into(),
    })
}

/// Reports sets whose parent is not there.
pub(crate) fn check_parents(work: &mut Work<'_>) {
    for set in work.objects.listener_sets.values() {
        let problem = match parent(set) {
            Some(name) if work.objects.gateways.contains_key(&name) => continue,
            Some(name) => format!("there is no Gateway {name}"),
            None => "the parent of a ListenerSet is a Gateway".to_owned(),
        };
        work.problems.push(set.error(set.spec.parent_ref.name.referenced, problem));
    }
}

/// Whether the Gateway takes sets of this namespace; by default it takes none.
fn allowed(work: &Work<'_>, gateway: &Stored<GatewaySpec>, set: &Stored<ListenerSetSpec>) -> Verdict {
    let namespaces = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let labels = || namespace_labels(work, &set.name.namespace);
    if from(namespaces, FromNamespaces::None, &gateway.name.namespace, &set.name.namespace, labels) {
        return Ok(());
    }
    let message = format!("Gateway {} takes no listeners from this namespace", gateway.name);
    Err(Refusal::new("NotAllowed", message))
}

/// Whether `theirs` is among the namespaces that an object in `own` allows.
pub(crate) fn from(
    namespaces: Option<&RouteNamespaces>,
    default: FromNamespaces,
    own: &str,
    theirs: &str,
    labels: impl FnOnce() -> BTreeMap<String, String>,
) -> bool {
    match namespaces.and_then(|namespaces| namespaces.from).unwrap_or(default) {
        FromNamespaces::All => true,
        FromNamespaces::None => false,
        FromNamespaces::Same => theirs == own,
        FromNamespaces::Selector => namespaces
            .and_then(|namespaces| namespaces.selector.as_ref())
            .is_some_and(|selector| selector.matches(&labels())),
    }
}

/// The newest listener gives way to all that were there.
fn settle(listeners: &mut [ListenerState<'_>]) {
    let Some((newest, before)) = listeners.split_last_mut() else { return };
    // That it is in the way of another says more than that its protocol is not served.
    if newest.accepted.as_ref().is_err_and(|refusal| refusal.reason != "UnsupportedProtocol") {
        return;
    }
    for other in before.iter().filter(|l| l.accepted.is_ok() && l.spec.port.value == newest.spec.port.value) {
        if let Err(refusal) = newest.beside(other) {
            newest.accepted = Err(refusal);
            return;
        }
    }
}

impl SetState<'_> {
    /// The set with its status, and that of its listeners.
    pub(crate) fn status(&self, at: usize, listeners: &[ListenerState<'_>]) -> ObjectStatus {
        let generation = self.object.generation;
        let own = listeners.iter().filter(|listener| listener.set == Some(at));
        item(
            self.object,
            Body::Other(json!({
                "conditions": [
                    condition("Accepted", "Accepted", &self.accepted, generation),
                    condition("Programmed", "Programmed", &self.accepted, generation),
                ],
                "listeners": own.map(|listener| listener.status(generation)).collect::<Vec<_>>(),
            })),
        )
    }
}

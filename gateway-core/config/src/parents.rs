//! Which listeners a route attaches to, and what its parents say of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::Spanned;
use towpath_gateway_core::Policies;
use towpath_routing::{Hostname, Route, Rule};

use crate::client_certificate::ByClient;
use crate::compile::Work;
use crate::gateway::GatewayState;
use crate::listener::ListenerState;
use crate::matches::Match;
use crate::objects::{GATEWAY_GROUP, Stored};
use crate::policy::Attachments;
use crate::resources::gateway::FromNamespaces;
use crate::resources::leaf::Host;
use crate::resources::route::{ParentRef, RouteSpec};
use crate::rule::{CompiledRoute, compile};
use crate::status::{Body, Refusal, Verdict, item, parent};
use crate::topology::Rules;
use crate::{ObjectName, listener_set};

/// Attaches a route to the listeners of its parents and adds its status.
pub(crate) fn attach<M: Match>(
    work: &mut Work<'_>,
    gateways: &mut [GatewayState<'_>],
    attachments: &Attachments,
    route: &Stored<RouteSpec<M>>,
) {
    let wanted: Vec<_> =
        route.spec.parent_refs.iter().filter_map(|parent| target(work, gateways, route, parent)).collect();
    if wanted.is_empty() {
        return;
    }
    let mut by_client = ByClient::new();
    let mut parents = Vec::new();
    for Wanted { reference, gateway, set } in wanted {
        let Some(gateway) = gateways.get_mut(gateway) else { continue };
        let compiled = by_client.of(work, gateway, |work| compile(work, route));
        let verdict = attach_to(work, gateway, set, attachments, route, reference, compiled);
        if let Err(refusal) = &verdict {
            work.problems.push(route.error(reference.name.referenced, refusal.message.clone()));
        }
        let verdicts = (&verdict, &compiled.resolved);
        parents.push(parent(
            reference,
            &route.name.namespace,
            &work.controller(),
            verdicts,
            route.generation,
        ));
    }
    work.status.push(item(route, Body::Parents { parents }));
}

/// Whether a parent is a Service: such routes are of the mesh.
pub(crate) fn is_service(reference: &ParentRef) -> bool {
    matches!(reference.group.as_deref(), Some("" | "core")) && reference.kind.as_deref() == Some("Service")
}

/// A parent that is ours.
pub(crate) struct Wanted<'r> {
    pub(crate) reference: &'r ParentRef,
    /// The place of the Gateway.
    pub(crate) gateway: usize,
    /// The place of the `ListenerSet` among those of the Gateway, if that is the parent.
    pub(crate) set: Option<usize>,
}

/// The Gateway or `ListenerSet` that a reference means, if it is ours. What it means otherwise is reported.
pub(crate) fn target<'r, S>(
    work: &mut Work<'_>,
    gateways: &[GatewayState<'_>],
    route: &Stored<S>,
    reference: &'r ParentRef,
) -> Option<Wanted<'r>> {
    let namespace = reference.namespace.as_deref().unwrap_or(&route.name.namespace);
    let name = ObjectName { namespace: namespace.into(), name: reference.name.value.as_str().into() };
    let kind = reference.kind.as_deref().unwrap_or("Gateway");
    let mut problem = |message: String| {
        work.problems.push(route.error(reference.name.referenced, message));
        None
    };
    if is_service(reference) {
        return if work.objects.services.contains_key(&name) {
            None
        } else {
            problem(format!("there is no Service {name}"))
        };
    }
    let ours = reference.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP;
    if ours && kind == "ListenerSet" {
        if !work.objects.listener_sets.contains_key(&name) {
            return problem(format!("there is no ListenerSet {name}"));
        }
        return gateways.iter().enumerate().find_map(|(gateway, state)| {
            let set = state.sets.iter().position(|set| set.object.name == name)?;
            Some(Wanted { reference, gateway, set: Some(set) })
        });
    }
    if !ours || kind != "Gateway" {
        return problem(format!("a parent is a Gateway, a ListenerSet or a Service, not a `{kind}`"));
    }
    match gateways.iter().position(|gateway| gateway.object.name == name) {
        Some(gateway) => Some(Wanted { reference, gateway, set: None }),
        None if work.objects.gateways.contains_key(&name) => None,
        None if work.objects.refused.iter().any(|r| r.kind == "Gateway" && r.name == name) => {
            problem(format!("the parent Gateway {name} could not be read"))
        }
        None => problem(format!("there is no Gateway {name}")),
    }
}

fn attach_to<M>(
    work: &Work<'_>,
    gateway: &mut GatewayState<'_>,
    set: Option<usize>,
    attachments: &Attachments,
    route: &Stored<RouteSpec<M>>,
    reference: &ParentRef,
    compiled: &CompiledRoute,
) -> Verdict {
    for (place, hostnames) in takers(work, gateway, set, route, reference, &route.spec.hostnames)? {
        let Some(listener) = gateway.listeners.get(place) else { continue };
        let name = route.name.to_string();
        // Routes come one after the other: only another of this route's parents can have put it there.
        if listener.routes.last().is_some_and(|(kind, there)| *kind == route.kind && *there.name == *name) {
            continue;
        }
        let target = (&gateway.object.name, listener.section());
        let rules = with_policies(work.plan.rules, attachments, target, route, compiled);
        let route = (route.kind, Route { name: name.into(), created: route.created, hostnames, rules });
        if let Some(listener) = gateway.listeners.get_mut(place) {
            listener.attached += 1;
            listener.routes.push(route);
        }
    }
    Ok(())
}

/// The places of the listeners that take a route by this reference, each with the route's host names as far as they are the
/// listener's; an error if there is none.
pub(crate) fn takers<S>(
    work: &Work<'_>,
    gateway: &GatewayState<'_>,
    set: Option<usize>,
    route: &Stored<S>,
    reference: &ParentRef,
    hostnames: &[Spanned<Host>],
) -> Result<Vec<(usize, Vec<Hostname>)>, Refusal> {
    let owner = set.and_then(|at| gateway.sets.get(at));
    if let Some(Err(refusal)) =
        owner.map(|set| &set.accepted).filter(|_| set.is_some_and(|at| is_bare(gateway, at)))
    {
        return Err(Refusal::new("NotAllowedByListeners", refusal.message.clone()));
    }
    let parent = owner.map_or_else(|| gateway.object.label(), |set| set.object.label());
    let meant = |listener: &ListenerState<'_>| {
        listener.set == set
            && reference.section_name.as_ref().is_none_or(|section| *section == listener.spec.name.value)
            && reference.port.is_none_or(|port| port == listener.spec.port.value)
    };
    let places = |takes: &dyn Fn(&ListenerState<'_>) -> bool| -> Vec<usize> {
        let all = gateway.listeners.iter().enumerate();
        all.filter(|(_, listener)| takes(listener)).map(|(place, _)| place).collect()
    };
    if places(&meant).is_empty() {
        return Err(Refusal::new("NoMatchingParent", format!("{parent} has no such listener")));
    }
    let listeners =
        places(&|listener| meant(listener) && allows(work, gateway.home(listener), listener, route));
    if listeners.is_empty() {
        let message =
            format!("no listener of {parent} takes routes of kind {} from this namespace", route.kind);
        return Err(Refusal::new("NotAllowedByListeners", message));
    }
    let narrow = |place: usize| Some((place, narrowed(hostnames, &gateway.listeners.get(place)?.hostname)?));
    let takers: Vec<_> = listeners.into_iter().filter_map(narrow).collect();
    if takers.is_empty() {
        let message = format!("no host name is also one of the listeners of {parent}");
        return Err(Refusal::new("NoMatchingListenerHostname", message));
    }
    Ok(takers)
}

fn with_policies<M>(
    part: Rules,
    attachments: &Attachments,
    place: (&ObjectName, &str),
    route: &Stored<RouteSpec<M>>,
    compiled: &CompiledRoute,
) -> Vec<Rule> {
    let rules = compiled.rules.iter().map(|compiled| {
        // Behind a gateway its policies have been applied.
        let attached = match part {
            Rules::Behind => Policies::default(),
            Rules::Whole | Rules::Front => {
                attachments.of(place, (route.kind, &route.name), compiled.section.as_deref())
            }
        };
        Rule { policies: attached.merged(&compiled.rule.policies), ..compiled.rule.clone() }
    });
    rules.collect()
}

/// Whether a set has no listener at all, for the Gateway does not take it.
fn is_bare(gateway: &GatewayState<'_>, set: usize) -> bool {
    gateway.listeners.iter().all(|listener| listener.set != Some(set))
}

/// Whether a listener, whose owner is in the namespace `home`, takes a route.
fn allows<S>(work: &Work<'_>, home: &str, listener: &ListenerState<'_>, route: &Stored<S>) -> bool {
    let namespaces = listener.spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let namespace = &route.name.namespace;
    let labels = || namespace_labels(work, namespace);
    listener.accepted.is_ok()
        && listener.kinds.contains(&route.kind)
        && listener_set::from(namespaces, FromNamespaces::Same, home, namespace, labels)
}

/// The labels of a namespace; Kubernetes gives each its name as one.
pub(crate) fn namespace_labels(work: &Work<'_>, namespace: &Arc<str>) -> BTreeMap<String, String> {
    let name = ObjectName { namespace: "".into(), name: Arc::clone(namespace) };
    let mut labels =
        work.objects.namespaces.get(&name).map(|object| object.labels.clone()).unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".into(), namespace.to_string());
    labels
}

/// The route's host names as far as they are the listener's; none at all: `None`.
fn narrowed(wanted: &[Spanned<Host>], listener: &Hostname) -> Option<Vec<Hostname>> {
    if wanted.is_empty() {
        return Some(match listener {
            Hostname::Any => Vec::new(),
            name => vec![name.clone()],
        });
    }
    let mut names: Vec<Hostname> = Vec::new();
    for name in wanted.iter().filter_map(|name| name.value.0.intersection(listener)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then_some(names)
}

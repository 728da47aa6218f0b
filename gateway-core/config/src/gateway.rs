//! Gateways, judged by themselves: addresses, and listeners that are in each other's way.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::json;
use towpath_auth::ExternalAuth;

use crate::client_certificate::{self, ClientCertificate};
use crate::client_validation;
use crate::compile::Work;
use crate::listener::{self, ListenerState};
use crate::listener_set::{self, SetState};
use crate::objects::Stored;
use crate::resources::gateway::GatewaySpec;
use crate::status::{Body, ObjectStatus, Refusal, Verdict, condition, item};

/// A Gateway that is ours.
pub(crate) struct GatewayState<'a> {
    pub(crate) object: &'a Arc<Stored<GatewaySpec>>,
    pub(crate) accepted: Verdict,
    pub(crate) programmed: Verdict,
    /// Whether its own references lead somewhere; those of its listeners are theirs.
    pub(crate) resolved: Verdict,
    /// What it shows to backends that ask.
    pub(crate) client: Option<ClientCertificate>,
    /// Addresses that the resource asks for; all of the machine if it names none.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its own, then those of its sets.
    pub(crate) listeners: Vec<ListenerState<'a>>,
    pub(crate) sets: Vec<SetState<'a>>,
}

/// Judges a Gateway and reports what is wrong with it.
pub(crate) fn judge<'a>(work: &mut Work<'a>, object: &'a Arc<Stored<GatewaySpec>>) -> GatewayState<'a> {
    let mut listeners: Vec<_> =
        object.spec.listeners.iter().map(|spec| listener::judge(work, object, spec)).collect();
    mark_conflicts(&mut listeners);
    client_validation::judge(work, object, &mut listeners);
    let valid = any_valid(listeners.iter());
    let mut sets = listener_set::attach(work, object, &mut listeners);
    client_validation::judge(work, object, &mut listeners);
    listener_set::settle_sets(&mut sets, &listeners);
    for listener in &listeners {
        let owner = listener.set.and_then(|at| sets.get(at));
        for refusal in
            [&listener.accepted, &listener.resolved].into_iter().filter_map(|verdict| verdict.as_ref().err())
        {
            let message = format!("listener `{}`: {}", listener.spec.name.value, refusal.message);
            let at = listener.spec.name.referenced;
            work.problems.push(match owner {
                Some(set) => set.object.error(at, message),
                None => object.error(at, message),
            });
        }
    }
    let (client, resolved) = client_certificate::judge(work, object);
    let (addresses, accepted, programmed) = addresses(work, object);
    let accepted = accepted.and_then(|()| parameters(work, object)).and(valid);
    GatewayState { object, accepted, programmed, resolved, client, addresses, listeners, sets }
}

/// Listeners of one port that nothing tells apart: neither is served (Gateway API, `GatewaySpec.listeners`).
fn mark_conflicts(listeners: &mut [ListenerState<'_>]) {
    let verdicts: Vec<Verdict> = (0..listeners.len()).map(|at| in_the_way(listeners, at)).collect();
    for (listener, verdict) in listeners.iter_mut().zip(verdicts) {
        if listener.accepted.is_ok() {
            listener.accepted = verdict;
        }
    }
}

/// Whether the listener at this place stands by itself among all that are valid.
fn in_the_way(listeners: &[ListenerState<'_>], at: usize) -> Verdict {
    let Some(listener) = listeners.get(at) else { return Ok(()) };
    let valid = |other: &&ListenerState<'_>| {
        other.accepted.is_ok() && other.spec.port.value == listener.spec.port.value
    };
    let others = listeners.iter().enumerate().filter(|(place, _)| *place != at).map(|(_, other)| other);
    let found: Vec<_> = others.filter(valid).filter_map(|other| listener.beside(other).err()).collect();
    // Of both conflicts that of protocols is the graver.
    let worst = found.iter().find(|refusal| refusal.reason == "ProtocolConflict").or(found.first());
    worst.map_or(Ok(()), |refusal| Err(refusal.clone()))
}

/// The addresses that are asked for, whether they are of a kind that is served, and whether they are in use.
fn addresses(work: &mut Work<'_>, object: &Stored<GatewaySpec>) -> (Vec<IpAddr>, Verdict, Verdict) {
    let (mut addresses, mut accepted, mut programmed) = (Vec::new(), Ok(()), Ok(()));
    let mapped: Option<Vec<IpAddr>> = work.options.port_map.as_ref().map(|map| {
        map.iter().filter(|(name, ..)| **name == object.name).map(|(.., address)| address.ip()).collect()
    });
    for spec in &object.spec.addresses {
        if let Some(kind) = spec.kind.as_ref().filter(|kind| kind.value != "IPAddress") {
            let message = format!("addresses of type `{}` are not served", kind.value);
            work.problems.push(object.error(kind.referenced, message.clone()));
            accepted = Err(Refusal::new("UnsupportedAddress", message));
            continue;
        }
        let Some(value) = &spec.value else { continue };
        match value.value.parse::<IpAddr>() {
            Ok(address) if usable(work, mapped.as_deref(), address) => {
                addresses.push(address);
            }
            Ok(_) => programmed = Err(unusable(&value.value)),
            Err(_) => {
                work.problems
                    .push(object.error(value.referenced, format!("`{}` is not an IP address", value.value)));
                programmed = Err(unusable(&value.value));
            }
        }
    }
    if addresses.is_empty() {
        addresses =
            mapped.filter(|mapped| !mapped.is_empty()).unwrap_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into()]);
    }
    addresses.sort_unstable();
    addresses.dedup();
    (addresses, accepted, programmed)
}

/// Of the port map where there is one, of the machine else.
fn usable(work: &Work<'_>, mapped: Option<&[IpAddr]>, address: IpAddr) -> bool {
    mapped.map_or_else(
        || work.options.is_local.is_none_or(|is_local| is_local(address)),
        |mapped| mapped.contains(&address),
    )
}

fn unusable(address: &str) -> Refusal {
    Refusal::new("AddressNotUsable", format!("`{address}` is not an address that this process listens on"))
}

fn parameters(work: &mut Work<'_>, object: &Stored<GatewaySpec>) -> Verdict {
    let Some(reference) = object.spec.infrastructure.as_ref().and_then(|i| i.parameters_ref.as_ref()) else {
        return Ok(());
    };
    let message = "`infrastructure.parametersRef` refers to nothing that is served here";
    work.problems.push(object.error(reference.referenced, message));
    Err(Refusal::new("InvalidParameters", message))
}

fn any_valid<'l>(own: impl Iterator<Item = &'l ListenerState<'l>> + Clone) -> Verdict {
    let valid = own.clone().next().is_none() || own.into_iter().any(|listener| listener.accepted.is_ok());
    if valid { Ok(()) } else { Err(Refusal::new("ListenersNotValid", "no listener is valid")) }
}

impl GatewayState<'_> {
    /// Its own name for a listener: that of the object that has it, and the listener's.
    pub(crate) fn full_name(&self, listener: &ListenerState<'_>) -> String {
        let set = listener.set.and_then(|at| self.sets.get(at));
        let owner = set.map_or(&self.object.name, |set| &set.object.name);
        format!("{owner}/{}", listener.spec.name.value)
    }

    /// The backends of all routes that are attached.
    pub(crate) fn backend_names(&self) -> impl Iterator<Item = &str> {
        let rules =
            self.listeners.iter().flat_map(|listener| &listener.routes).flat_map(|(_, route)| &route.rules);
        let flows =
            self.listeners.iter().flat_map(|listener| &listener.flows).flat_map(|route| &route.backends);
        let flows = flows.map(|weighted| &*weighted.backend.name);
        let requests = rules.flat_map(|rule| {
            let weighted = rule.backends.iter().map(|weighted| &*weighted.backend.name);
            let mirrors = rule.filters.mirrors.iter().map(|mirror| &*mirror.backend.name);
            let asked = rule.policies.get::<ExternalAuth>().map(|auth| &*auth.backend.name);
            weighted.chain(mirrors).chain(asked)
        });
        requests.chain(flows)
    }

    /// The sets with their status.
    pub(crate) fn set_status(&self) -> impl Iterator<Item = ObjectStatus> {
        self.sets.iter().enumerate().map(|(at, set)| set.status(at, &self.listeners))
    }

    /// The namespace that a listener takes routes from if it says nothing else.
    pub(crate) fn home(&self, listener: &ListenerState<'_>) -> &Arc<str> {
        let set = listener.set.and_then(|at| self.sets.get(at));
        set.map_or(&self.object.name.namespace, |set| &set.object.name.namespace)
    }

    /// The Gateway with its status.
    pub(crate) fn status(&self) -> ObjectStatus {
        let generation = self.object.generation;
        let own = self.listeners.iter().filter(|listener| listener.set.is_none());
        let attached = self.sets.iter().filter(|set| set.accepted.is_ok()).count();
        let all_valid = own.clone().all(|listener| listener.accepted.is_ok());
        let reason = if all_valid { "Accepted" } else { "ListenersNotValid" };
        // Since it was judged, listeners may have lost their sockets.
        let accepted = self.accepted.clone().and(any_valid(own.clone()));
        let programmed = match &accepted {
            Ok(()) => self.programmed.clone(),
            Err(refusal) => Err(Refusal::new("Invalid", refusal.message.clone())),
        };
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|address| json!({"type": "IPAddress", "value": address.to_string()}))
            .collect();
        let mut conditions = vec![
            condition("Accepted", reason, &accepted, generation),
            condition("Programmed", "Programmed", &programmed, generation),
            condition("ResolvedRefs", "ResolvedRefs", &self.resolved, generation),
        ];
        conditions.extend(client_validation::insecure(&self.object.spec, generation));
        item(
            self.object,
            Body::Other(json!({
                "addresses": addresses,
                "conditions": conditions,
                "attachedListenerSets": attached,
                "listeners": own.map(|listener| listener.status(generation)).collect::<Vec<_>>(),
            })),
        )
    }
}

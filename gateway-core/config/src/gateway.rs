//! Gateways, judged by themselves: addresses, and listeners that are in each other's way.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::compile::Work;
use crate::listener::{self, ListenerState};
use crate::objects::Stored;
use crate::resources::gateway::GatewaySpec;
use crate::status::{Refusal, Verdict, condition, item};

/// A Gateway that is ours.
pub(crate) struct GatewayState<'a> {
    pub(crate) object: &'a Arc<Stored<GatewaySpec>>,
    pub(crate) accepted: Verdict,
    pub(crate) programmed: Verdict,
    /// Addresses that the resource asks for; all of the machine if it names none.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<ListenerState<'a>>,
}

/// Judges a Gateway and reports what is wrong with it.
pub(crate) fn judge<'a>(work: &mut Work<'a>, object: &'a Arc<Stored<GatewaySpec>>) -> GatewayState<'a> {
    let mut listeners: Vec<_> =
        object.spec.listeners.iter().map(|spec| listener::judge(work, object, spec)).collect();
    mark_conflicts(&mut listeners);
    if object.spec.tls.as_ref().is_some_and(|tls| tls.frontend.is_some()) {
        // Without the check of client certificates that it asks for, it would be open to anybody.
        let refusal = Refusal::new("UnsupportedValue", "validation of client certificates is not served yet");
        listeners
            .iter_mut()
            .filter(|l| l.https && l.accepted.is_ok())
            .for_each(|l| l.accepted = Err(refusal.clone()));
    }
    if let Some(backend) = object.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref()) {
        work.problems
            .push(object.warning(backend.referenced, "`tls.backend` is not served yet: it has no effect"));
    }
    for listener in &listeners {
        for refusal in
            [&listener.accepted, &listener.resolved].into_iter().filter_map(|verdict| verdict.as_ref().err())
        {
            let message = format!("listener `{}`: {}", listener.spec.name.value, refusal.message);
            work.problems.push(object.error(listener.spec.name.referenced, message));
        }
    }
    let (addresses, accepted, programmed) = addresses(work, object);
    let accepted = accepted.and_then(|()| parameters(work, object)).and_then(|()| any_valid(&listeners));
    GatewayState { object, accepted, programmed, addresses, listeners }
}

/// Listeners of one port that nothing tells apart: neither is served (Gateway API, `GatewaySpec.listeners`).
fn mark_conflicts(listeners: &mut [ListenerState<'_>]) {
    let facts: Vec<_> = listeners
        .iter()
        .map(|l| {
            (l.spec.port.value, l.https, l.hostname.clone(), l.accepted.is_ok(), l.spec.name.value.clone())
        })
        .collect();
    for (at, listener) in listeners.iter_mut().enumerate().filter(|(_, listener)| listener.accepted.is_ok()) {
        let others = facts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, facts)| facts);
        for (_, https, hostname, ..) in others.filter(|facts| facts.3 && facts.0 == listener.spec.port.value)
        {
            if *https != listener.https {
                let message = "another listener has another protocol on the same port";
                listener.accepted = Err(Refusal::new("ProtocolConflict", message));
                break;
            }
            if *hostname == listener.hostname {
                let message = "another listener has the same host name on the same port";
                listener.accepted = Err(Refusal::new("HostnameConflict", message));
            }
        }
    }
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
            Ok(address) if mapped.as_ref().is_none_or(|mapped| mapped.contains(&address)) => {
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

fn any_valid(listeners: &[ListenerState<'_>]) -> Verdict {
    let valid = listeners.is_empty() || listeners.iter().any(|listener| listener.accepted.is_ok());
    if valid { Ok(()) } else { Err(Refusal::new("ListenersNotValid", "no listener is valid")) }
}

impl GatewayState<'_> {
    /// The Gateway with its status.
    pub(crate) fn status(&self) -> Value {
        let generation = self.object.generation;
        let all_valid = self.listeners.iter().all(|listener| listener.accepted.is_ok());
        let reason = if all_valid { "Accepted" } else { "ListenersNotValid" };
        let programmed = match &self.accepted {
            Ok(()) => self.programmed.clone(),
            Err(refusal) => Err(Refusal::new("Invalid", refusal.message.clone())),
        };
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|address| json!({"type": "IPAddress", "value": address.to_string()}))
            .collect();
        item(
            self.object,
            json!({
                "addresses": addresses,
                "conditions": [
                    condition("Accepted", reason, &self.accepted, generation),
                    condition("Programmed", "Programmed", &programmed, generation),
                ],
                "listeners": self.listeners.iter().map(|listener| listener.status(generation)).collect::<Vec<_>>(),
            }),
        )
    }
}

//! Gateways and their listeners, judged by themselves: protocol, kinds of routes, certificates, conflicts, addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};
use towpath_routing::{Hostname, Route};

use crate::certificate::{self, Credential};
use crate::compile::Work;
use crate::objects::{GATEWAY_GROUP, Stored};
use crate::references::is_granted;
use crate::resources::gateway::{CertificateRef, GatewaySpec, ListenerSpec, TlsModeSpec};
use crate::status::{Refusal, Verdict, condition, given, item};
use crate::{EdgeCertificate, ObjectName};

/// Kinds of routes that HTTP listeners take.
const ROUTE_KINDS: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

/// A Gateway that is ours.
pub(crate) struct GatewayState<'a> {
    pub(crate) object: &'a Arc<Stored<GatewaySpec>>,
    pub(crate) accepted: Verdict,
    pub(crate) programmed: Verdict,
    /// Addresses that the resource asks for; all of the machine if it names none.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<ListenerState<'a>>,
}

/// One of its listeners, with the routes that attach to it.
pub(crate) struct ListenerState<'a> {
    pub(crate) spec: &'a ListenerSpec,
    pub(crate) hostname: Hostname,
    pub(crate) https: bool,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) accepted: Verdict,
    pub(crate) resolved: Verdict,
    pub(crate) certificates: Vec<EdgeCertificate>,
    /// Kind and table entry of each route.
    pub(crate) routes: Vec<(&'static str, Route)>,
    pub(crate) attached: usize,
}

impl ListenerState<'_> {
    /// Whether it can have a socket.
    pub(crate) fn is_programmed(&self) -> bool {
        self.accepted.is_ok() && (!self.https || !self.certificates.is_empty())
    }

    fn is_conflicted(&self) -> Option<&Refusal> {
        self.accepted.as_ref().err().filter(|refusal| refusal.reason.ends_with("Conflict"))
    }
}

/// Judges a Gateway and reports what is wrong with it.
pub(crate) fn judge<'a>(work: &mut Work<'a>, object: &'a Arc<Stored<GatewaySpec>>) -> GatewayState<'a> {
    let mut listeners: Vec<_> =
        object.spec.listeners.iter().map(|spec| listener(work, object, spec)).collect();
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

fn listener<'a>(
    work: &mut Work<'a>,
    gateway: &'a Stored<GatewaySpec>,
    spec: &'a ListenerSpec,
) -> ListenerState<'a> {
    let https = spec.protocol.value == "HTTPS";
    let mut state = ListenerState {
        spec,
        hostname: spec.hostname.as_ref().map_or(Hostname::Any, |hostname| hostname.value.0.clone()),
        https,
        kinds: Vec::new(),
        accepted: Ok(()),
        resolved: Ok(()),
        certificates: Vec::new(),
        routes: Vec::new(),
        attached: 0,
    };
    if !https && spec.protocol.value != "HTTP" {
        let message = format!("protocol `{}` is not served: HTTP and HTTPS are", spec.protocol.value);
        state.accepted = Err(Refusal::new("UnsupportedProtocol", message));
        return state;
    }
    (state.kinds, state.resolved) = kinds(spec);
    if https {
        let certificates = certificates(work, gateway, spec, &state.hostname);
        state.accepted = tls_mode(spec);
        match certificates {
            Ok(certificates) => state.certificates = certificates,
            Err((certificates, refusal)) => {
                state.certificates = certificates;
                state.resolved = state.resolved.and(Err(refusal));
            }
        }
    }
    state
}

fn kinds(spec: &ListenerSpec) -> (Vec<&'static str>, Verdict) {
    let asked = spec.allowed_routes.as_ref().map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
    if asked.is_empty() {
        return (ROUTE_KINDS.to_vec(), Ok(()));
    }
    let known = |kind: &crate::resources::gateway::RouteKind| {
        let ours = kind.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP;
        ROUTE_KINDS.into_iter().find(|known| ours && *known == kind.kind.value)
    };
    let unknown = asked.iter().find(|kind| known(kind).is_none());
    let verdict = unknown.map_or(Ok(()), |kind| {
        Err(Refusal::new(
            "InvalidRouteKinds",
            format!("routes of kind `{}` are not served here", kind.kind.value),
        ))
    });
    (asked.iter().filter_map(known).collect(), verdict)
}

fn tls_mode(spec: &ListenerSpec) -> Verdict {
    let Some(tls) = spec.tls.as_ref().map(|tls| &tls.value) else { return Ok(()) };
    if tls.mode == Some(TlsModeSpec::Passthrough) {
        return Err(Refusal::new("UnsupportedValue", "TLS mode Passthrough is not served for HTTPS"));
    }
    if tls.frontend_validation.is_some() {
        return Err(Refusal::new("UnsupportedValue", "validation of client certificates is not served yet"));
    }
    Ok(())
}

/// The certificates of a listener; with an error, those that could be read all the same.
fn certificates(
    work: &mut Work<'_>,
    gateway: &Stored<GatewaySpec>,
    spec: &ListenerSpec,
    hostname: &Hostname,
) -> Result<Vec<EdgeCertificate>, (Vec<EdgeCertificate>, Refusal)> {
    let references = spec.tls.as_ref().map(|tls| tls.value.certificate_refs.as_slice()).unwrap_or_default();
    let (mut certificates, mut refused) = (Vec::new(), None);
    if references.is_empty() {
        refused = Some(Refusal::new("InvalidCertificateRef", "an HTTPS listener names a certificate"));
    }
    for reference in references {
        match credential(work, gateway, reference) {
            Ok(credential) => shown(&credential, hostname, references.len() > 1, &mut certificates),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    match refused {
        None => Ok(certificates),
        Some(refusal) => Err((certificates, refusal)),
    }
}

/// The names for which a certificate is shown: of several, each for its own names, and the first for all else.
fn shown(
    credential: &Credential,
    hostname: &Hostname,
    several: bool,
    certificates: &mut Vec<EdgeCertificate>,
) {
    let mut names: Vec<Hostname> = Vec::new();
    if several {
        names.extend(credential.names.iter().filter_map(|name| name.intersection(hostname)));
    }
    if certificates.is_empty() && !names.contains(hostname) {
        names.push(hostname.clone());
    }
    certificates.extend(names.into_iter().map(|hostname| EdgeCertificate {
        hostname,
        chain: credential.chain.clone(),
        key: Arc::clone(&credential.key),
    }));
}

fn credential(
    work: &mut Work<'_>,
    gateway: &Stored<GatewaySpec>,
    reference: &CertificateRef,
) -> Result<Credential, Refusal> {
    let invalid = |message: String| Refusal::new("InvalidCertificateRef", message);
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    let group = reference.group.as_deref().unwrap_or_default();
    if !matches!(group, "" | "core") || kind != "Secret" {
        return Err(invalid(format!(
            "a certificate is in a Secret of the core group, not in `{kind}` of `{group}`"
        )));
    }
    let own = &gateway.name.namespace;
    let namespace = reference.namespace.as_deref().map_or_else(|| Arc::clone(own), Arc::from);
    let name = ObjectName { namespace, name: reference.name.value.as_str().into() };
    if !is_granted(work.objects, "Gateway", own, "Secret", &name) {
        let message = format!(
            "Secret {name} is in another namespace, and no ReferenceGrant there allows the reference"
        );
        return Err(Refusal::new("RefNotPermitted", message));
    }
    let secret =
        work.objects.secrets.get(&name).ok_or_else(|| invalid(format!("there is no Secret {name}")))?;
    let credential = certificate::read(&secret.spec, work.options.now)
        .map_err(|why| invalid(format!("Secret {name}: {why}")))?;
    if let Some(why) = &credential.out_of_date {
        let problem =
            secret.error(None, format!("{why}: clients of Gateway {} will refuse it", gateway.name));
        work.problems.push(problem);
    }
    Ok(credential)
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

impl ListenerState<'_> {
    fn status(&self, generation: Option<i64>) -> Value {
        let invalid = |refusal: &Refusal| Refusal::new("Invalid", refusal.message.clone());
        let programmed = match (&self.accepted, &self.resolved) {
            (Err(refusal), _) => Err(self.is_conflicted().cloned().unwrap_or_else(|| invalid(refusal))),
            (Ok(()), Err(refusal)) if !self.is_programmed() => Err(invalid(refusal)),
            (Ok(()), _) => Ok(()),
        };
        let conflicted = self.is_conflicted();
        let (reason, message) =
            conflicted.map_or(("NoConflicts", ""), |refusal| (refusal.reason, &refusal.message));
        let kinds: Vec<_> =
            self.kinds.iter().map(|kind| json!({"group": GATEWAY_GROUP, "kind": kind})).collect();
        json!({
            "name": self.spec.name.value,
            "supportedKinds": kinds,
            "attachedRoutes": self.attached,
            "conditions": [
                condition("Accepted", "Accepted", &self.accepted, generation),
                condition("Programmed", "Programmed", &programmed, generation),
                condition("ResolvedRefs", "ResolvedRefs", &self.resolved, generation),
                given("Conflicted", conflicted.is_some(), reason, message, generation),
            ],
        })
    }
}

//! A listener of a Gateway, judged by itself: protocol, kinds of routes, certificates.

use std::sync::Arc;

use serde_json::{Value, json};
use towpath_routing::{FlowRoute, Hostname, Route};

use crate::certificate::Credential;
use crate::certificate_ref::credential;
use crate::compile::Work;
use crate::objects::{GATEWAY_GROUP, Stored};
use crate::resources::gateway::{ListenerSpec, TlsModeSpec};
use crate::status::{Refusal, Verdict, condition, given};
use crate::{ClientValidation, EdgeCertificate, EdgeTls};

/// Kinds of routes that HTTP listeners take.
const HTTP_KINDS: &[&str] = &["HTTPRoute", "GRPCRoute"];

/// How a listener of layer 4 takes flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowKind {
    Tcp,
    /// TLS that ends at the backend.
    Passthrough,
    /// TLS that ends here.
    Terminate,
    Udp,
}

impl FlowKind {
    /// `None` for protocols of HTTP and for those that are not served.
    fn of(spec: &ListenerSpec) -> Option<Self> {
        let mode = spec.tls.as_ref().and_then(|tls| tls.value.mode);
        match spec.protocol.value.as_str() {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "TLS" if mode == Some(TlsModeSpec::Passthrough) => Some(Self::Passthrough),
            "TLS" => Some(Self::Terminate),
            _ => None,
        }
    }

    fn route_kinds(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["TCPRoute"],
            Self::Passthrough | Self::Terminate => &["TLSRoute"],
            Self::Udp => &["UDPRoute"],
        }
    }
}

/// A listener with the routes that attach to it.
pub(crate) struct ListenerState<'a> {
    pub(crate) spec: &'a ListenerSpec,
    /// The place of its `ListenerSet` among those of the Gateway; `None` for a listener of the Gateway itself.
    pub(crate) set: Option<usize>,
    pub(crate) hostname: Hostname,
    pub(crate) https: bool,
    /// `None`: it takes requests.
    pub(crate) flow: Option<FlowKind>,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) accepted: Verdict,
    pub(crate) resolved: Verdict,
    pub(crate) certificates: Vec<EdgeCertificate>,
    /// What it asks of certificates of clients.
    pub(crate) clients: Option<Arc<ClientValidation>>,
    /// Kind and table entry of each route.
    pub(crate) routes: Vec<(&'static str, Route)>,
    /// Routes of layer 4.
    pub(crate) flows: Vec<FlowRoute>,
    pub(crate) attached: usize,
}

impl ListenerState<'_> {
    /// Whether it can have a socket.
    pub(crate) fn is_programmed(&self) -> bool {
        self.accepted.is_ok() && (!self.ends_tls() || !self.certificates.is_empty())
    }

    /// Whether it shows certificates.
    pub(crate) fn ends_tls(&self) -> bool {
        self.https || self.flow == Some(FlowKind::Terminate)
    }

    /// How it ends TLS, if it does.
    pub(crate) fn tls(&self) -> Option<EdgeTls> {
        let (certificates, clients) = (self.certificates.clone(), self.clients.clone());
        self.ends_tls().then_some(EdgeTls { certificates, clients })
    }

    /// What policies may be attached to: a Gateway's listeners by name, but none of a set, whose names are the set's.
    pub(crate) fn section(&self) -> &str {
        if self.set.is_some() { "" } else { self.spec.name.value.as_str() }
    }

    /// Whether something tells it from another listener of the same port.
    pub(crate) fn beside(&self, other: &Self) -> Verdict {
        if (self.flow == Some(FlowKind::Udp)) != (other.flow == Some(FlowKind::Udp)) {
            return Ok(());
        }
        if self.spec.protocol.value != other.spec.protocol.value {
            let message = "another listener has another protocol on the same port";
            return Err(Refusal::new("ProtocolConflict", message));
        }
        if self.flow != other.flow {
            let message = "another listener has another TLS mode on the same port";
            return Err(Refusal::new("ProtocolConflict", message));
        }
        if self.hostname == other.hostname {
            let message = "another listener has the same host name on the same port";
            return Err(Refusal::new("HostnameConflict", message));
        }
        Ok(())
    }

    /// Why it is refused, if another listener is in its way.
    pub(crate) fn is_conflicted(&self) -> Option<&Refusal> {
        self.accepted.as_ref().err().filter(|refusal| refusal.reason.ends_with("Conflict"))
    }
}

/// Judges a listener by itself. `owner` is its Gateway or `ListenerSet`.
pub(crate) fn judge<'a, S>(
    work: &mut Work<'a>,
    owner: &Stored<S>,
    spec: &'a ListenerSpec,
) -> ListenerState<'a> {
    let (https, flow) = (spec.protocol.value == "HTTPS", FlowKind::of(spec));
    // Without TLS there is no name to look at, and the field is ignored (Gateway API, `Listener.hostname`).
    let named = !matches!(flow, Some(FlowKind::Tcp | FlowKind::Udp));
    let hostname = spec.hostname.as_ref().filter(|_| named);
    let mut state = ListenerState {
        spec,
        set: None,
        hostname: hostname.map_or(Hostname::Any, |hostname| hostname.value.0.clone()),
        https,
        flow,
        kinds: Vec::new(),
        accepted: Ok(()),
        resolved: Ok(()),
        certificates: Vec::new(),
        clients: None,
        routes: Vec::new(),
        flows: Vec::new(),
        attached: 0,
    };
    if !https && flow.is_none() && spec.protocol.value != "HTTP" {
        let message =
            format!("protocol `{}` is not served: HTTP, HTTPS, TLS, TCP and UDP are", spec.protocol.value);
        state.accepted = Err(Refusal::new("UnsupportedProtocol", message));
        return state;
    }
    (state.kinds, state.resolved) = kinds(spec, flow.map_or(HTTP_KINDS, FlowKind::route_kinds));
    if state.ends_tls() {
        let certificates = certificates(work, owner, spec, &state.hostname);
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

fn kinds(spec: &ListenerSpec, served: &[&'static str]) -> (Vec<&'static str>, Verdict) {
    let asked = spec.allowed_routes.as_ref().map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
    if asked.is_empty() {
        return (served.to_vec(), Ok(()));
    }
    let known = |kind: &crate::resources::gateway::RouteKind| {
        let ours = kind.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP;
        served.iter().copied().find(|known| ours && *known == kind.kind.value)
    };
    let unknown = asked.iter().find(|kind| known(kind).is_none());
    let verdict = unknown.map_or(Ok(()), |kind| {
        Err(Refusal::new(
            "InvalidRouteKinds",
            format!("routes of kind `{}` do not go with protocol {}", kind.kind.value, spec.protocol.value),
        ))
    });
    (asked.iter().filter_map(known).collect(), verdict)
}

fn tls_mode(spec: &ListenerSpec) -> Verdict {
    let Some(tls) = spec.tls.as_ref().map(|tls| &tls.value) else { return Ok(()) };
    if tls.mode == Some(TlsModeSpec::Passthrough) {
        return Err(Refusal::new("UnsupportedValue", "TLS mode Passthrough is for protocol TLS, not HTTPS"));
    }
    Ok(())
}

/// The certificates of a listener; with an error, those that could be read all the same.
fn certificates<S>(
    work: &mut Work<'_>,
    owner: &Stored<S>,
    spec: &ListenerSpec,
    hostname: &Hostname,
) -> Result<Vec<EdgeCertificate>, (Vec<EdgeCertificate>, Refusal)> {
    let references = spec.tls.as_ref().map(|tls| tls.value.certificate_refs.as_slice()).unwrap_or_default();
    let (mut certificates, mut refused) = (Vec::new(), None);
    if references.is_empty() {
        refused = Some(Refusal::new("InvalidCertificateRef", "a listener that ends TLS names a certificate"));
    }
    for reference in references {
        let (credential, refusal) = match credential(work, owner, reference, "InvalidCertificateRef") {
            Ok(credential) => (Some(credential), None),
            Err((kept, refusal)) => (kept, Some(refusal)),
        };
        refused = refused.or(refusal);
        if let Some(credential) = credential {
            shown(&credential, hostname, references.len() > 1, &mut certificates);
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

impl ListenerState<'_> {
    /// Its part of the Gateway's status.
    pub(crate) fn status(&self, generation: Option<i64>) -> Value {
        let invalid = |refusal: &Refusal| Refusal::new("Invalid", refusal.message.clone());
        let programmed = match (&self.accepted, &self.resolved) {
            (Err(refusal), _) => Err(self.is_conflicted().cloned().unwrap_or_else(|| invalid(refusal))),
            (Ok(()), Err(refusal)) if !self.is_programmed() => Err(invalid(refusal)),
            (Ok(()), _) => Ok(()),
        };
        let conflicted = self.is_conflicted();
        let (reason, message) =
            conflicted.map_or(("NoConflicts", ""), |refusal| (refusal.reason, &refusal.message));
        // TLS modes are not mixed on a port: in a listener that would mix them no kind is supported.
        let mixed = conflicted.is_some_and(|refusal| refusal.reason == "ProtocolConflict")
            && matches!(self.flow, Some(FlowKind::Terminate | FlowKind::Passthrough));
        let kinds: Vec<_> = self
            .kinds
            .iter()
            .filter(|_| !mixed)
            .map(|kind| json!({"group": GATEWAY_GROUP, "kind": kind}))
            .collect();
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

//! Layer 4 at the edge: `TLSRoute`, `TCPRoute` and `UDPRoute`, and the sockets that they are served on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use towpath_auth::AuthorizationPolicies;
use towpath_gateway_core::RouteName;
use towpath_routing::{FlowListener, FlowRoute, Hostname, WeightedBackend};

use crate::backend::Carries;
use crate::client_certificate::ByClient;
use crate::compile::Work;
use crate::edge::socket_addresses;
use crate::gateway::GatewayState;
use crate::listener::{FlowKind, ListenerState};
use crate::objects::Stored;
use crate::parents::{Wanted, takers, target};
use crate::resources::gateway::GatewaySpec;
use crate::resources::route::{BackendRef, FlowSpec};
use crate::rule::{resolve, service_name, unresolved};
use crate::status::{Body, Refusal, Verdict, item, parent};
use crate::topology::Rules;
use crate::{Duty, EdgeTls, Listener, StreamTls, unmet};

/// Attaches the routes of layer 4 to the listeners of their parents and adds their status.
pub(crate) fn attach_all(work: &mut Work<'_>, gateways: &mut [GatewayState<'_>]) {
    let objects = work.objects;
    for route in objects.tls_routes.values() {
        attach(work, gateways, route, Carries::Streams);
    }
    for route in objects.tcp_routes.values() {
        attach(work, gateways, route, Carries::Streams);
    }
    for route in objects.udp_routes.values() {
        attach(work, gateways, route, Carries::Datagrams);
    }
}

fn attach<S: FlowSpec>(
    work: &mut Work<'_>,
    gateways: &mut [GatewayState<'_>],
    route: &Stored<S>,
    carries: Carries,
) {
    let references = route.spec.parent_refs().iter();
    let wanted: Vec<_> =
        references.filter_map(|reference| target(work, gateways, route, reference)).collect();
    if wanted.is_empty() {
        return;
    }
    let mut by_client = ByClient::new();
    let mut parents = Vec::new();
    for Wanted { reference, gateway, set } in wanted {
        let Some(gateway) = gateways.get_mut(gateway) else { continue };
        let (compiled, resolved) = by_client.of(work, gateway, |work| compile(work, route, carries));
        let verdict = takers(work, gateway, set, route, reference, route.spec.hostnames())
            .map(|places| put(gateway, places, compiled));
        if let Err(refusal) = &verdict {
            work.problems.push(route.error(reference.name.referenced, refusal.message.clone()));
        }
        let (verdicts, own) = ((&verdict, resolved), &route.name.namespace);
        parents.push(parent(reference, own, &work.controller(), verdicts, route.generation));
    }
    work.status.push(item(route, Body::Parents { parents }));
}

/// Puts a route at listeners that take it, at each once.
fn put(gateway: &mut GatewayState<'_>, places: Vec<(usize, Vec<Hostname>)>, compiled: &FlowRoute) {
    for (place, hostnames) in places {
        let Some(listener) = gateway.listeners.get_mut(place) else { continue };
        if listener.flows.iter().all(|there| there.name != compiled.name) {
            listener.attached += 1;
            listener.flows.push(FlowRoute { hostnames, ..compiled.clone() });
        }
    }
}

/// The route without host names, and whether all its references lead somewhere.
pub(crate) fn compile<S: FlowSpec>(
    work: &mut Work<'_>,
    route: &Stored<S>,
    carries: Carries,
) -> (FlowRoute, Verdict) {
    let (mut resolved, mut rules) = (Ok(()), route.spec.rules().iter());
    let rule = rules.next();
    if rules.next().is_some() {
        let message = "rules of layer 4 have no matches: the first takes every flow, and the others none";
        work.problems.push(route.warning(None, message).suggest("keep one rule"));
    }
    let references = rule.map(|rule| rule.backend_refs.as_slice()).unwrap_or_default();
    if references.iter().all(|reference| reference.weight == Some(0)) {
        let message = "no backend of positive weight: flows are closed";
        work.problems.push(route.warning(references.first().map(|b| b.name.referenced), message));
    }
    let backends =
        references.iter().map(|reference| weighted(work, route, reference, carries, &mut resolved)).collect();
    let name = rule.and_then(|rule| rule.name.clone()).unwrap_or_else(|| "0".to_owned());
    let name = RouteName::new(route.name.to_string(), name);
    (FlowRoute { name, created: route.created, hostnames: Vec::new(), backends }, resolved)
}

fn weighted<S>(
    work: &mut Work<'_>,
    route: &Stored<S>,
    reference: &BackendRef,
    carries: Carries,
    resolved: &mut Verdict,
) -> WeightedBackend {
    let (own, weight) = (&route.name.namespace, reference.weight.unwrap_or(1));
    let service = service_name(reference, own);
    let backend = match resolve(work, (route.kind, own), reference, &service, (false, carries)) {
        Ok(backend) => backend,
        Err(refusal) => {
            work.problems.push(route.error(reference.name.referenced, refusal.message.clone()));
            if resolved.is_ok() {
                *resolved = Err(refusal);
            }
            unresolved(&service, reference)
        }
    };
    WeightedBackend::new(backend, weight)
}

/// Opens the sockets of the listeners of layer 4. `taken` are those of HTTP.
pub(crate) fn open(work: &mut Work<'_>, gateways: &mut [GatewayState<'_>], taken: &BTreeSet<SocketAddr>) {
    let mut sockets: BTreeMap<(bool, SocketAddr), Socket<'_>> = BTreeMap::new();
    for gateway in gateways.iter_mut().filter(|gateway| gateway.accepted.is_ok()) {
        let mut refused = Vec::new();
        let programmed =
            gateway.listeners.iter().enumerate().filter(|(_, listener)| listener.is_programmed());
        for (number, listener) in programmed {
            let Some(kind) = listener.flow else { continue };
            let (kind, table) = served(work, gateway, listener, kind);
            let port = listener.spec.port.value;
            let tls = listener.tls().filter(|_| kind == FlowKind::Terminate);
            for address in socket_addresses(work, gateway, port) {
                let place = (kind == FlowKind::Udp, address);
                let socket = sockets
                    .entry(place)
                    .or_insert_with(|| Socket::new(gateway, listener.spec.port.value, kind, tls.as_ref()));
                let free = kind == FlowKind::Udp || !taken.contains(&address);
                let difference = if free && socket.kind == kind {
                    EdgeTls::difference(socket.tls.as_ref(), tls.as_ref())
                } else {
                    Some("another protocol")
                };
                let Some(difference) = difference else {
                    socket.add(table.clone(), tls.as_ref());
                    if socket.gateways.iter().all(|there| there.name != gateway.object.name) {
                        socket.gateways.push(gateway.object);
                    }
                    continue;
                };
                let message = format!("{address} is taken with {difference}: `{}` has no socket", table.name);
                refused.push((number, Refusal::new("PortUnavailable", message.clone())));
                let problem = gateway.object.error(None, message);
                work.problems.push(problem.suggest("give one of the Gateways another address"));
            }
        }
        for (number, refusal) in refused {
            if let Some(listener) = gateway.listeners.get_mut(number) {
                listener.accepted = Err(refusal);
            }
        }
    }
    for ((_, address), socket) in sockets.into_iter().filter(|(_, socket)| !socket.routes.is_empty()) {
        let authorization = work.gateway_guard(&socket.gateways).authorization;
        unmet::report_unasked(work, &authorization, socket.port);
        work.listeners.push(socket.listener(address, authorization));
    }
}

/// What this process does for a listener. In front of an ingress it hands everything on as it is: TLS ends there.
fn served(
    work: &mut Work<'_>,
    gateway: &GatewayState<'_>,
    listener: &ListenerState<'_>,
    kind: FlowKind,
) -> (FlowKind, FlowListener) {
    let name: Arc<str> = gateway.full_name(listener).into();
    if work.plan.rules != Rules::Front {
        let (hostname, routes) = (listener.hostname.clone(), listener.flows.clone());
        return (kind, FlowListener { name, hostname, routes });
    }
    let (kind, carries) = match kind {
        FlowKind::Udp => (FlowKind::Udp, Carries::Datagrams),
        FlowKind::Tcp | FlowKind::Passthrough | FlowKind::Terminate => (FlowKind::Tcp, Carries::Streams),
    };
    let backends = work.at_ingress(listener.spec.port.value, carries);
    let route =
        FlowRoute { name: RouteName::new(&*name, "ingress"), created: 0, hostnames: Vec::new(), backends };
    (kind, FlowListener { name, hostname: Hostname::Any, routes: vec![route] })
}

/// A socket in the making: what of several Gateways shares it.
struct Socket<'a> {
    name: String,
    port: u16,
    kind: FlowKind,
    tls: Option<EdgeTls>,
    routes: Vec<FlowListener>,
    gateways: Vec<&'a Stored<GatewaySpec>>,
}

impl Socket<'_> {
    fn new(gateway: &GatewayState<'_>, port: u16, kind: FlowKind, tls: Option<&EdgeTls>) -> Self {
        let name = format!("{}:{port}", gateway.object.name);
        let tls = tls.map(EdgeTls::bare);
        Self { name, port, kind, tls, routes: Vec::new(), gateways: Vec::new() }
    }

    fn add(&mut self, table: FlowListener, tls: Option<&EdgeTls>) {
        self.routes.push(table);
        if let (Some(there), Some(tls)) = (&mut self.tls, tls) {
            there.add(&tls.certificates);
        }
    }

    fn listener(self, address: SocketAddr, authorization: AuthorizationPolicies) -> Listener {
        let Self { name, port, kind, tls, routes, .. } = self;
        let tls = match (kind, tls) {
            (FlowKind::Udp, _) => {
                return Listener {
                    name: name.into(),
                    address,
                    duty: Duty::Datagram { port, routes, authorization },
                };
            }
            (FlowKind::Passthrough, _) => StreamTls::Passthrough,
            (_, Some(tls)) => StreamTls::Terminate(tls),
            (_, None) => StreamTls::Opaque,
        };
        Listener { name: name.into(), address, duty: Duty::Stream { tls, port, routes, authorization } }
    }
}

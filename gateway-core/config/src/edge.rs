//! The edge: Gateways, the routes attached to them, and the sockets that both make.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::json;
use towpath_routing::{self as routing, Hostname, Route};

use crate::compile::Work;
use crate::gateway::{GatewayState, judge};
use crate::listener::ListenerState;
use crate::objects::Stored;
use crate::parents::attach;
use crate::policy::Attachments;
use crate::resources::gateway::GatewaySpec;
use crate::status::{Body, Refusal, Verdict, condition, item};
use crate::topology::Rules;
use crate::{Duty, EdgeTls, Guard, Listener, backend_tls, crossing, flow, listener_set, retry_budget};

/// The port of plaintext behind a gateway, for Gateways that have no HTTP listener of their own.
const HTTP_PORT: u16 = 80;

/// Compiles the listeners of a gateway or an ingress, and the status of what it serves.
pub(crate) fn compile(work: &mut Work<'_>) {
    let objects = work.objects;
    classes(work);
    listener_set::check_parents(work);
    let ours: Vec<_> = objects.gateways.values().filter(|gateway| is_ours(work, gateway)).collect();
    let mut gateways: Vec<_> = ours.into_iter().map(|gateway| judge(work, gateway)).collect();
    let mut problems = std::mem::take(&mut work.problems);
    let attachments = Attachments::compile(objects, &mut problems);
    work.problems = problems;
    let mut routes = std::mem::take(&mut work.status);
    for route in objects.http_routes.values() {
        attach(work, &mut gateways, &attachments, route);
    }
    for route in objects.grpc_routes.values() {
        attach(work, &mut gateways, &attachments, route);
    }
    flow::attach_all(work, &mut gateways);
    backend_tls::report(work, &gateways);
    retry_budget::report(work, &gateways);
    let attached = std::mem::take(&mut work.status);
    unknown_in_port_map(work);
    if work.plan.rules == Rules::Front {
        for gateway in &gateways {
            crossing::report(work, gateway);
        }
    }
    let sockets = sockets(work, &mut gateways);
    let taken: BTreeSet<SocketAddr> = sockets.keys().copied().collect();
    for socket in sockets.into_values() {
        let guard = work.gateway_guard(&socket.gateways);
        work.listeners.push(socket.listener(guard));
    }
    flow::open(work, &mut gateways, &taken);
    // Whether a listener has its socket is known now.
    routes.extend(gateways.iter().map(GatewayState::status));
    routes.extend(gateways.iter().flat_map(GatewayState::set_status));
    routes.extend(attached);
    work.status = routes;
}

fn classes(work: &mut Work<'_>) {
    let ours =
        |name: &str| work.options.controller_name.as_deref().is_none_or(|controller| controller == name);
    let classes =
        work.objects.gateway_classes.values().filter(|class| ours(&class.spec.controller_name.value));
    let items: Vec<_> = classes
        .map(|class| {
            let accepted = condition("Accepted", "Accepted", &Ok(()), class.generation);
            item(class, Body::Other(json!({ "conditions": [accepted] })))
        })
        .collect();
    work.status.extend(items);
}

fn is_ours(work: &mut Work<'_>, gateway: &Stored<GatewaySpec>) -> bool {
    let Some(controller) = work.options.controller_name.as_deref() else { return true };
    let wanted = &gateway.spec.gateway_class_name;
    let named = work.objects.gateway_classes.values().find(|class| *class.name.name == *wanted.value);
    if let Some(class) = named {
        return class.spec.controller_name.value == controller;
    }
    let message = format!("there is no GatewayClass {}: the Gateway is served by nobody", wanted.value);
    work.problems.push(gateway.warning(wanted.referenced, message));
    false
}

fn unknown_in_port_map(work: &mut Work<'_>) {
    let entries = work.options.port_map.iter().flat_map(crate::PortMap::iter);
    let mut unknown: Vec<_> = entries
        .filter(|(name, ..)| {
            !work.objects.gateways.contains_key(name) && !work.objects.services.contains_key(name)
        })
        .map(|(name, port, _)| {
            format!("the port map has {name}:{port}, and there is no such Gateway or Service")
        })
        .collect();
    unknown.sort();
    work.problems.extend(unknown.into_iter().map(crate::Problem::warning));
}

/// A socket in the making: what of several Gateways shares it.
struct Socket<'a> {
    name: String,
    address: SocketAddr,
    tls: Option<EdgeTls>,
    routes: Vec<routing::Listener>,
    gateways: Vec<&'a Stored<GatewaySpec>>,
}

impl Socket<'_> {
    fn listener(self, guard: Guard) -> Listener {
        let duty = Duty::Edge { tls: self.tls, routes: self.routes, guard };
        Listener { name: self.name.into(), address: self.address, duty }
    }

    /// Adds a listener; one with the same host name and port is joined, so that neither hides the other.
    fn add(&mut self, listener: routing::Listener, tls: Option<&EdgeTls>) {
        let same = |there: &&mut routing::Listener| {
            there.hostname == listener.hostname && there.port == listener.port
        };
        match self.routes.iter_mut().find(same) {
            Some(there) => there.routes.extend(listener.routes),
            None => self.routes.push(listener),
        }
        if let (Some(there), Some(tls)) = (&mut self.tls, tls) {
            there.add(&tls.certificates);
        }
    }
}

/// The sockets of the listeners for requests, which hand their routes over.
fn sockets<'a>(work: &mut Work<'_>, gateways: &mut [GatewayState<'a>]) -> BTreeMap<SocketAddr, Socket<'a>> {
    let mut sockets = BTreeMap::new();
    let behind = work.plan.rules == Rules::Behind;
    for gateway in gateways.iter_mut().filter(|gateway| gateway.accepted.is_ok()) {
        let plaintext = if behind { plaintext_tables(gateway) } else { Vec::new() };
        for place in 0..gateway.listeners.len() {
            let Some((table, tls)) = table(gateway, place, behind) else { continue };
            let opened = open(work, &mut sockets, gateway, table, tls.as_ref());
            if let (Err(refusal), Some(listener)) = (opened, gateway.listeners.get_mut(place)) {
                listener.accepted = Err(refusal);
            }
        }
        for table in plaintext {
            let port = table.port;
            let Err(refusal) = open(work, &mut sockets, gateway, table, None) else { continue };
            let plaintext = |listener: &&mut ListenerState<'_>| {
                listener.flow.is_none() && !listener.https && listener.spec.port.value == port
            };
            for listener in gateway.listeners.iter_mut().filter(plaintext) {
                listener.accepted = Err(refusal.clone());
            }
        }
    }
    sockets
}

/// What the listener at a place serves, if it takes requests and can have a socket.
fn table(
    gateway: &mut GatewayState<'_>,
    place: usize,
    behind: bool,
) -> Option<(routing::Listener, Option<EdgeTls>)> {
    let routes = std::mem::take(&mut gateway.listeners.get_mut(place)?.routes);
    let listener = gateway.listeners.get(place)?;
    let serves = listener.flow.is_none() && (listener.https || !behind) && listener.is_programmed();
    let table = routing::Listener {
        name: gateway.full_name(listener).into(),
        hostname: listener.hostname.clone(),
        port: listener.spec.port.value,
        https: listener.https,
        routes: routes.into_iter().map(|(_, route)| route).collect(),
    };
    serves.then(|| (table, listener.tls()))
}

/// Behind a gateway TLS has ended: the plaintext ports carry the routes of every listener.
fn plaintext_tables(gateway: &GatewayState<'_>) -> Vec<routing::Listener> {
    let requests = || gateway.listeners.iter().filter(|listener| listener.flow.is_none());
    let accepted = || requests().filter(|listener| listener.accepted.is_ok());
    let mut ports: Vec<u16> = accepted().filter(|l| !l.https).map(|l| l.spec.port.value).collect();
    if ports.is_empty() {
        ports.push(HTTP_PORT);
    }
    ports.sort_unstable();
    ports.dedup();
    let routes = joined(accepted());
    let table = |port| routing::Listener {
        name: gateway.object.name.to_string().into(),
        hostname: Hostname::Any,
        port,
        https: false,
        routes: routes.clone(),
    };
    ports.into_iter().map(table).collect()
}

/// The routes of several listeners, each once with all its host names.
fn joined<'l>(listeners: impl Iterator<Item = &'l ListenerState<'l>>) -> Vec<Route> {
    let mut routes: Vec<(&str, Route)> = Vec::new();
    for (kind, route) in listeners.flat_map(|listener| &listener.routes) {
        match routes.iter_mut().find(|(there_kind, there)| there_kind == kind && there.name == route.name) {
            Some((_, there)) => widen(&mut there.hostnames, &route.hostnames),
            None => routes.push((kind, route.clone())),
        }
    }
    routes.into_iter().map(|(_, route)| route).collect()
}

/// No name at all stands for every host.
fn widen(hostnames: &mut Vec<Hostname>, more: &[Hostname]) {
    if hostnames.is_empty() || more.is_empty() {
        hostnames.clear();
        return;
    }
    for hostname in more {
        if !hostnames.contains(hostname) {
            hostnames.push(hostname.clone());
        }
    }
}

/// Where a port of a Gateway is listened on.
pub(crate) fn socket_addresses(work: &Work<'_>, gateway: &GatewayState<'_>, port: u16) -> Vec<SocketAddr> {
    match &work.options.port_map {
        Some(map) => map.get(&gateway.object.name, port).into_iter().collect(),
        None => gateway.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect(),
    }
}

fn open<'a>(
    work: &mut Work<'_>,
    sockets: &mut BTreeMap<SocketAddr, Socket<'a>>,
    gateway: &GatewayState<'a>,
    table: routing::Listener,
    tls: Option<&EdgeTls>,
) -> Verdict {
    let (name, mut opened) = (&gateway.object.name, Ok(()));
    let addresses = socket_addresses(work, gateway, table.port);
    // The last takes the table itself: routes are many.
    let mut tables = std::iter::repeat_n(table, addresses.len());
    for address in addresses {
        let Some(table) = tables.next() else { continue };
        let socket = sockets.entry(address).or_insert_with(|| Socket {
            name: format!("{name}:{}", table.port),
            address,
            tls: tls.map(EdgeTls::bare),
            routes: Vec::new(),
            gateways: Vec::new(),
        });
        if let Some(difference) = EdgeTls::difference(socket.tls.as_ref(), tls) {
            let message = format!(
                "{address} is taken by {} with {difference}: `{}` has no socket",
                socket.name, table.name
            );
            let problem = gateway.object.error(None, message.clone());
            work.problems.push(problem.suggest("give one of the Gateways another address"));
            opened = Err(Refusal::new("PortUnavailable", message));
        } else {
            socket.add(table, tls);
            if socket.gateways.iter().all(|there| there.name != *name) {
                socket.gateways.push(gateway.object);
            }
        }
    }
    opened
}

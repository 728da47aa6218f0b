//! What a sidecar does with connections that the kernel redirects to it, by where they were for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use towpath_auth::AuthorizationPolicies;

use crate::compile::Work;
use crate::endpoints::Facts;
use crate::objects::Stored;
use crate::resources::core::Service;
use crate::service_routes::ServiceRoutes;
use crate::sidecar::take_in;
use crate::{Capture, Duty, InboundPort, Listener, StreamTls, outbound as way_out};

/// The sockets for connections to the workload: at every port that its Services, itself, a policy or the command line
/// name. Connections to others are closed: nobody said who may use them.
pub(crate) fn inbound(
    work: &mut Work<'_>,
    (capture, given): (&Capture, &[InboundPort]),
    facts: &Facts,
) -> Vec<Listener> {
    let Some(first) = capture.inbound.first() else { return Vec::new() };
    let services = facts.services(work.objects).flat_map(|service| &service.spec.spec.ports);
    let of_services = services.filter(|port| port.is_tcp()).filter_map(|port| facts.port(port));
    let mut ports: BTreeSet<u16> = of_services.chain(facts.own_ports()).collect();
    ports.extend(work.peers.named_ports((&facts.namespace, &facts.labels)));
    ports.extend(given.iter().map(|port| port.port));
    let listeners: Vec<_> = ports
        .into_iter()
        .map(|port| {
            let given = given.iter().find(|given| given.port == port);
            let app = given.map_or(SocketAddr::new(capture.application, port), |given| given.app);
            take_in(work, InboundPort { port, listen: *first, app }, facts)
        })
        .collect();
    for address in &capture.inbound {
        work.listeners.push(Listener {
            name: "captured-inbound".into(),
            address: *address,
            duty: Duty::CapturedInbound { listeners: listeners.clone() },
        });
    }
    listeners
}

/// The sockets for connections of the workload: to every port of every Service, by the addresses that clients use.
pub(crate) fn outbound(work: &mut Work<'_>, routes: &ServiceRoutes<'_>, capture: &Capture) {
    if capture.outbound.is_empty() {
        return;
    }
    let objects = work.objects;
    let (mut listeners, mut seen) = (Vec::new(), BTreeSet::new());
    for service in objects.services.values() {
        for found in of_service(work, routes, service) {
            if seen.insert(found.address) {
                listeners.push(found);
            }
        }
    }
    for address in &capture.outbound {
        work.listeners.push(Listener {
            name: "captured-outbound".into(),
            address: *address,
            duty: Duty::CapturedOutbound {
                listeners: listeners.clone(),
                rest: work.mesh.outbound_traffic_policy,
            },
        });
    }
}

fn of_service(work: &mut Work<'_>, routes: &ServiceRoutes<'_>, service: &Stored<Service>) -> Vec<Listener> {
    let (spec, mut found) = (&service.spec.spec, Vec::new());
    let addresses = spec.addresses();
    if addresses.is_empty() && !spec.is_headless() {
        return found;
    }
    for port in spec.ports.iter().filter(|port| port.is_tcp()) {
        match duties(work, routes, (service, port.port), &addresses) {
            Ok(duties) => found.extend(duties.into_iter().map(|(address, duty)| Listener {
                name: format!("outbound:{}:{}", service.name, port.port).into(),
                address,
                duty,
            })),
            Err(message) => {
                let message = format!("port {}: {message}: captured connections to it are closed", port.port);
                work.problems.push(service.warning(None, message));
                let addresses = addresses.iter().map(|address| SocketAddr::new(*address, port.port));
                found.extend(addresses.map(|address| closed(service, address)));
            }
        }
    }
    found
}

fn duties(
    work: &mut Work<'_>,
    routes: &ServiceRoutes<'_>,
    (service, port): (&Stored<Service>, u16),
    addresses: &BTreeSet<IpAddr>,
) -> Result<Vec<(SocketAddr, Duty)>, String> {
    if service.spec.spec.is_headless() {
        return way_out::each_endpoint(work, &service.name, port);
    }
    let duty = way_out::compile(work, routes, &service.name, port)?;
    Ok(addresses.iter().map(|address| (SocketAddr::new(*address, port), duty.clone())).collect())
}

/// Where nothing can be sent, least of all as it is.
fn closed(service: &Stored<Service>, address: SocketAddr) -> Listener {
    let authorization = AuthorizationPolicies::default();
    let duty =
        Duty::Stream { tls: StreamTls::Opaque, port: address.port(), routes: Vec::new(), authorization };
    Listener { name: format!("outbound:{}:{}", service.name, address.port()).into(), address, duty }
}

//! Tunnels of an ambient mesh: the ports of a workload behind one socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tower::ServiceBuilder;
use towpath_auth::{AuthorizationPolicies, Http};
use towpath_config::{Duty, Listener};
use towpath_gateway_core::{Connection, HttpService, Live, TlsVersion};
use towpath_mesh_mtls::MtlsMode;
use towpath_server::{ConnectionService, Serve, Tunnels};

use super::Shared;
use super::inbound::Inbound;
use crate::worker::WorkerParts;

/// The inbound listeners, with their names.
#[derive(Debug, Clone)]
pub(crate) struct Hbone {
    ports: Vec<(Arc<str>, Inbound)>,
}

impl Hbone {
    pub(super) fn new(inbound: &[Listener], patience: Duration) -> Self {
        let port = |listener: &Listener| {
            let Duty::Inbound { port, mode, guard, application, .. } = &listener.duty else { return None };
            let port = Inbound::new(listener, (*port, *application), (*mode, guard), patience);
            Some((Arc::clone(&listener.name), port))
        };
        Self { ports: inbound.iter().filter_map(port).collect() }
    }

    pub(super) fn fits(&self, inbound: &[Listener]) -> bool {
        let fits = |((name, port), new): (&(Arc<str>, Inbound), &Listener)| {
            *name == new.name && port.fits(&new.duty)
        };
        self.ports.len() == inbound.len() && self.ports.iter().zip(inbound).all(fits)
    }

    pub(super) fn store(&self, inbound: &[Listener]) {
        for ((_, port), new) in self.ports.iter().zip(inbound) {
            if let Duty::Inbound { mode, guard, .. } = &new.duty {
                port.store(new, *mode, guard);
            }
        }
    }

    /// The accept stack of one worker. `worker` counts them.
    pub(super) fn service(&self, shared: &Shared, parts: &WorkerParts, worker: usize) -> ConnectionService {
        let inside = |(name, port): &(Arc<str>, Inbound)| {
            let service = ConnectionService::new(port.behind(shared, parts, (worker, name)));
            (port.port(), Inside { service, policies: port.policies(), http: port.may_be_http() })
        };
        let ports: HashMap<u16, Inside> = self.ports.iter().map(inside).collect();
        let tunnels = Tunnels::new(move |target, connection| opened(&ports, target, connection));
        let serve = Serve::new(HttpService::new(tunnels), shared.limits, shared.drain.clone());
        // HBONE is of TLS 1.3, as ztunnel and Envoy have it.
        let accept = shared.accept(Live::new(MtlsMode::Strict)).minimum_version(Live::new(TlsVersion::Tls13));
        ConnectionService::new(ServiceBuilder::new().layer(accept).service(serve))
    }
}

/// What a tunnel may lead to.
struct Inside {
    service: ConnectionService,
    policies: Live<AuthorizationPolicies>,
    http: bool,
}

/// What a tunnel leads to: the application's port at our own address, unless a policy lets nothing pass.
fn opened(
    ports: &HashMap<u16, Inside>,
    target: SocketAddr,
    connection: &Connection,
) -> Result<(ConnectionService, Connection), StatusCode> {
    // A socket of both families says the addresses of IPv4 in the form of IPv6.
    let here = connection.local.ip().to_canonical();
    let inside = ports.get(&target.port()).filter(|_| target.ip().to_canonical() == here);
    let inside = inside.ok_or(StatusCode::BAD_REQUEST)?;
    let http = if inside.http { Http::Ahead } else { Http::None };
    if !inside.policies.load().evaluate_connection(connection, target.port(), http).allowed {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut connection = Connection { local: target, ..connection.clone() };
    // Which protocol the tunnel speaks says nothing of what is in it.
    if let Some(tls) = &mut connection.tls {
        tls.alpn = None;
    }
    Ok((inside.service.clone(), connection))
}

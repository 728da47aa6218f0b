//! One listener at work: the data that configuration swaps, and the stack that reads it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::StatusCode;
use rustls::ServerConfig;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use towpath_auth::{AuthorizationPolicies, Http, RecheckLayer};
use towpath_config::{Application, ClientValidationMode, Duty, EdgeTls, Guard, Listener, StreamTls};
use towpath_gateway_core::{Accepted, Changes, Connection, HttpService, Live, Policies, RouteName};
use towpath_mesh_mtls::{AcceptLayer, Identity, MtlsMode, Refusals};
use towpath_routing::{self as routing, FlowListener, FlowRoute, FlowRoutes, Normalization, Routes};
use towpath_server::{
    CertificateError, ConnectionFuture, ConnectionService, DatagramService, Detect, Drain, EdgeCertificates,
    Limits, Serve, ServerNameLayer, TerminateLayer, Tunnels, UntilDrainedLayer,
};
use towpath_stacks::{
    AcceptStack, Entry, FlowEntry, HttpStack, datagrams, gateway, ingress, layer4, sidecar_inbound,
    sidecar_outbound,
};

use crate::Program;
use crate::worker::WorkerParts;

/// What configuration swaps while the listener runs.
#[derive(Debug, Clone)]
pub(crate) enum LiveDuty {
    Edge {
        tls: Option<Live<Arc<ServerConfig>>>,
        entry: Entry,
    },
    Inbound {
        modes: Modes,
        entry: Entry,
        application: Application,
        // To the application, for what is not HTTP.
        flows: Live<FlowRoutes>,
        // Of the policies, for connections that live longer.
        changes: Changes,
    },
    /// The inbound listeners by their ports, with their names.
    Hbone {
        ports: Vec<(u16, Arc<str>, LiveDuty)>,
    },
    Outbound {
        routes: Live<Routes>,
        normalization: Live<Normalization>,
    },
    Stream {
        tls: LiveTls,
        entry: FlowEntry,
    },
}

/// What a listener of layer 4 does about TLS.
#[derive(Debug, Clone)]
pub(crate) enum LiveTls {
    Opaque,
    Passthrough,
    Terminate(Live<Arc<ServerConfig>>),
}

/// The data of a listener, by the transport of its socket.
#[derive(Debug, Clone)]
pub(crate) enum LiveSocket {
    Connections(LiveDuty),
    Datagrams(FlowEntry),
}

/// What every listener of a process shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) program: Program,
    pub(crate) identity: Option<Identity>,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Limits,
    // Of the connections that this is given to: the listener's own below the process's.
    pub(crate) drain: Drain,
    pub(crate) patience: Duration,
}

impl LiveSocket {
    /// The data of a new listener.
    pub(crate) fn new(listener: &Listener, patience: Duration) -> Result<Self, CertificateError> {
        if let Duty::Datagram { port, routes, authorization } = &listener.duty {
            return Ok(Self::Datagrams(flow_entry(*port, routes, authorization)));
        }
        LiveDuty::new(listener, patience).map(Self::Connections)
    }

    /// Whether `listener` can be served by swapping data: the same kind of listener, with TLS where there was TLS.
    pub(crate) fn fits(&self, listener: &Listener) -> bool {
        match (self, &listener.duty) {
            (Self::Datagrams(entry), Duty::Datagram { port, .. }) => entry.port == *port,
            (Self::Datagrams(_), _) => false,
            (Self::Connections(duty), new) => duty.fits(new),
        }
    }

    /// Puts new data in place. On an error nothing has changed.
    pub(crate) fn store(&self, listener: &Listener) -> Result<(), CertificateError> {
        match (self, &listener.duty) {
            (Self::Datagrams(entry), Duty::Datagram { routes, authorization, .. }) => {
                store_flows(entry, routes, authorization);
                Ok(())
            }
            (Self::Datagrams(_), _) => Ok(()),
            (Self::Connections(duty), _) => duty.store(listener),
        }
    }

    /// Lets connections that are under a drain of this listener's data end.
    pub(crate) fn drain(&self) {
        if let Self::Connections(LiveDuty::Inbound { modes, .. }) = self {
            modes.plaintext.load().signal();
        }
    }
}

impl LiveDuty {
    fn new(listener: &Listener, patience: Duration) -> Result<Self, CertificateError> {
        Ok(match &listener.duty {
            // Datagrams have no connections.
            Duty::Datagram { .. } => Self::Hbone { ports: Vec::new() },
            Duty::Hbone { inbound } => {
                let port = |listener: &Listener| match &listener.duty {
                    Duty::Inbound { port, .. } => Some(
                        Self::new(listener, patience).map(|duty| (*port, Arc::clone(&listener.name), duty)),
                    ),
                    _ => None,
                };
                Self::Hbone { ports: inbound.iter().filter_map(port).collect::<Result<_, _>>()? }
            }
            Duty::Edge { tls, routes, guard } => LiveDuty::Edge {
                tls: match tls {
                    Some(tls) => Some(Live::new(edge_certificates(tls)?.server_config()?)),
                    None => None,
                },
                entry: entry(Routes::new(routes.clone()), guard, port_of(routes)),
            },
            Duty::Stream { tls, port, routes, authorization } => LiveDuty::Stream {
                tls: match tls {
                    StreamTls::Opaque => LiveTls::Opaque,
                    StreamTls::Passthrough => LiveTls::Passthrough,
                    StreamTls::Terminate(tls) => {
                        LiveTls::Terminate(Live::new(edge_certificates(tls)?.opaque_config()?))
                    }
                },
                entry: flow_entry(*port, routes, authorization),
            },
            Duty::Inbound { port, mode, guard, application, .. } => LiveDuty::Inbound {
                application: *application,
                flows: Live::new(inbound_flows(listener)),
                changes: Changes::new(),
                modes: Modes::new(*mode, patience),
                entry: entry(inbound_routes(listener), guard, *port),
            },
            Duty::Outbound { routes, normalization } => LiveDuty::Outbound {
                routes: Live::new(Routes::new(routes.clone())),
                normalization: Live::new(*normalization),
            },
        })
    }

    fn fits(&self, new: &Duty) -> bool {
        match (self, new) {
            (Self::Edge { tls, entry }, Duty::Edge { tls: new, routes, .. }) => {
                tls.is_some() == new.is_some() && entry.port == port_of(routes)
            }
            (Self::Inbound { entry, application, .. }, Duty::Inbound { port, application: new, .. }) => {
                entry.port == *port && application == new
            }
            (Self::Outbound { .. }, Duty::Outbound { .. }) => true,
            (Self::Hbone { ports }, Duty::Hbone { inbound }) => {
                ports.len() == inbound.len()
                    && ports
                        .iter()
                        .zip(inbound)
                        .all(|((_, name, duty), new)| *name == new.name && duty.fits(&new.duty))
            }
            (Self::Stream { tls, entry }, Duty::Stream { tls: new, port, .. }) => {
                entry.port == *port && tls.fits(new)
            }
            _ => false,
        }
    }

    fn store(&self, listener: &Listener) -> Result<(), CertificateError> {
        match (self, &listener.duty) {
            (Self::Edge { tls, entry }, Duty::Edge { tls: new, routes, guard }) => {
                if let (Some(tls), Some(new)) = (tls, new) {
                    tls.store(edge_certificates(new)?.server_config()?);
                }
                store_guard(entry, guard);
                entry.routes.store(Routes::new(routes.clone()));
            }
            (Self::Inbound { modes, entry, flows, changes, .. }, Duty::Inbound { mode: new, guard, .. }) => {
                store_guard(entry, guard);
                changes.tell();
                flows.store(inbound_flows(listener));
                entry.routes.store(inbound_routes(listener));
                modes.change(*new);
            }
            (Self::Hbone { ports }, Duty::Hbone { inbound }) => {
                for ((_, _, duty), new) in ports.iter().zip(inbound) {
                    duty.store(new)?;
                }
            }
            (
                Self::Outbound { routes: live, normalization: forms },
                Duty::Outbound { routes, normalization },
            ) => {
                forms.store(*normalization);
                live.store(Routes::new(routes.clone()));
            }
            (Self::Stream { tls, entry }, Duty::Stream { tls: new, routes, authorization, .. }) => {
                if let (LiveTls::Terminate(config), StreamTls::Terminate(new)) = (tls, new) {
                    config.store(edge_certificates(new)?.opaque_config()?);
                }
                store_flows(entry, routes, authorization);
            }
            _ => {}
        }
        Ok(())
    }

    /// The accept stack of one worker, for the listener of this name.
    pub(crate) fn service(
        &self,
        shared: &Shared,
        parts: &WorkerParts,
        place: (usize, &Arc<str>),
    ) -> ConnectionService {
        match self.clone() {
            Self::Stream { tls, entry } => tls.service(shared, layer4(parts.flows_of(place), entry)),
            Self::Edge { tls, entry } => {
                let serve = match shared.program {
                    Program::Ingress => shared.serve(ingress(parts.of(place), entry)),
                    Program::Gateway | Program::Sidecar => shared.serve(gateway(parts.of(place), entry)),
                };
                match tls {
                    Some(tls) => ConnectionService::new(
                        TerminateLayer::new(tls, shared.limits.handshake_timeout)
                            .with_drain(shared.drain.clone())
                            .layer(serve),
                    ),
                    None => ConnectionService::new(serve),
                }
            }
            Self::Inbound { ref modes, .. } => {
                let accept = shared.accept(modes.current.clone());
                let behind = self.behind(shared, parts, place);
                ConnectionService::new(ServiceBuilder::new().layer(accept).service(behind))
            }
            Self::Hbone { ports } => {
                let ports: HashMap<u16, Inside> = ports
                    .into_iter()
                    .filter_map(|(port, name, duty)| {
                        Some((port, duty.inside(shared, parts, (place.0, &name))?))
                    })
                    .collect();
                let tunnels = Tunnels::new(move |target, connection| opened(&ports, target, connection));
                let serve = Serve::new(HttpService::new(tunnels), shared.limits, shared.drain.clone());
                let accept = shared.accept(Live::new(MtlsMode::Strict));
                ConnectionService::new(ServiceBuilder::new().layer(accept).service(serve))
            }
            Self::Outbound { routes, normalization } => {
                ConnectionService::new(shared.serve(sidecar_outbound(parts.of(place), routes, normalization)))
            }
        }
    }
}

impl LiveDuty {
    /// What is behind the mTLS of an inbound listener.
    fn behind(&self, shared: &Shared, parts: &WorkerParts, place: (usize, &Arc<str>)) -> ByTransport {
        let Self::Inbound { modes, entry, application, flows, changes } = self.clone() else {
            return ByTransport::nothing();
        };
        let flow_entry =
            FlowEntry { routes: flows, authorization: entry.authorization.clone(), port: entry.port };
        let opaque = layer4(parts.flows_of(place), flow_entry);
        let rechecks = [RecheckLayer::http, RecheckLayer::tcp].map(|layer| {
            let layer = layer(entry.authorization.clone(), changes.clone()).port(entry.port);
            layer.on_end(|connection, verdict| {
                let policy = verdict.policy.as_deref().unwrap_or_default();
                tracing::info!(peer = %connection.peer, policy, "connection ended: {}", verdict.ground.as_str());
            })
        });
        let stack = HttpService::new(sidecar_inbound(parts.of(place), entry));
        let carrier = Carrier { stack, opaque, application, limits: shared.limits, rechecks };
        ByTransport {
            plaintext: carrier.serve(modes.plaintext.clone()),
            mtls: carrier.serve(shared.drain.clone()),
            passed: ConnectionService::new(carrier.opaque(&modes.plaintext)),
        }
    }

    fn inside(&self, shared: &Shared, parts: &WorkerParts, place: (usize, &Arc<str>)) -> Option<Inside> {
        let Self::Inbound { entry, application, .. } = self else { return None };
        Some(Inside {
            service: ConnectionService::new(self.behind(shared, parts, place)),
            policies: entry.authorization.clone(),
            http: *application != Application::Opaque,
        })
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
    let inside = ports.get(&target.port()).filter(|_| target.ip() == connection.local.ip());
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

/// The stack of one worker for the datagrams of the listener of this name.
pub(crate) fn datagram_service(
    entry: &FlowEntry,
    shared: &Shared,
    parts: &WorkerParts,
    place: (usize, &Arc<str>),
) -> DatagramService {
    let stack = datagrams(parts.flows_of(place).recorder, entry.clone());
    DatagramService::new(UntilDrainedLayer::new(shared.drain.clone()).layer(stack))
}

impl LiveTls {
    fn fits(&self, new: &StreamTls) -> bool {
        matches!(
            (self, new),
            (Self::Opaque, StreamTls::Opaque)
                | (Self::Passthrough, StreamTls::Passthrough)
                | (Self::Terminate(_), StreamTls::Terminate(_))
        )
    }

    /// The accept stack around a stack of layer 4.
    fn service(&self, shared: &Shared, stack: impl AcceptStack) -> ConnectionService {
        let (limit, drain) = (shared.limits.handshake_timeout, shared.drain.clone());
        let stack = UntilDrainedLayer::new(drain.clone()).layer(stack);
        match self {
            Self::Opaque => ConnectionService::new(stack),
            Self::Passthrough => ConnectionService::new(ServerNameLayer::new(limit, drain).layer(stack)),
            Self::Terminate(config) => {
                let layer = TerminateLayer::new(config.clone(), limit).with_drain(drain);
                ConnectionService::new(layer.layer(stack))
            }
        }
    }
}

/// The data of a stack, for the first time.
pub(crate) fn entry(routes: Routes, guard: &Guard, port: u16) -> Entry {
    Entry {
        routes: Live::new(routes),
        normalization: Live::new(guard.normalization),
        authentication: Live::new(guard.authentication.clone()),
        authorization: Live::new(guard.authorization.clone()),
        port,
    }
}

fn store_guard(entry: &Entry, guard: &Guard) {
    entry.normalization.store(guard.normalization);
    entry.authentication.store(guard.authentication.clone());
    entry.authorization.store(guard.authorization.clone());
}

fn flow_entry(
    port: u16,
    routes: &[routing::FlowListener],
    authorization: &AuthorizationPolicies,
) -> FlowEntry {
    FlowEntry {
        routes: Live::new(FlowRoutes::new(routes.to_vec())),
        authorization: Live::new(authorization.clone()),
        port,
    }
}

fn store_flows(entry: &FlowEntry, routes: &[routing::FlowListener], authorization: &AuthorizationPolicies) {
    entry.authorization.store(authorization.clone());
    entry.routes.store(FlowRoutes::new(routes.to_vec()));
}

/// How long both plaintext and mTLS are taken when one comes in place of the other: clients learn of it on their own, and
/// change a second later.
pub(crate) const NARROWED_AFTER: Duration = Duration::from_secs(3);

/// The mode of an inbound listener.
#[derive(Debug, Clone)]
pub(crate) struct Modes {
    current: Live<MtlsMode>,
    /// What comes after both ways were taken for a while.
    next: Live<Option<MtlsMode>>,
    /// Ends the plaintext connections of before when the mode takes no more of them.
    plaintext: Live<Drain>,
    patience: Duration,
}

impl Modes {
    fn new(mode: MtlsMode, patience: Duration) -> Self {
        let plaintext = Live::new(Drain::new(patience));
        Self { current: Live::new(mode), next: Live::default(), plaintext, patience }
    }

    /// Puts a mode in force: at once, or where nothing of the old one is taken by the new one, by way of PERMISSIVE.
    fn change(&self, new: MtlsMode) {
        let old = **self.current.load();
        if **self.next.load() == Some(new) {
            return;
        }
        let apart = !(old.takes_plaintext() && new.takes_plaintext() || old.takes_mtls() && new.takes_mtls());
        if !apart {
            self.next.store(None);
            self.store(new);
            return;
        }
        self.next.store(Some(new));
        self.store(MtlsMode::Permissive);
        let modes = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(NARROWED_AFTER).await;
            if **modes.next.load() == Some(new) {
                modes.next.store(None);
                modes.store(new);
            }
        });
    }

    /// Under STRICT, requests on plaintext connections of before are answered, and no new ones taken: a connection that
    /// comes late finds the drain signalled, too.
    fn store(&self, new: MtlsMode) {
        if new == MtlsMode::Strict {
            self.current.store(new);
            self.plaintext.load().signal();
            return;
        }
        if self.plaintext.load().is_draining() {
            self.plaintext.store(Drain::new(self.patience));
        }
        self.current.store(new);
    }
}

/// What serves connections to the application, once it is known who is at their other end.
struct Carrier<O> {
    stack: HttpService,
    opaque: O,
    application: Application,
    limits: Limits,
    /// For requests, and for what is not HTTP.
    rechecks: [RecheckLayer; 2],
}

impl<O: AcceptStack> Carrier<O> {
    /// Under this drain.
    fn serve(&self, drain: impl Into<Live<Drain>>) -> ConnectionService {
        let drain = drain.into();
        let [recheck, _] = &self.rechecks;
        let http = || recheck.layer(Serve::new(self.stack.clone(), self.limits, drain.clone()));
        match self.application {
            Application::Http => ConnectionService::new(http()),
            Application::Opaque => ConnectionService::new(self.opaque(&drain)),
            Application::Unknown => ConnectionService::new(Detect::new(http(), self.opaque(&drain))),
        }
    }

    fn opaque(&self, drain: &Live<Drain>) -> impl AcceptStack + use<O> {
        let [_, recheck] = &self.rechecks;
        recheck.layer(UntilDrainedLayer::new(drain.clone()).layer(self.opaque.clone()))
    }
}

/// Serves plaintext connections, and TLS that ends at the application, under a drain of their own.
#[derive(Clone)]
struct ByTransport {
    plaintext: ConnectionService,
    mtls: ConnectionService,
    passed: ConnectionService,
}

impl ByTransport {
    /// Closes every connection.
    fn nothing() -> Self {
        let closed =
            || ConnectionService::new(service_fn(|_: Accepted| std::future::ready(Ok::<_, Infallible>(()))));
        Self { plaintext: closed(), mtls: closed(), passed: closed() }
    }
}

impl Service<Accepted> for ByTransport {
    type Response = ();
    type Error = Infallible;
    type Future = ConnectionFuture;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        for service in [&mut self.plaintext, &mut self.mtls, &mut self.passed] {
            std::task::ready!(service.poll_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> ConnectionFuture {
        if accepted.connection.passed_through {
            self.passed.call(accepted)
        } else if accepted.connection.tls.is_some() {
            self.mtls.call(accepted)
        } else {
            self.plaintext.call(accepted)
        }
    }
}

impl Shared {
    fn accept(&self, mode: Live<MtlsMode>) -> AcceptLayer {
        // Without an identity the compiler has set the mode to DISABLE; pending fails closed all the same.
        let identity = self.identity.clone().unwrap_or_else(Identity::pending);
        AcceptLayer::new(identity, mode)
            .handshake_timeout(self.limits.handshake_timeout)
            .count_in(self.refusals.clone())
    }

    fn serve(&self, stack: impl HttpStack) -> Serve<HttpService> {
        Serve::new(HttpService::new(stack), self.limits, self.drain.clone())
    }
}

/// The port that the resources name: listeners that share a socket share it.
fn port_of(routes: &[routing::Listener]) -> u16 {
    routes.first().map_or(0, |listener| listener.port)
}

pub(crate) fn edge_certificates(tls: &EdgeTls) -> Result<EdgeCertificates, CertificateError> {
    let mut builder = EdgeCertificates::new();
    if let Some(clients) = &tls.clients {
        match clients.mode {
            ClientValidationMode::AllowValidOnly => {
                builder.require_clients(clients.roots.iter().map(|root| root.to_vec().into()).collect())?;
            }
            ClientValidationMode::AllowInsecureFallback => builder.ask_clients(),
        }
    }
    for certificate in &tls.certificates {
        builder.add(
            &certificate.hostname.to_string(),
            certificate.chain.clone(),
            certificate.key.clone_key(),
        )?;
    }
    Ok(builder)
}

/// The one route of an inbound listener: everything goes to the application.
pub(crate) fn inbound_routes(listener: &Listener) -> Routes {
    let Duty::Inbound { port, app, .. } = &listener.duty else { return Routes::default() };
    let name: Arc<str> = format!("inbound/{port}").into();
    let rule = routing::Rule {
        name: RouteName::new(Arc::clone(&name), "app"),
        matches: Vec::new(),
        filters: routing::Filters::default(),
        backends: vec![routing::WeightedBackend::new(Arc::clone(app), 1)],
        policies: Policies::builder().with(no_deadline()).build(),
    };
    let route = routing::Route { name, created: 0, hostnames: Vec::new(), rules: vec![rule] };
    Routes::new(vec![routing::Listener {
        name: Arc::clone(&listener.name),
        hostname: routing::Hostname::Any,
        port: *port,
        https: false,
        routes: vec![route],
    }])
}

/// The same for what is not HTTP.
fn inbound_flows(listener: &Listener) -> FlowRoutes {
    let Duty::Inbound { port, app, .. } = &listener.duty else { return FlowRoutes::default() };
    let route = FlowRoute {
        name: RouteName::new(format!("inbound/{port}"), "app"),
        created: 0,
        hostnames: Vec::new(),
        backends: vec![routing::WeightedBackend::new(Arc::clone(app), 1)],
    };
    FlowRoutes::new(vec![FlowListener {
        name: Arc::clone(&listener.name),
        hostname: routing::Hostname::Any,
        routes: vec![route],
    }])
}

/// Time limits are the caller's: its route says how long it waits, and it hangs up when that has passed.
fn no_deadline() -> towpath_upstream::Timeouts {
    towpath_upstream::Timeouts { request: None, backend_request: None }
}

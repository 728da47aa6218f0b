//! One listener at work: the data that configuration swaps, and the stack that reads it.

mod captured;
mod hbone;
mod inbound;
mod modes;

use std::sync::Arc;
use std::time::Duration;

use tower::{Layer, ServiceBuilder};
use towpath_auth::AuthorizationPolicies;
use towpath_config::{ClientValidationMode, Duty, EdgeTls, Guard, Listener, StreamTls};
use towpath_gateway_core::{HttpService, Live, TlsVersion};
use towpath_mesh_mtls::{AcceptLayer, Identity, MtlsMode, Refusals};
use towpath_routing::{self as routing, FlowRoutes, Normalization, Routes};
use towpath_server::{
    CertificateError, ConnectionService, DatagramService, Detect, Drain, EdgeCertificates, EdgeConfig,
    Limits, Serve, ServerNameLayer, TerminateLayer, UntilDrainedLayer,
};
use towpath_stacks::{
    AcceptStack, Entry, FlowEntry, HttpStack, datagrams, gateway, ingress, layer4, sidecar_outbound,
};

use self::captured::Captured;
use self::hbone::Hbone;
use self::inbound::Inbound;
pub(crate) use self::inbound::inbound_routes;
use crate::Program;
use crate::worker::WorkerParts;

/// What configuration swaps while the listener runs.
#[derive(Debug, Clone)]
pub(crate) enum LiveDuty {
    Edge { tls: Option<Live<EdgeConfig>>, entry: Entry },
    Inbound(Inbound),
    Hbone(Hbone),
    Outbound { routes: Live<Routes>, normalization: Live<Normalization>, flows: Option<FlowEntry> },
    Captured(Captured),
    Stream { tls: LiveTls, entry: FlowEntry },
}

/// What a listener of layer 4 does about TLS.
#[derive(Debug, Clone)]
pub(crate) enum LiveTls {
    Opaque,
    Passthrough,
    Terminate(Live<EdgeConfig>),
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
    // Of TLS in the mesh, the oldest.
    pub(crate) min_tls_version: Live<TlsVersion>,
    pub(crate) limits: Limits,
    // Of the connections that this is given to: the listener's own below the process's.
    pub(crate) drain: Drain,
    pub(crate) patience: Duration,
}

impl LiveSocket {
    /// The data of a new listener.
    pub(crate) fn new(listener: &Listener, patience: Duration) -> Result<Self, CertificateError> {
        Ok(Self::Connections(match &listener.duty {
            Duty::Datagram { port, routes, authorization } => {
                return Ok(Self::Datagrams(flow_entry(*port, routes, authorization)));
            }
            Duty::Hbone { inbound } => LiveDuty::Hbone(Hbone::new(inbound, patience)),
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
            Duty::Inbound { port, mode, guard, application, .. } => {
                LiveDuty::Inbound(Inbound::new(listener, (*port, *application), (*mode, guard), patience))
            }
            Duty::Outbound { port, routes, normalization, flows } => LiveDuty::Outbound {
                routes: Live::new(Routes::new(routes.clone())),
                normalization: Live::new(*normalization),
                flows: (!flows.is_empty())
                    .then(|| flow_entry(*port, flows, &AuthorizationPolicies::default())),
            },
            Duty::CapturedInbound { .. } | Duty::CapturedOutbound { .. } => {
                LiveDuty::Captured(Captured::new(listener, patience)?)
            }
        }))
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
        if let Self::Connections(duty) = self {
            duty.drain();
        }
    }
}

impl LiveDuty {
    /// Lets connections that are under a drain of this data end.
    fn drain(&self) {
        match self {
            Self::Inbound(inbound) => inbound.drain(),
            Self::Captured(captured) => captured.drain(),
            _ => {}
        }
    }

    fn fits(&self, new: &Duty) -> bool {
        match (self, new) {
            (Self::Edge { tls, entry }, Duty::Edge { tls: new, routes, .. }) => {
                tls.is_some() == new.is_some() && entry.port == port_of(routes)
            }
            (Self::Inbound(inbound), new) => inbound.fits(new),
            (Self::Outbound { flows, .. }, Duty::Outbound { port, flows: new, .. }) => match flows {
                Some(flows) => !new.is_empty() && flows.port == *port,
                None => new.is_empty(),
            },
            (Self::Captured(captured), new) => captured.fits(new),
            (Self::Hbone(hbone), Duty::Hbone { inbound }) => hbone.fits(inbound),
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
            (Self::Inbound(inbound), Duty::Inbound { mode, guard, .. }) => {
                inbound.store(listener, *mode, guard);
            }
            (Self::Hbone(hbone), Duty::Hbone { inbound }) => hbone.store(inbound),
            (
                Self::Outbound { routes: live, normalization: forms, flows },
                Duty::Outbound { routes, normalization, flows: new, .. },
            ) => {
                forms.store(*normalization);
                live.store(Routes::new(routes.clone()));
                if let Some(flows) = flows {
                    store_flows(flows, new, &AuthorizationPolicies::default());
                }
            }
            (Self::Captured(captured), _) => captured.store(listener)?,
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
        parts: &Arc<WorkerParts>,
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
            Self::Inbound(inbound) => {
                let accept = shared.accept(inbound.mode());
                let behind = inbound.behind(shared, parts, place);
                ConnectionService::new(ServiceBuilder::new().layer(accept).service(behind))
            }
            Self::Hbone(hbone) => hbone.service(shared, parts, place.0),
            Self::Outbound { routes, normalization, flows } => {
                let http = shared.serve(sidecar_outbound(parts.of(place), routes, normalization));
                match flows {
                    Some(flows) => {
                        let stack = layer4(parts.flows_of(place), flows);
                        let opaque = UntilDrainedLayer::new(shared.drain.clone()).layer(stack);
                        ConnectionService::new(Detect::new(http, opaque))
                    }
                    None => ConnectionService::new(http),
                }
            }
            Self::Captured(captured) => captured.service(shared, parts, place),
        }
    }
}

/// The stack of one worker for the datagrams of the listener of this name.
pub(crate) fn datagram_service(
    entry: &FlowEntry,
    shared: &Shared,
    parts: &WorkerParts,
    place: (usize, &Arc<str>),
) -> DatagramService {
    let stack = datagrams(parts.flows_of(place), entry.clone());
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

impl Shared {
    fn accept(&self, mode: Live<MtlsMode>) -> AcceptLayer {
        // Without an identity the compiler has set the mode to DISABLE; pending fails closed all the same.
        let identity = self.identity.clone().unwrap_or_else(Identity::pending);
        AcceptLayer::new(identity, mode)
            .handshake_timeout(self.limits.handshake_timeout)
            .minimum_version(self.min_tls_version.clone())
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

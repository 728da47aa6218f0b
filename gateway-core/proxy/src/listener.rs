//! One listener at work: the data that configuration swaps, and the stack that reads it.

use std::sync::Arc;

use rustls::ServerConfig;
use tower::{Layer, ServiceBuilder};
use towpath_auth::AuthorizationPolicies;
use towpath_config::{Duty, EdgeCertificate, Listener};
use towpath_gateway_core::{HttpService, Live, Policies, RouteName};
use towpath_mesh_mtls::{AcceptLayer, Identity, MtlsMode, Refusals};
use towpath_routing::{self as routing, Routes};
use towpath_server::{
    CertificateError, ConnectionService, Drain, EdgeCertificates, Limits, Serve, TerminateLayer,
};
use towpath_stacks::{HttpStack, Inbound, Parts, gateway, ingress, sidecar_inbound, sidecar_outbound};

use crate::Program;

/// What configuration swaps while the listener runs.
#[derive(Debug, Clone)]
pub(crate) enum LiveDuty {
    Edge {
        tls: Option<Live<Arc<ServerConfig>>>,
        routes: Live<Routes>,
    },
    Inbound {
        port: u16,
        mode: Live<MtlsMode>,
        authorization: Live<AuthorizationPolicies>,
        routes: Live<Routes>,
    },
    Outbound {
        routes: Live<Routes>,
    },
}

/// What every listener of a process shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) program: Program,
    pub(crate) identity: Option<Identity>,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
}

impl LiveDuty {
    /// The data of a new listener.
    pub(crate) fn new(listener: &Listener) -> Result<Self, CertificateError> {
        Ok(match &listener.duty {
            Duty::Edge { certificates, routes } => Self::Edge {
                tls: if certificates.is_empty() {
                    None
                } else {
                    Some(Live::new(server_config(certificates)?))
                },
                routes: Live::new(Routes::new(routes.clone())),
            },
            Duty::Inbound { port, mode, authorization, .. } => Self::Inbound {
                port: *port,
                mode: Live::new(*mode),
                authorization: Live::new(authorization.clone()),
                routes: Live::new(inbound_routes(listener)),
            },
            Duty::Outbound { routes } => Self::Outbound { routes: Live::new(Routes::new(routes.clone())) },
        })
    }

    /// Whether `listener` can be served by swapping data: the same kind of listener, with TLS where there was TLS.
    pub(crate) fn fits(&self, listener: &Listener) -> bool {
        match (self, &listener.duty) {
            (Self::Edge { tls, .. }, Duty::Edge { certificates, .. }) => {
                tls.is_some() != certificates.is_empty()
            }
            (Self::Inbound { port: ours, .. }, Duty::Inbound { port, .. }) => ours == port,
            (Self::Outbound { .. }, Duty::Outbound { .. }) => true,
            _ => false,
        }
    }

    /// Puts new data in place. On an error nothing has changed.
    pub(crate) fn store(&self, listener: &Listener) -> Result<(), CertificateError> {
        match (self, &listener.duty) {
            (Self::Edge { tls, routes: live }, Duty::Edge { certificates, routes }) => {
                if let Some(tls) = tls {
                    tls.store(server_config(certificates)?);
                }
                live.store(Routes::new(routes.clone()));
            }
            (
                Self::Inbound { mode, authorization, routes, .. },
                Duty::Inbound { mode: new, authorization: policies, .. },
            ) => {
                mode.store(*new);
                authorization.store(policies.clone());
                routes.store(inbound_routes(listener));
            }
            (Self::Outbound { routes: live }, Duty::Outbound { routes }) => {
                live.store(Routes::new(routes.clone()))
            }
            _ => {}
        }
        Ok(())
    }

    /// The accept stack of one worker.
    pub(crate) fn service(&self, shared: &Shared, parts: Parts) -> ConnectionService {
        match self.clone() {
            Self::Edge { tls, routes } => {
                let serve = match shared.program {
                    Program::Ingress => shared.serve(ingress(parts, routes)),
                    Program::Gateway | Program::Sidecar => shared.serve(gateway(parts, routes)),
                };
                match tls {
                    Some(tls) => ConnectionService::new(
                        TerminateLayer::new(tls, shared.limits.handshake_timeout).layer(serve),
                    ),
                    None => ConnectionService::new(serve),
                }
            }
            Self::Inbound { port, mode, authorization, routes } => {
                let serve = shared.serve(sidecar_inbound(parts, Inbound { routes, authorization, port }));
                // Without an identity the compiler has set the mode to DISABLE; pending fails closed all the same.
                let identity = shared.identity.clone().unwrap_or_else(Identity::pending);
                let accept = AcceptLayer::new(identity, mode)
                    .handshake_timeout(shared.limits.handshake_timeout)
                    .count_in(shared.refusals.clone());
                ConnectionService::new(ServiceBuilder::new().layer(accept).service(serve))
            }
            Self::Outbound { routes } => {
                ConnectionService::new(shared.serve(sidecar_outbound(parts, routes)))
            }
        }
    }
}

impl Shared {
    fn serve(&self, stack: impl HttpStack) -> Serve<HttpService> {
        Serve::new(HttpService::new(stack), self.limits, self.drain.clone())
    }
}

fn server_config(certificates: &[EdgeCertificate]) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut builder = EdgeCertificates::new();
    for certificate in certificates {
        builder.add(
            &certificate.hostname.to_string(),
            certificate.chain.clone(),
            certificate.key.clone_key(),
        )?;
    }
    builder.server_config()
}

/// The one route of an inbound listener: everything goes to the application.
fn inbound_routes(listener: &Listener) -> Routes {
    let Duty::Inbound { port, app, .. } = &listener.duty else { return Routes::default() };
    let name: Arc<str> = format!("inbound/{port}").into();
    let rule = routing::Rule {
        name: RouteName::new(Arc::clone(&name), "app"),
        matches: Vec::new(),
        filters: routing::Filters::default(),
        backends: vec![routing::WeightedBackend {
            backend: Arc::clone(app),
            weight: 1,
            request_headers: routing::HeaderModifier::default(),
            response_headers: routing::HeaderModifier::default(),
        }],
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

/// Time limits are the caller's: its route says how long it waits, and it hangs up when that has passed.
fn no_deadline() -> towpath_upstream::Timeouts {
    towpath_upstream::Timeouts { request: None, backend_request: None }
}

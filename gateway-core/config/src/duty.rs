//! The sockets of a process, and what each is for.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use towpath_auth::{AuthorizationPolicies, ExternalAuth, RequestAuthentications};
use towpath_gateway_core::Backend;
use towpath_mesh_mtls::MtlsMode;
use towpath_routing::{self as routing, Hostname, Normalization};

/// One socket.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Name for logs and metrics: `namespace/gateway:port`, `outbound:namespace/service:port`, `inbound:port`.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it does.
    pub duty: Duty,
}

/// What a socket is for.
#[derive(Debug, Clone)]
pub enum Duty {
    /// North-south: takes requests from outside, at a gateway or an ingress.
    Edge {
        /// How TLS ends here; `None`: plaintext.
        tls: Option<EdgeTls>,
        /// Listeners that share the socket, with their routes.
        routes: Vec<routing::Listener>,
        /// What holds before a request goes on.
        guard: Guard,
    },
    /// Layer 4: carries connections as they are, from outside, or from the application of this sidecar to a service.
    Stream {
        /// What is done about TLS.
        tls: StreamTls,
        /// The port as policies name it.
        port: u16,
        /// Listeners that share the socket, with their routes.
        routes: Vec<routing::FlowListener>,
        /// Who may do what.
        authorization: AuthorizationPolicies,
    },
    /// North-south, layer 4: carries datagrams. The socket is of UDP.
    Datagram {
        /// The port as policies name it.
        port: u16,
        /// Listeners that share the socket, with their routes.
        routes: Vec<routing::FlowListener>,
        /// Who may do what.
        authorization: AuthorizationPolicies,
    },
    /// East-west, towards the application of this sidecar.
    Inbound {
        /// The port as policies name it.
        port: u16,
        /// What is accepted.
        mode: MtlsMode,
        /// What holds before a request goes on.
        guard: Guard,
        /// What the application speaks.
        application: Application,
        /// The application.
        app: Arc<Backend>,
    },
    /// East-west, by tunnels of an ambient mesh (HBONE): leads to what the inbound listeners take in.
    Hbone {
        /// The inbound listeners.
        inbound: Vec<Listener>,
    },
    /// East-west, from the application of this sidecar to a service.
    Outbound {
        /// The port of the service.
        port: u16,
        /// One listener with the routes of the service.
        routes: Vec<routing::Listener>,
        /// The normal form of requests.
        normalization: Normalization,
        /// Where goes what is not HTTP, by the first bytes. Empty: everything is HTTP.
        flows: Vec<routing::FlowListener>,
    },
    /// East-west, towards the application: connections that the kernel redirected here. Those to other ports are closed.
    CapturedInbound {
        /// Inbound listeners without a socket of their own, by their port.
        listeners: Vec<Listener>,
    },
    /// East-west, from the application: connections that the kernel redirected here.
    CapturedOutbound {
        /// Listeners without a socket of their own, by the address that connections were for.
        listeners: Vec<Listener>,
        /// What becomes of the rest.
        rest: OutboundTrafficPolicy,
    },
}

/// What becomes of captured connections to addresses that no Service has (Istio, `MeshConfig.OutboundTrafficPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficPolicy {
    /// They pass as they are.
    #[default]
    AllowAny,
    /// They are closed.
    RegistryOnly,
}

/// What connections to an application carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Application {
    /// HTTP, and nothing else.
    Http,
    /// Something that is nobody's business here.
    Opaque,
    /// Either: the first bytes tell.
    #[default]
    Unknown,
}

/// What holds at a listener before a request goes on.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The normal form of requests, which policies and routes see.
    pub normalization: Normalization,
    /// Whose tokens are taken.
    pub authentication: RequestAuthentications,
    /// Who may do what.
    pub authorization: AuthorizationPolicies,
}

/// What a listener of layer 4 does about TLS.
#[derive(Debug, Clone)]
pub enum StreamTls {
    /// Nothing: bytes are bytes.
    Opaque,
    /// It reads the server name, and TLS ends at the backend.
    Passthrough,
    /// TLS ends here.
    Terminate(EdgeTls),
}

impl Listener {
    /// It and the listeners that it shares its socket with.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        let inside = match &self.duty {
            Duty::CapturedInbound { listeners } | Duty::CapturedOutbound { listeners, .. } => listeners,
            _ => [].as_slice(),
        };
        std::iter::once(self).chain(inside)
    }

    /// Whether captured connections to anything else pass as they are.
    pub(crate) fn passes_what_it_does_not_know(&self) -> bool {
        matches!(self.duty, Duty::CapturedOutbound { rest: OutboundTrafficPolicy::AllowAny, .. })
    }

    /// Whether its socket is of UDP. Addresses are unique among sockets of one transport.
    pub fn is_datagram(&self) -> bool {
        matches!(self.duty, Duty::Datagram { .. })
    }
}

impl Duty {
    /// Every backend that something may be sent to by a route.
    pub(crate) fn backends(&self) -> Vec<&Arc<Backend>> {
        match self {
            Self::Outbound { routes, flows, .. } => {
                let mut backends = requests(routes);
                backends.extend(connections(flows));
                backends
            }
            Self::Edge { routes, .. } => requests(routes),
            Self::Stream { routes, .. } | Self::Datagram { routes, .. } => connections(routes).collect(),
            Self::Inbound { .. }
            | Self::Hbone { .. }
            | Self::CapturedInbound { .. }
            | Self::CapturedOutbound { .. } => Vec::new(),
        }
    }
}

fn requests(routes: &[routing::Listener]) -> Vec<&Arc<Backend>> {
    let mut backends = Vec::new();
    for rule in routes.iter().flat_map(|listener| &listener.routes).flat_map(|route| &route.rules) {
        backends.extend(rule.backends.iter().map(|weighted| &weighted.backend));
        backends.extend(rule.filters.mirrors.iter().map(|mirror| &mirror.backend));
        backends.extend(rule.policies.get::<ExternalAuth>().map(|auth| &auth.backend));
    }
    backends
}

fn connections(routes: &[routing::FlowListener]) -> impl Iterator<Item = &Arc<Backend>> {
    let routes = routes.iter().flat_map(|listener| &listener.routes);
    routes.flat_map(|route| &route.backends).map(|weighted| &weighted.backend)
}

/// How TLS ends at a socket.
#[derive(Debug, Clone)]
pub struct EdgeTls {
    /// What it shows, by host name.
    pub certificates: Vec<EdgeCertificate>,
    /// What it asks of clients; `None`: nothing.
    pub clients: Option<Arc<ClientValidation>>,
}

impl EdgeTls {
    /// The same without certificates.
    pub(crate) fn bare(&self) -> Self {
        Self { certificates: Vec::new(), clients: self.clients.clone() }
    }

    /// Adds certificates for host names that have none.
    pub(crate) fn add(&mut self, certificates: &[EdgeCertificate]) {
        for certificate in certificates {
            if self.certificates.iter().all(|there| there.hostname != certificate.hostname) {
                self.certificates.push(certificate.clone());
            }
        }
    }

    /// Why listeners cannot share a socket, if they cannot: clients are asked before their listener is known.
    pub(crate) fn difference(one: Option<&Self>, other: Option<&Self>) -> Option<&'static str> {
        match (one, other) {
            (None, None) => None,
            (Some(one), Some(other)) => {
                (one.clients != other.clients).then_some("other demands on certificates of clients")
            }
            _ => Some("another protocol"),
        }
    }
}

/// What is asked of the certificates of clients (Gateway API, `FrontendTLSValidation`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientValidation {
    /// Authorities that may vouch for a client, in DER.
    pub roots: Vec<Arc<[u8]>>,
    /// What becomes of clients that none vouches for.
    pub mode: ClientValidationMode,
}

/// What becomes of a client without a valid certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
pub enum ClientValidationMode {
    /// Its handshake fails.
    #[default]
    AllowValidOnly,
    /// It is taken all the same: whether that is right is left to the backends.
    AllowInsecureFallback,
}

/// A certificate that an edge listener shows.
#[derive(Debug, Clone)]
pub struct EdgeCertificate {
    /// Server names it is for.
    pub hostname: Hostname,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: Arc<PrivateKeyDer<'static>>,
}

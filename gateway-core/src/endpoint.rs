//! What goes out: where a request may be sent, as whom the other side must prove itself, and how to speak to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Load, RetryBudget, SpiffeId, TlsServer};

/// One address that serves a backend.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// How the bytes are protected on the way.
    pub transport: Transport,
    /// How requests are framed.
    pub protocol: Protocol,
    /// Which workload answers there, for logs and metrics.
    pub workload: Workload,
    /// Where it runs.
    pub locality: Locality,
    /// Share of requests relative to its neighbours. 0 takes none.
    pub weight: u32,
    /// Requests that are in flight to it from this process.
    pub load: Load,
}

impl Endpoint {
    /// A plaintext HTTP/1.1 endpoint of weight 1.
    pub fn plaintext(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::Plaintext,
            protocol: Protocol::Http1,
            workload: Workload::default(),
            locality: Locality::default(),
            weight: 1,
            load: Load::new(),
        }
    }

    /// The same endpoint behind mesh mTLS, whose peer must prove one of `identities`.
    #[must_use]
    pub fn with_mtls(mut self, identities: impl Into<Arc<[SpiffeId]>>) -> Self {
        self.transport = Transport::Mtls { identities: identities.into() };
        self
    }

    /// The same endpoint spoken to in `protocol`.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }
}

/// How the bytes to an endpoint are protected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Nothing protects them.
    Plaintext,
    /// Mesh mTLS. The peer must prove exactly one of these SPIFFE ids; an empty list is never satisfied.
    Mtls {
        /// Accepted identities.
        identities: Arc<[SpiffeId]>,
    },
    /// A tunnel of an ambient mesh: HTTP/2 CONNECT over mesh mTLS (HBONE), in which the bytes are plain.
    Hbone {
        /// Accepted identities of the tunnel's other end.
        identities: Arc<[SpiffeId]>,
        /// Where tunnels come in.
        tunnel: SocketAddr,
    },
    /// TLS to a server outside of the mesh.
    Tls {
        /// What it has to prove.
        server: Arc<TlsServer>,
    },
}

/// What is spoken to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.1; gRPC requests are sent as HTTP/2 all the same, for they cannot be framed otherwise.
    #[default]
    Http1,
    /// HTTP/2 (by prior knowledge on plaintext, by ALPN under TLS).
    Http2,
    /// No HTTP: bytes as the client sends them.
    Opaque,
}

/// The workload behind an endpoint, as telemetry names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Workload {
    /// `namespace/name` of the pod or VM; empty if unknown.
    pub name: Arc<str>,
    /// Cluster it belongs to; empty if unknown.
    pub cluster: Arc<str>,
}

/// Where an endpoint runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// Region, for instance a cloud region.
    pub region: Arc<str>,
    /// Zone in the region.
    pub zone: Arc<str>,
}

/// How endpoints of a backend share requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// Of two picked at random, the one with fewer requests in flight for its weight.
    #[default]
    LeastRequest,
}

/// A named set of endpoints. Immutable: a change of endpoints makes a new one, sharing the endpoints that stay.
#[derive(Debug)]
pub struct Backend {
    /// `namespace/service:port`, as logs and metrics name it.
    pub name: Arc<str>,
    /// How requests are shared out.
    pub balance: Balance,
    endpoints: Option<Vec<Arc<Endpoint>>>,
    cursor: AtomicUsize,
    retry_budget: Option<Arc<RetryBudget>>,
}

impl Backend {
    /// A backend that resolved to these endpoints (perhaps none: requests then end as 503).
    pub fn new(name: impl Into<Arc<str>>, balance: Balance, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let (name, cursor) = (name.into(), AtomicUsize::new(0));
        Self { name, balance, endpoints: Some(endpoints), cursor, retry_budget: None }
    }

    /// A reference that could not be resolved: its share of requests ends as 500 (Gateway API, `BackendRefs`).
    pub fn unresolved(name: impl Into<Arc<str>>) -> Self {
        let (name, cursor) = (name.into(), AtomicUsize::new(0));
        Self { name, balance: Balance::default(), endpoints: None, cursor, retry_budget: None }
    }

    /// The same, with a bound on the share of retries. Backends may share one.
    #[must_use]
    pub fn with_retry_budget(self, retry_budget: Option<Arc<RetryBudget>>) -> Self {
        Self { retry_budget, ..self }
    }

    /// What bounds its retries, if anything does.
    pub fn retry_budget(&self) -> Option<&RetryBudget> {
        self.retry_budget.as_deref()
    }

    /// The endpoints, or `None` if the reference was never resolved.
    pub fn endpoints(&self) -> Option<&[Arc<Endpoint>]> {
        self.endpoints.as_deref()
    }

    /// The next number of a sequence shared by all users of this backend, for taking turns.
    pub fn turn(&self) -> usize {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }
}

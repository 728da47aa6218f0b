//! What a process of one role has to do, with every reference resolved. Immutable: a change makes a new one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use towpath_gateway_core::{SpiffeId, TlsVersion, Transport, TrustDomain};
use towpath_mesh_mtls::TrustBundle;
use towpath_routing::{Normalization, PathNormalization};

use crate::backend::EndpointPool;
use crate::certificate::Credential;
use crate::load::Files;
use crate::request_authentication::{RemoteJwks, RemoteKeys};
use crate::retry_budget::RetryBudgets;
use crate::{Duty, Listener, ObjectName, ObjectStatus, OutboundTrafficPolicy, Problem, Scenario, Severity};

/// The compiled configuration of one process.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The word that decides the shape of everything.
    pub scenario: Scenario,
    /// What is mesh-wide.
    pub mesh: MeshSettings,
    /// The identity that this process's workload has by the resources, if its workload is known.
    pub identity: Option<SpiffeId>,
    /// The cluster that this process's workload belongs to (label `topology.istio.io/cluster`); empty if unknown.
    pub cluster: Arc<str>,
    /// Sockets and what is behind each. Addresses are unique among those of one transport.
    pub listeners: Vec<Listener>,
    /// Every finding, worst first, then by file and line.
    pub problems: Vec<Problem>,
    /// Objects with their status.
    pub status: Vec<ObjectStatus>,
    /// Hops from this process that nothing protects and that leave the pod.
    pub plaintext_hops: Vec<PlaintextHop>,
    /// What the next compilation takes over.
    pub(crate) kept: Kept,
}

/// What outlives a compilation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) files: Files,
    pub(crate) endpoints: EndpointPool,
    pub(crate) budgets: RetryBudgets,
    pub(crate) remote_keys: RemoteKeys,
    /// Certificates of edge listeners, by their Secret.
    pub(crate) credentials: HashMap<ObjectName, Credential>,
}

impl Snapshot {
    /// Findings that say that something written is not in force.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error)
    }

    /// Whether there is an error at all: `check` then fails.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// What keeps a strict mesh from this configuration: every hop that nothing protects. `None` if it may apply.
    pub fn not_strict(&self) -> Option<String> {
        if !self.mesh.strict {
            return None;
        }
        let out = self.plaintext_hops.iter().map(|hop| format!("{} -> {}: {}", hop.from, hop.to, hop.why));
        let listeners = self.listeners.iter().flat_map(Listener::all);
        let taken = listeners.filter_map(|listener| match &listener.duty {
            Duty::Inbound { mode, .. } if mode.takes_plaintext() => {
                Some(format!("{}: the mode {} takes plaintext", listener.name, mode.as_str()))
            }
            _ => None,
        });
        let hops: Vec<_> = out.chain(taken).collect();
        (!hops.is_empty())
            .then(|| format!("the mesh is `strict`, and has plaintext hops: {}", hops.join("; ")))
    }

    /// Keys that have to be fetched.
    pub fn remote_jwks(&self) -> Vec<RemoteJwks> {
        self.kept.remote_keys.list()
    }

    /// Whether an endpoint that was spoken to before is so in another way now: by mTLS instead of plaintext, or the other way
    /// round.
    pub fn protects_otherwise(&self, before: &Self) -> bool {
        let earlier: HashMap<_, _> = before.protections().collect();
        self.protections()
            .any(|(address, mtls)| earlier.get(&address).is_some_and(|earlier| *earlier != mtls))
    }

    /// Endpoints that requests and flows go out to, and whether by mTLS.
    fn protections(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let listeners = self.listeners.iter().flat_map(Listener::all);
        let backends = listeners.flat_map(|listener| listener.duty.backends());
        let endpoints = backends.filter_map(|backend| backend.endpoints()).flatten();
        endpoints.map(|endpoint| {
            (endpoint.address, matches!(endpoint.transport, Transport::Mtls { .. } | Transport::Hbone { .. }))
        })
    }

    /// The whole as JSON, without anything secret: `scenario`, `trustDomain`, `identity`, `problems`, `listeners`,
    /// `items` (objects with their status) and `plaintextHops`.
    pub fn to_json(&self) -> Value {
        crate::json::snapshot(self)
    }
}

/// What the `Mesh` resource says.
#[derive(Debug, Clone)]
pub struct MeshSettings {
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Domains that the mesh had, or joined: their identities are taken like its own.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Namespace whose policies hold everywhere.
    pub root_namespace: Arc<str>,
    /// How far paths are normalized; `None`: as each side of a stack does by itself.
    pub path_normalization: Option<PathNormalization>,
    /// Nothing goes out or comes in that no mTLS protects.
    pub strict: bool,
    /// Workloads refuse who has no identity, and what no ALLOW policy names.
    pub default_deny: bool,
    /// Whether keys of issuers may be fetched from loopback, private and link-local addresses.
    pub private_jwks: bool,
    /// Foreign trust domains, and who vouches for their identities.
    pub federation: Vec<TrustBundle>,
    /// The oldest version of TLS that workloads take from each other (Istio, `meshMTLS.minProtocolVersion`).
    pub min_tls_version: TlsVersion,
    /// What becomes of captured connections to addresses that no Service has.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Proxies in front of gateways whose `X-Forwarded-For` is believed.
    pub trusted_proxies: u8,
}

impl MeshSettings {
    /// The normal form of requests inside the mesh.
    pub fn normalization(&self) -> Normalization {
        self.over(Normalization::mesh())
    }

    /// The normal form of requests at an edge.
    pub fn edge_normalization(&self) -> Normalization {
        Normalization { trusted_proxies: self.trusted_proxies, ..self.over(Normalization::edge()) }
    }

    fn over(&self, default: Normalization) -> Normalization {
        Normalization { paths: self.path_normalization.unwrap_or(default.paths), ..default }
    }

    /// The trust domain and its aliases.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        std::iter::once(&self.trust_domain).chain(&self.trust_domain_aliases)
    }
}

impl Default for MeshSettings {
    /// A mesh without a `Mesh` resource: trust domain `cluster.local`, root namespace `istio-system`.
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            path_normalization: None,
            strict: false,
            default_deny: false,
            private_jwks: false,
            federation: Vec::new(),
            min_tls_version: TlsVersion::Tls12,
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            trusted_proxies: 0,
        }
    }
}

/// A hop that nothing protects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PlaintextHop {
    /// Listener at which requests for it arrive.
    pub from: Arc<str>,
    /// Backend they are sent to.
    pub to: Arc<str>,
    /// Why it is not protected.
    pub why: String,
}

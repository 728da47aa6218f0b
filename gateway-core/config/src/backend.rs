//! Backends: endpoints with the way in which each is spoken to.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use towpath_gateway_core::{
    Backend, Balance, Endpoint, Load, Locality, Protocol, SpiffeId, TlsServer, Transport, TrustDomain,
    Workload,
};
use towpath_mesh_mtls::{MtlsMode, TrustBundle};

use crate::backend_tls::TlsPolicies;
use crate::client_certificate::ClientCertificate;
use crate::endpoints::{Candidate, Index, MeshWorkload, application, candidates, protocol};
use crate::objects::{Objects, Stored};
use crate::peer::{self, Peers};
use crate::resources::core::{Service, ServicePort};
use crate::retry_budget::RetryBudgets;
use crate::status::Refusal;
use crate::topology::{Hop, Protection};
use crate::{Application, MeshSettings, ObjectName, Options, Problem};

/// Endpoints that are in use, by everything that makes them what they are: one that did not change keeps its count of
/// requests in flight.
#[derive(Clone, Default)]
pub(crate) struct EndpointPool(HashMap<Key, Arc<Endpoint>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key(std::net::SocketAddr, Transport, Protocol, Workload, Locality, u32);

impl fmt::Debug for EndpointPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointPool({})", self.0.len())
    }
}

/// Of workloads whose identity is of a domain that the mesh is federated with.
const TRUST_DOMAIN_LABEL: &str = "towpath.dev/trust-domain";

/// What is sent to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    /// Requests.
    Http,
    /// Connections as they are.
    Streams,
    /// UDP.
    Datagrams,
}

impl Carries {
    /// The protocol of a Service's port, as Kubernetes names it.
    fn transport(self) -> &'static str {
        match self {
            Self::Http | Self::Streams => "TCP",
            Self::Datagrams => "UDP",
        }
    }
}

/// Makes backends; each Service port once for each of its uses.
pub(crate) struct Backends<'a> {
    objects: &'a Objects,
    index: Index<'a>,
    options: &'a Options,
    mesh: &'a MeshSettings,
    peers: &'a Peers<'a>,
    hop: Hop,
    before: Option<&'a EndpointPool>,
    pool: EndpointPool,
    made: HashMap<Use, Result<Arc<Backend>, Refusal>>,
    plaintext: HashMap<Arc<str>, &'static str>,
    /// For gateways: sidecars follow the mesh's own policies.
    pub(crate) tls: TlsPolicies,
    pub(crate) budgets: RetryBudgets,
    /// What the Gateways show to servers whose routes are being compiled.
    pub(crate) client: Option<ClientCertificate>,
}

/// A port of a Service, what is sent there, and the Secret with the certificate that is shown there.
type Use = (ObjectName, u16, Carries, Option<ObjectName>);

impl<'a> Backends<'a> {
    pub(crate) fn new(
        objects: &'a Objects,
        options: &'a Options,
        mesh: &'a MeshSettings,
        peers: &'a Peers<'a>,
        hop: Hop,
        before: Option<&'a EndpointPool>,
        (tls, budgets): (TlsPolicies, RetryBudgets),
    ) -> Self {
        let (pool, made, plaintext) = (EndpointPool::default(), HashMap::new(), HashMap::new());
        Self {
            objects,
            index: Index::of(objects),
            options,
            mesh,
            peers,
            hop,
            before,
            pool,
            made,
            plaintext,
            tls,
            budgets,
            client: None,
        }
    }

    /// The endpoints and budgets in use, to be kept for the next time.
    pub(crate) fn into_kept(self) -> (EndpointPool, RetryBudgets) {
        (self.pool, self.budgets)
    }

    /// Why requests to the backend of this name go unprotected, if some do.
    pub(crate) fn plaintext(&self, backend: &str) -> Option<&'static str> {
        self.plaintext.get(backend).copied()
    }

    /// The backend for a port of a Service.
    pub(crate) fn service(
        &mut self,
        name: &ObjectName,
        port: u16,
        carries: Carries,
        problems: &mut Vec<Problem>,
    ) -> Result<Arc<Backend>, Refusal> {
        let key = (name.clone(), port, carries, self.client.as_ref().map(|shown| shown.secret.clone()));
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let made = find_port(self.objects, name, port, carries).and_then(|(service, service_port)| {
            let tls = self.tls.of(&service.name, service_port).filter(|_| carries != Carries::Datagrams);
            let framing = match carries {
                Carries::Http if tls.is_some() => protocol(service_port).unwrap_or_default(),
                Carries::Http => protocol(service_port)
                    .map_err(|message| Refusal { reason: "UnsupportedProtocol", message })?,
                Carries::Streams | Carries::Datagrams => Protocol::Opaque,
            };
            let tls = match (tls, self.hop) {
                (None, _) => None,
                (Some(Ok(server)), Hop::Direct { .. }) => Some(match &self.client {
                    Some(shown) => Arc::new((*server).clone().with_client(Arc::clone(&shown.client))),
                    None => server,
                }),
                // The reference resolves, and nothing may be sent: in plaintext least of all.
                (Some(Err(_)), _) => return Ok(Arc::new(Backend::unresolved(backend_name(name, port)))),
                (Some(Ok(_)), Hop::AttachedSidecar) => {
                    let message = format!(
                        "a BackendTLSPolicy is for {name}:{port}, and the attached sidecar does not carry it out: \
                         requests end as 500"
                    );
                    problems.push(service.error(None, message));
                    return Ok(Arc::new(Backend::unresolved(backend_name(name, port))));
                }
            };
            match (self.hop, carries) {
                (Hop::AttachedSidecar, Carries::Http) => Ok(self.over_sidecar(service, port, framing, problems)),
                (Hop::AttachedSidecar, Carries::Streams)
                    if application(service_port) == Application::Opaque =>
                {
                    Ok(self.over_sidecar(service, port, framing, problems))
                }
                // The sidecar would take the bytes for HTTP.
                (Hop::AttachedSidecar, Carries::Streams) => Err(Refusal::new(
                    "UnsupportedProtocol",
                    format!(
                        "the attached sidecar carries HTTP to {name}:{port}: for layer 4 its port in the Service is named \
                         `tcp`, or has this `appProtocol`"
                    ),
                )),
                (Hop::AttachedSidecar | Hop::Direct { .. }, _) => {
                    Ok(self.direct(service, service_port, (framing, carries, tls.as_ref()), problems))
                }
            }
        });
        self.made.insert(key, made.clone());
        made
    }

    fn over_sidecar(
        &mut self,
        service: &Stored<Service>,
        port: u16,
        framing: Protocol,
        problems: &mut Vec<Problem>,
    ) -> Arc<Backend> {
        let address = self.options.port_map.as_ref().and_then(|map| map.get(&service.name, port));
        if address.is_none() {
            let message = format!(
                "the attached sidecar has no listener for {}:{port}: requests end as 503",
                service.name
            );
            let advice = format!("add {}:{port}=ADDRESS:PORT to the port map", service.name);
            problems.push(service.error(None, message).suggest(advice));
        }
        let endpoints =
            address.map(|address| self.shared(Endpoint::plaintext(address).with_protocol(framing)));
        let name = backend_name(&service.name, port);
        let backend = Backend::new(name, Balance::default(), endpoints.into_iter().collect());
        Arc::new(backend.with_retry_budget(self.budgets.of(&service.name)))
    }

    fn direct(
        &mut self,
        service: &Stored<Service>,
        port: &ServicePort,
        (framing, carries, tls): (Protocol, Carries, Option<&Arc<TlsServer>>),
        problems: &mut Vec<Problem>,
    ) -> Arc<Backend> {
        let name: Arc<str> = backend_name(&service.name, port.port).into();
        let (mut endpoints, mut left_out) = (Vec::new(), LeftOut::default());
        let mut strangers = BTreeSet::new();
        for candidate in candidates(&self.index, service, port) {
            strangers.extend(candidate.mesh.as_ref().and_then(|workload| self.unknown_domain(workload)));
            let by_policy = tls.map(|server| (Transport::Tls { server: Arc::clone(server) }, None));
            let transport = match by_policy.map_or_else(|| self.transport(&candidate, carries), Ok) {
                Ok((transport, why)) => {
                    self.plaintext.extend(why.map(|why| (Arc::clone(&name), why)));
                    transport
                }
                Err(demand) => {
                    left_out.add(demand);
                    continue;
                }
            };
            endpoints.push(self.shared(Endpoint {
                address: candidate.address,
                transport,
                protocol: framing,
                workload: candidate.workload,
                locality: candidate.locality,
                weight: candidate.weight,
                load: Load::new(),
            }));
        }
        problems.extend(left_out.problem(service, port.port));
        problems.extend(strangers.iter().map(|domain| {
            let message = format!(
                "workloads of it are of the trust domain `{domain}`, which the Mesh names nowhere: no connection to them is made"
            );
            service.warning(None, message).suggest("add it to `federation` in the Mesh")
        }));
        let backend = Backend::new(name, Balance::default(), endpoints);
        Arc::new(backend.with_retry_budget(self.budgets.of(&service.name)))
    }

    /// How a candidate is spoken to, and why not protected if it is not; an error with what it asks for otherwise.
    fn transport(
        &self,
        candidate: &Candidate,
        carries: Carries,
    ) -> Result<(Transport, Option<&'static str>), peer::Demand> {
        if carries == Carries::Datagrams {
            return Ok((Transport::Plaintext, Some("the mesh does not protect UDP")));
        }
        let Some(workload) = &candidate.mesh else {
            return Ok(match self.hop.protection(self.options.has_identity, false, MtlsMode::Permissive) {
                Protection::Plaintext(why) => (Transport::Plaintext, Some(why)),
                _ => (Transport::Plaintext, None),
            });
        };
        let place = (&*workload.namespace, &workload.labels);
        let demand = self.peers.demand(place, workload.port);
        match self.hop.protection(self.options.has_identity, true, demand.mode) {
            Protection::Plaintext(why) => Ok((Transport::Plaintext, Some(why))),
            Protection::LeftOut => Err(demand),
            Protection::Mtls => {
                let identities = self.identities(workload);
                let tunnel = workload.tunnel.map(|port| SocketAddr::new(candidate.address.ip(), port));
                Ok(match tunnel {
                    Some(tunnel) => (Transport::Hbone { identities, tunnel }, None),
                    None => (Transport::Mtls { identities }, None),
                })
            }
        }
    }

    /// The identities of which the workload must prove one: in any domain of the mesh, or in the foreign one that it is said
    /// to be of. A name that makes none can never be proved.
    fn identities(&self, workload: &MeshWorkload) -> Arc<[SpiffeId]> {
        let id =
            |domain: &TrustDomain| SpiffeId::workload(domain, &workload.namespace, &workload.account).ok();
        match workload.labels.get(TRUST_DOMAIN_LABEL) {
            Some(domain) => domain.parse().ok().iter().filter_map(id).collect(),
            None => self.mesh.trust_domains().filter_map(id).collect(),
        }
    }

    /// The domain that the workload is said to be of, if nobody vouches for it.
    fn unknown_domain(&self, workload: &MeshWorkload) -> Option<String> {
        let domain = workload.labels.get(TRUST_DOMAIN_LABEL)?;
        let federated = self.mesh.federation.iter().map(TrustBundle::domain);
        let known = self.mesh.trust_domains().chain(federated).any(|known| known.as_str() == domain);
        (!known).then(|| domain.clone())
    }

    /// The endpoint, or the equal one that is in use already.
    pub(crate) fn shared(&mut self, endpoint: Endpoint) -> Arc<Endpoint> {
        let key = Key(
            endpoint.address,
            endpoint.transport.clone(),
            endpoint.protocol,
            endpoint.workload.clone(),
            endpoint.locality.clone(),
            endpoint.weight,
        );
        let kept = self.pool.0.get(&key).or_else(|| self.before?.0.get(&key));
        let endpoint = kept.map_or_else(|| Arc::new(endpoint), Arc::clone);
        self.pool.0.insert(key, Arc::clone(&endpoint));
        endpoint
    }
}

/// `namespace/service:port`.
pub(crate) fn backend_name(service: &ObjectName, port: u16) -> String {
    format!("{service}:{port}")
}

/// The port of a Service that a reference names.
pub(crate) fn find_port<'a>(
    objects: &'a Objects,
    name: &ObjectName,
    port: u16,
    carries: Carries,
) -> Result<(&'a Arc<Stored<Service>>, &'a ServicePort), Refusal> {
    let unresolved = |reason, message| Err(Refusal { reason, message });
    let Some(service) = objects.services.get(name) else {
        return unresolved("BackendNotFound", format!("there is no Service {name}"));
    };
    if service.spec.spec.kind.as_deref() == Some("ExternalName") {
        return unresolved(
            "UnsupportedValue",
            format!("Service {name} is of type ExternalName, which is not served"),
        );
    }
    let transport = carries.transport();
    let meant = |candidate: &&ServicePort| {
        candidate.port == port && candidate.protocol.as_deref().unwrap_or("TCP") == transport
    };
    if let Some(port) = service.spec.spec.ports.iter().find(meant) {
        return Ok((service, port));
    }
    let of = if transport == "UDP" { " of UDP" } else { "" };
    unresolved("BackendNotFound", format!("Service {name} has no port {port}{of}"))
}

/// Endpoints that cannot be spoken to in the way they ask for.
#[derive(Default)]
struct LeftOut {
    count: usize,
    strict: Option<String>,
}

impl LeftOut {
    fn add(&mut self, demand: peer::Demand) {
        self.count += 1;
        if demand.mode == MtlsMode::Strict {
            self.strict = self.strict.take().or(demand.object);
        }
    }

    fn problem(&self, service: &Stored<Service>, port: u16) -> Option<Problem> {
        if self.count == 0 {
            return None;
        }
        let wants = self
            .strict
            .as_ref()
            .map_or_else(|| "speak mTLS".to_owned(), |object| format!("take mTLS only by {object}"));
        let message = format!(
            "{} endpoints of {}:{port} {wants}, and this process has no identity of the mesh: they are left out",
            self.count, service.name
        );
        Some(service.error(None, message).suggest("give --identity"))
    }
}

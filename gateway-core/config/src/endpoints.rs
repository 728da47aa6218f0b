//! From a port of a Service to the endpoints behind it: `EndpointSlice` objects and `WorkloadEntry` objects (VMs).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use towpath_gateway_core::{Locality, Protocol, Workload};

use crate::objects::{Objects, Stored};
use crate::resources::core::{EndpointSlice, Pod, Service, ServicePort, SliceEndpoint};
use crate::resources::gateway::has_all;
use crate::resources::istio::WorkloadEntrySpec;
use crate::resources::leaf::PortRef;
use crate::{Application, GivenWorkload, ObjectName};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const CLUSTER_LABEL: &str = "topology.istio.io/cluster";
const MESH_LABEL: (&str, &str) = ("security.istio.io/tlsMode", "istio");
/// Of workloads that are reached by tunnels (Istio, ambient mode).
const TUNNEL_LABEL: (&str, &str) = ("networking.istio.io/tunnel", "http");
const HBONE_PORT: u16 = 15008;

/// An endpoint before it is decided how it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) workload: Workload,
    pub(crate) locality: Locality,
    pub(crate) weight: u32,
    /// The workload, if it has a sidecar.
    pub(crate) mesh: Option<MeshWorkload>,
}

/// What policies and identities need to know of a workload of the mesh.
#[derive(Debug, Clone)]
pub(crate) struct MeshWorkload {
    pub(crate) namespace: Arc<str>,
    pub(crate) account: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The workload's own port, as policies name it.
    pub(crate) port: u16,
    /// The port that its tunnels come in by, if it is reached by those.
    pub(crate) tunnel: Option<u16>,
}

type ServiceObject = Stored<Service>;

/// Objects by what leads from a Service to them: looking through all for each Service would take their product.
pub(crate) struct Index<'a> {
    objects: &'a Objects,
    /// By namespace and Service.
    slices: HashMap<(&'a str, &'a str), Vec<&'a Stored<EndpointSlice>>>,
    /// By namespace and each label.
    entries: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Stored<WorkloadEntrySpec>>>,
}

impl<'a> Index<'a> {
    pub(crate) fn of(objects: &'a Objects) -> Self {
        let mut index = Self { objects, slices: HashMap::new(), entries: HashMap::new() };
        for slice in objects.endpoint_slices.values() {
            if let Some(service) = slice.labels.get(SERVICE_LABEL) {
                index.slices.entry((&*slice.name.namespace, service)).or_default().push(slice);
            }
        }
        for entry in objects.workload_entries.values() {
            for (key, value) in entry.labels.iter().chain(&entry.spec.labels) {
                index.entries.entry((&*entry.name.namespace, key, value)).or_default().push(entry);
            }
        }
        index
    }

    fn slices<'s>(
        &'s self,
        service: &'s ServiceObject,
    ) -> impl Iterator<Item = &'s Stored<EndpointSlice>> + 's {
        let found = self.slices.get(&(&*service.name.namespace, &*service.name.name));
        found.into_iter().flatten().copied()
    }

    /// Those that have the first label of the selector; none without a selector.
    fn entries<'s>(
        &'s self,
        service: &'s ServiceObject,
    ) -> impl Iterator<Item = &'s Stored<WorkloadEntrySpec>> + 's {
        let first = service.spec.spec.selector.as_ref().and_then(|selector| selector.first_key_value());
        let found = first.and_then(|(key, value)| {
            self.entries.get(&(&*service.name.namespace, key.as_str(), value.as_str()))
        });
        found.into_iter().flatten().copied()
    }
}

/// How HTTP is framed towards a port, by its `appProtocol`; an error for what is not spoken.
pub(crate) fn protocol(port: &ServicePort) -> Result<Protocol, String> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "grpc" | "http2" | "h2c") => Ok(Protocol::Http2),
        Some(other @ ("https" | "tls" | "kubernetes.io/wss")) => {
            Err(format!("appProtocol `{other}` is not spoken towards backends"))
        }
        _ => Ok(Protocol::Http1),
    }
}

/// What a port carries, by its `appProtocol`, else by the first word of its name (Istio, protocol selection).
pub(crate) fn application(port: &ServicePort) -> Application {
    let word = |name: &str| name.split('-').next().unwrap_or_default().to_ascii_lowercase();
    let given =
        port.app_protocol.as_deref().map(|given| given.trim_start_matches("kubernetes.io/").to_owned());
    let named = given.or_else(|| port.name.as_deref().map(word)).unwrap_or_default();
    match named.as_str() {
        "http" | "http2" | "h2c" | "grpc" | "ws" => Application::Http,
        "tcp" | "tls" | "https" | "wss" | "mongo" | "mysql" | "redis" => Application::Opaque,
        _ => Application::Unknown,
    }
}

/// Every endpoint of the port that is ready, in a stable order, each address once.
pub(crate) fn candidates(index: &Index<'_>, service: &ServiceObject, port: &ServicePort) -> Vec<Candidate> {
    let mut found: BTreeMap<SocketAddr, Candidate> = BTreeMap::new();
    for candidate in from_slices(index, service, port).chain(from_entries(index, service, port)) {
        found.entry(candidate.address).or_insert(candidate);
    }
    found.into_values().collect()
}

fn from_slices<'a>(
    index: &'a Index<'_>,
    service: &'a ServiceObject,
    port: &'a ServicePort,
) -> impl Iterator<Item = Candidate> + 'a {
    let slices = index.slices(service);
    slices.filter_map(move |slice| Some((slice, slice_port(slice, service, port)?))).flat_map(
        move |(slice, number)| {
            let endpoints = slice.spec.endpoints.iter().flatten().filter(|endpoint| endpoint.is_ready());
            endpoints.filter_map(move |endpoint| of_slice(index.objects, slice, endpoint, number, port))
        },
    )
}

/// The port of the same name; where both sides have a single port, that one whatever its name.
fn slice_port(slice: &Stored<EndpointSlice>, service: &ServiceObject, port: &ServicePort) -> Option<u16> {
    let ports = slice.spec.ports.as_deref().unwrap_or_default();
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let named = ports.iter().find(|candidate| name(&candidate.name) == name(&port.name));
    let single = || ports.first().filter(|_| ports.len() == 1 && service.spec.spec.ports.len() == 1);
    named.or_else(single)?.port
}

fn of_slice(
    objects: &Objects,
    slice: &Stored<EndpointSlice>,
    endpoint: &SliceEndpoint,
    number: u16,
    port: &ServicePort,
) -> Option<Candidate> {
    let target = endpoint.target_ref.as_ref();
    let name = target.and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(&slice.name.namespace);
        Some(ObjectName { namespace: namespace.into(), name: target.name.as_deref()?.into() })
    });
    let kind = target.and_then(|target| target.kind.as_deref()).unwrap_or("Pod");
    let facts = name.as_ref().and_then(|name| workload(objects, kind, name));
    let policy_port = facts.as_ref().map_or(number, |facts| facts.port(port).unwrap_or(number));
    let cluster =
        facts.as_ref().and_then(|facts| facts.labels.get(CLUSTER_LABEL)).or(slice.labels.get(CLUSTER_LABEL));
    Some(Candidate {
        address: SocketAddr::new(endpoint.address()?, number),
        workload: Workload {
            name: name.map_or_else(|| "".into(), |name| name.to_string().into()),
            cluster: cluster.map_or("", String::as_str).into(),
        },
        locality: Locality { region: "".into(), zone: endpoint.zone.as_deref().unwrap_or_default().into() },
        weight: 1,
        mesh: facts.and_then(|facts| facts.mesh(policy_port)),
    })
}

fn from_entries<'a>(
    index: &'a Index<'_>,
    service: &'a ServiceObject,
    port: &'a ServicePort,
) -> impl Iterator<Item = Candidate> + 'a {
    let selector = service.spec.spec.selector.as_ref();
    let selected = move |entry: &&Stored<WorkloadEntrySpec>| {
        selector
            .is_some_and(|selector| selector.iter().all(|(key, value)| label_of(entry, key) == Some(value)))
    };
    index.entries(service).filter(selected).filter_map(move |entry| of_entry(entry, port))
}

fn of_entry(entry: &Stored<WorkloadEntrySpec>, port: &ServicePort) -> Option<Candidate> {
    let facts = Facts::of_entry(entry);
    let target = facts.port(port).unwrap_or(port.port);
    let mapped = port.name.as_ref().and_then(|name| entry.spec.ports.get(name)).copied();
    let address: IpAddr = entry.spec.address.value.parse().ok()?;
    let mut locality = entry.spec.locality.as_deref().unwrap_or_default().split('/');
    Some(Candidate {
        address: SocketAddr::new(address, mapped.unwrap_or(target)),
        workload: Workload {
            name: entry.name.to_string().into(),
            cluster: facts.labels.get(CLUSTER_LABEL).map_or("", String::as_str).into(),
        },
        locality: Locality {
            region: locality.next().unwrap_or_default().into(),
            zone: locality.next().unwrap_or_default().into(),
        },
        weight: entry.spec.weight.filter(|weight| *weight > 0).unwrap_or(1),
        mesh: facts.mesh(target),
    })
}

/// What is known of a pod or a VM.
pub(crate) struct Facts {
    pub(crate) namespace: Arc<str>,
    pub(crate) account: String,
    pub(crate) labels: BTreeMap<String, String>,
    ports: BTreeMap<String, u16>,
    unnamed: Vec<u16>,
}

/// The pod or VM of this kind and name.
fn workload(objects: &Objects, kind: &str, name: &ObjectName) -> Option<Facts> {
    match kind {
        "Pod" => objects.pods.get(name).map(|pod| Facts::of_pod(pod)),
        "WorkloadEntry" => objects.workload_entries.get(name).map(|entry| Facts::of_entry(entry)),
        _ => None,
    }
}

impl Facts {
    /// What decides about policies.
    pub(crate) fn place(&self) -> crate::scope::Workload<'_> {
        crate::scope::Workload { namespace: &self.namespace, labels: &self.labels }
    }

    /// The cluster that the workload belongs to.
    pub(crate) fn cluster(&self) -> Option<Arc<str>> {
        self.labels.get(CLUSTER_LABEL).map(|cluster| cluster.as_str().into())
    }

    /// The workload of this name, pod or VM.
    pub(crate) fn find(objects: &Objects, name: &ObjectName) -> Option<Self> {
        workload(objects, "Pod", name).or_else(|| workload(objects, "WorkloadEntry", name))
    }

    /// One that no resource describes.
    pub(crate) fn given(workload: &GivenWorkload) -> Self {
        Self {
            namespace: Arc::clone(&workload.namespace),
            account: "default".into(),
            labels: workload.labels.clone(),
            ports: BTreeMap::new(),
            unnamed: Vec::new(),
        }
    }

    fn of_pod(pod: &Stored<Pod>) -> Self {
        let ports = || pod.spec.spec.containers.iter().flat_map(|container| &container.ports);
        let unnamed = ports().filter(|port| port.name.is_none()).map(|port| port.container_port).collect();
        let account = pod.spec.spec.service_account_name.as_deref().filter(|account| !account.is_empty());
        Self {
            namespace: Arc::clone(&pod.name.namespace),
            account: account.unwrap_or("default").into(),
            labels: pod.labels.clone(),
            ports: ports().filter_map(|port| Some((port.name.clone()?, port.container_port))).collect(),
            unnamed,
        }
    }

    fn of_entry(entry: &Stored<WorkloadEntrySpec>) -> Self {
        let account = entry.spec.service_account.as_deref().filter(|account| !account.is_empty());
        Self {
            namespace: Arc::clone(&entry.name.namespace),
            account: account.unwrap_or("default").into(),
            labels: entry_labels(entry),
            ports: entry.spec.ports.clone(),
            unnamed: Vec::new(),
        }
    }

    /// The Services that lead to the workload.
    pub(crate) fn services<'o>(
        &'o self,
        objects: &'o Objects,
    ) -> impl Iterator<Item = &'o ServiceObject> + 'o {
        objects.services.values().map(|service| &**service).filter(|service| {
            let selector = service.spec.spec.selector.as_ref().filter(|selector| !selector.is_empty());
            service.name.namespace == self.namespace
                && selector.is_some_and(|selector| has_all(&self.labels, selector))
        })
    }

    /// Ports that the workload itself names.
    pub(crate) fn own_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.values().chain(&self.unnamed).copied()
    }

    /// The workload's own number of a port of a Service.
    pub(crate) fn port(&self, port: &ServicePort) -> Option<u16> {
        match &port.target_port {
            None => Some(port.port),
            Some(PortRef::Number(number)) => Some(*number),
            Some(PortRef::Name(name)) => self.ports.get(name).copied(),
        }
    }

    fn mesh(&self, port: u16) -> Option<MeshWorkload> {
        let has = |(key, value): (&str, &str)| self.labels.get(key).is_some_and(|there| there == value);
        let tunnel = has(TUNNEL_LABEL).then(|| self.ports.get("hbone").copied().unwrap_or(HBONE_PORT));
        (has(MESH_LABEL) || tunnel.is_some()).then(|| MeshWorkload {
            tunnel,
            namespace: Arc::clone(&self.namespace),
            account: self.account.clone(),
            labels: self.labels.clone(),
            port,
        })
    }
}

/// Labels of the workload stand in the body; those of the object fill in.
fn label_of<'e>(entry: &'e Stored<WorkloadEntrySpec>, key: &str) -> Option<&'e String> {
    entry.spec.labels.get(key).or_else(|| entry.labels.get(key))
}

fn entry_labels(entry: &Stored<WorkloadEntrySpec>) -> BTreeMap<String, String> {
    let mut labels = entry.labels.clone();
    labels.extend(entry.spec.labels.clone());
    labels
}

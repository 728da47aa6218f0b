//! The whole way: texts, objects, one snapshot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use towpath_gateway_core::{SpiffeId, TlsVersion};
use towpath_routing::{Normalization, PathNormalization};

use crate::backend::Backends;
use crate::backend_tls::TlsPolicies;
use crate::certificate::Credential;
use crate::endpoints::Facts;
use crate::load::load;
use crate::objects::{Objects, Stored};
use crate::peer::{self, Peers};
use crate::request_authentication::Authentications;
use crate::resources::gateway::GatewaySpec;
use crate::resources::towpath::{NormalizationSpec, TlsProtocolSpec};
use crate::retry_budget::RetryBudgets;
use crate::scope::Place;
use crate::snapshot::Kept;
use crate::status::ObjectStatus;
use crate::topology::{Plan, Rules, plan};
use crate::unmet::Offered;
use crate::{
    Guard, Listener, MeshSettings, ObjectName, PlaintextHop, PortMap, Problem, Role, Scenario, Snapshot,
    Source, authorization, edge, federation, policy, provider, sidecar, status, unmet,
};

/// For whom a directory is compiled.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the process is.
    pub role: Role,
    /// The pod or `WorkloadEntry` that the process serves, if it is known. A sidecar needs it.
    pub workload: Option<ObjectName>,
    /// A workload that no resource describes, in place of `workload`.
    pub given: Option<GivenWorkload>,
    /// Where a sidecar takes in tunnels of an ambient mesh.
    pub hbone: Option<SocketAddr>,
    /// Where a sidecar takes in connections that the kernel redirects to it.
    pub capture: Option<Capture>,
    /// Where listeners really listen. `None`: at the addresses and ports that the resources name.
    pub port_map: Option<PortMap>,
    /// Serve only Gateways whose class has this controller; `None`: all.
    pub controller_name: Option<String>,
    /// Whether the process has a workload identity of the mesh.
    pub has_identity: bool,
    /// Takes the place of the word in the `Mesh` resource.
    pub scenario: Option<Scenario>,
    /// Takes the place of what the `Mesh` resource says of the mesh.
    pub mesh: Option<MeshSettings>,
    /// Take providers of CUSTOM policies that are not there for ones that are: something else answers for them.
    pub assume_providers: bool,
    /// The time by which certificates are judged.
    pub now: SystemTime,
    /// Says whether an address is of this machine; `None`: every address counts as usable.
    pub is_local: Option<fn(IpAddr) -> bool>,
    /// Reads the authorities that the system trusts, in DER; `None`: policies that ask for them are refused.
    pub system_authorities: Option<fn() -> Vec<Arc<[u8]>>>,
}

/// Sockets that connections are redirected to, wherever they were for (`SO_ORIGINAL_DST`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// For connections to the workload; one for each family of addresses.
    pub inbound: Vec<SocketAddr>,
    /// For connections of the workload; one for each family of addresses.
    pub outbound: Vec<SocketAddr>,
    /// Where the application listens, at any port that connections to are captured for.
    pub application: IpAddr,
}

/// A workload as policies see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GivenWorkload {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Options {
    /// A process of this role, at the present time, with nothing else known.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            workload: None,
            given: None,
            hbone: None,
            capture: None,
            port_map: None,
            controller_name: None,
            has_identity: false,
            scenario: None,
            mesh: None,
            assume_providers: false,
            now: SystemTime::now(),
            is_local: None,
            system_authorities: None,
        }
    }
}

/// Compiles all texts for one process. It never fails: what is wrong is among [`Snapshot::problems`], and everything
/// else is in force. From `previous` come the endpoints that did not change, with their counts of requests in flight,
/// and the last good version of objects that are broken now.
pub fn compile(source: &Source, options: &Options, previous: Option<&Snapshot>) -> Snapshot {
    let mut problems = Vec::new();
    let (objects, files) = load(source, previous.map(|snapshot| &snapshot.kept.files), &mut problems);
    let word = Word::of(&objects, options, &mut problems);
    let before = previous.map(|snapshot| &snapshot.kept);
    let mut snapshot = compile_role(&objects, options, &word, before, problems);
    snapshot.kept.files = files;
    snapshot.problems.sort_by_cached_key(|problem| {
        let position = problem.position.as_ref().map(|p| (p.file.clone(), p.line, p.column));
        (Reverse(problem.severity), position.is_none(), position)
    });
    snapshot.problems.dedup();
    snapshot
}

/// What the `Mesh` resource says, or its defaults.
struct Word {
    scenario: Scenario,
    mesh: MeshSettings,
    ingress: ObjectName,
    /// Nothing may be served before the resource can be read: everything depends on it.
    unreadable: bool,
}

impl Word {
    fn of(objects: &Objects, options: &Options, problems: &mut Vec<Problem>) -> Self {
        let mut meshes = objects.meshes.values();
        let object = meshes.next();
        for other in meshes {
            let message =
                format!("there is one Mesh at most: {} holds", object.map_or("", |mesh| &mesh.name.name));
            problems.push(other.error(None, message).suggest("remove this one"));
        }
        let (spec, default) = (object.map(|mesh| &mesh.spec), MeshSettings::default());
        let domain = spec.and_then(|spec| spec.trust_domain.as_ref()?.value.parse().ok());
        let root = spec.and_then(|spec| spec.root_namespace.as_deref());
        let aliases = spec.into_iter().flat_map(|spec| &spec.trust_domain_aliases);
        let mut mesh = options.mesh.clone().unwrap_or_else(|| MeshSettings {
            trust_domain: domain.unwrap_or(default.trust_domain),
            trust_domain_aliases: aliases.filter_map(|alias| alias.value.parse().ok()).collect(),
            root_namespace: root.map_or(default.root_namespace, Into::into),
            path_normalization: spec
                .and_then(|spec| normalization(spec.path_normalization.as_ref()?.normalization)),
            strict: spec.is_some_and(|spec| spec.strict),
            default_deny: spec.is_some_and(|spec| spec.default_deny),
            private_jwks: spec
                .and_then(|spec| spec.remote_jwks.as_ref())
                .is_some_and(|spec| spec.allow_private_addresses),
            federation: Vec::new(),
            min_tls_version: match spec.and_then(|spec| spec.mesh_mtls.as_ref()?.min_protocol_version) {
                Some(TlsProtocolSpec::Tls13) => TlsVersion::Tls13,
                Some(TlsProtocolSpec::Tls12 | TlsProtocolSpec::Auto) | None => TlsVersion::Tls12,
            },
            outbound_traffic_policy: spec
                .and_then(|spec| spec.outbound_traffic_policy.as_ref())
                .map(|spec| spec.mode)
                .unwrap_or_default(),
            trusted_proxies: spec
                .and_then(|spec| spec.gateway_topology.as_ref())
                .map_or(0, |t| t.num_trusted_proxies),
        });
        if let (Some(object), None) = (object, &options.mesh) {
            mesh.federation = federation::compile(objects, object, &mesh, problems);
        }
        let named = spec.and_then(|spec| Some(spec.ingress.as_ref()?.service.0.clone()));
        let ingress = named
            .unwrap_or_else(|| ObjectName { namespace: mesh.root_namespace.clone(), name: "ingress".into() });
        let scenario = options.scenario.or_else(|| Some(spec?.scenario?.0)).unwrap_or_default();
        let unreadable = object.is_none() && objects.refused.iter().any(|refused| refused.kind == "Mesh");
        Self { scenario, mesh, ingress, unreadable }
    }
}

fn normalization(spec: NormalizationSpec) -> Option<PathNormalization> {
    match spec {
        NormalizationSpec::Default => None,
        NormalizationSpec::None => Some(PathNormalization::None),
        NormalizationSpec::Base => Some(PathNormalization::Base),
        NormalizationSpec::MergeSlashes => Some(PathNormalization::MergeSlashes),
        NormalizationSpec::DecodeAndMergeSlashes => Some(PathNormalization::DecodeAndMergeSlashes),
    }
}

/// Everything that compiling the parts of a snapshot needs and adds to.
pub(crate) struct Work<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) options: &'a Options,
    pub(crate) mesh: &'a MeshSettings,
    pub(crate) peers: &'a Peers<'a>,
    pub(crate) plan: Plan,
    pub(crate) ingress: &'a ObjectName,
    pub(crate) backends: Backends<'a>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) controller: Arc<str>,
    pub(crate) status: Vec<ObjectStatus>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) credentials_before: Option<&'a HashMap<ObjectName, Credential>>,
    /// What was read from Secrets, to be kept for the next time.
    pub(crate) credentials: HashMap<ObjectName, Credential>,
    /// The workload that this process serves, if it is known.
    pub(crate) workload: Option<&'a Facts>,
    pub(crate) policies: &'a authorization::Policies,
    pub(crate) authentications: &'a Authentications,
}

impl Work<'_> {
    /// The controller that status names.
    pub(crate) fn controller(&self) -> Arc<str> {
        Arc::clone(&self.controller)
    }

    /// What holds at any of these places.
    pub(crate) fn guard(&mut self, places: &[Place<'_>], normalization: Normalization) -> Guard {
        let (policies, objects, root) = (self.policies, self.objects, Arc::clone(&self.mesh.root_namespace));
        let authentication = self.authentications.of(objects, &root, places);
        let checked_later = authentication.headers();
        let default_deny =
            self.mesh.default_deny && places.iter().any(|place| matches!(place, Place::Workload(_)));
        let authorization = policies.of(objects, &root, (places, default_deny), |name, policy| {
            provider::resolve(self, name, (policy, &checked_later))
        });
        Guard { normalization, authentication, authorization }
    }

    /// What holds at a socket of these Gateways.
    pub(crate) fn gateway_guard(&mut self, gateways: &[&Stored<GatewaySpec>]) -> Guard {
        let workload = self.workload.map(Facts::place);
        let places = gateways.iter().map(|gateway| Place::Gateway {
            name: &gateway.name,
            class: &gateway.spec.gateway_class_name.value,
            workload,
        });
        let places: Vec<_> = places.collect();
        let mut normalization = self.mesh.edge_normalization();
        if self.plan.rules == Rules::Behind {
            // The gateway in front is a proxy more.
            normalization.trusted_proxies = normalization.trusted_proxies.saturating_add(1);
        }
        let guard = self.guard(&places, normalization);
        let token = !guard.authentication.is_empty();
        unmet::report(self, &guard, Offered { peers: unmet::Peers::Clients, token });
        guard
    }
}

fn compile_role(
    objects: &Objects,
    options: &Options,
    word: &Word,
    before: Option<&Kept>,
    mut problems: Vec<Problem>,
) -> Snapshot {
    policy::check_consumers(objects, &mut problems);
    peer::report_idle(objects, &word.mesh.root_namespace, &mut problems);
    let providers = || objects.meshes.values().flat_map(|mesh| &mesh.spec.extension_providers);
    let known = |name: &str| options.assume_providers || providers().any(|spec| spec.name.value == name);
    let mut policies = authorization::Policies::compile(objects, &word.mesh, known, &mut problems);
    let keys_before = before.map(|kept| &kept.remote_keys);
    let (authentications, remote_keys) =
        Authentications::compile(objects, keys_before, &mut policies, &mut problems);
    let named = || options.workload.as_ref().and_then(|name| Facts::find(objects, name));
    let workload = options.given.as_ref().map(Facts::given).or_else(named);
    let mut snapshot = Snapshot {
        scenario: word.scenario,
        mesh: word.mesh.clone(),
        identity: workload.as_ref().and_then(|facts| {
            SpiffeId::workload(&word.mesh.trust_domain, &facts.namespace, &facts.account).ok()
        }),
        cluster: workload.as_ref().and_then(Facts::cluster).unwrap_or_default(),
        ..Snapshot::default()
    };
    let plan = match plan(word.scenario, &options.role) {
        Ok(plan) if !word.unreadable => plan,
        Ok(_) => return Snapshot { problems, ..snapshot },
        Err(message) => {
            problems.push(Problem::error(format!("{message}; this is `{}`", word.scenario)));
            return Snapshot { problems, ..snapshot };
        }
    };
    let peers = Peers::new(objects, word.mesh.root_namespace.clone(), word.scenario);
    let tls = match options.role {
        Role::Gateway | Role::Ingress => TlsPolicies::compile(objects, options, &mut problems),
        Role::Sidecar { .. } => TlsPolicies::default(),
    };
    let budgets = RetryBudgets::compile(objects, before.map(|kept| &kept.budgets), &mut problems);
    let endpoints = before.map(|kept| &kept.endpoints);
    let backends = Backends::new(objects, options, &word.mesh, &peers, plan.hop, endpoints, (tls, budgets));
    let (status, listeners) = (Vec::new(), Vec::new());
    let mut work = Work {
        objects,
        options,
        mesh: &word.mesh,
        peers: &peers,
        plan,
        ingress: &word.ingress,
        backends,
        problems,
        controller: options.controller_name.as_deref().unwrap_or(status::CONTROLLER).into(),
        status,
        listeners,
        credentials_before: before.map(|kept| &kept.credentials),
        credentials: HashMap::new(),
        workload: workload.as_ref(),
        policies: &policies,
        authentications: &authentications,
    };
    match &options.role {
        Role::Gateway | Role::Ingress => edge::compile(&mut work),
        Role::Sidecar { inbound } => sidecar::compile(&mut work, inbound),
    }
    let controller = work.controller();
    let broken = objects.refused.iter().filter(|refused| refused.kind.ends_with("Route"));
    work.status.extend(broken.map(|refused| status::refused_route(refused, &controller)));
    snapshot.plaintext_hops = plaintext_hops(&work);
    let Work { problems, status, listeners, backends, credentials, .. } = work;
    let (endpoints, budgets) = backends.into_kept();
    let kept = Kept { endpoints, budgets, remote_keys, credentials, ..Kept::default() };
    let mut snapshot = Snapshot { listeners, problems, status, kept, ..snapshot };
    snapshot.problems.extend(snapshot.not_strict().map(Problem::error));
    snapshot
}

fn plaintext_hops(work: &Work<'_>) -> Vec<PlaintextHop> {
    let (mut hops, mut seen) = (Vec::new(), HashSet::new());
    for listener in work.listeners.iter().flat_map(Listener::all) {
        if listener.passes_what_it_does_not_know() {
            let why = "captured connections to what is no Service pass as they are".to_owned();
            hops.push(PlaintextHop { from: listener.name.clone(), to: "anywhere else".into(), why });
        }
        for backend in listener.duty.backends() {
            let Some(why) = work.backends.plaintext(&backend.name) else { continue };
            if seen.insert((&listener.name, &backend.name)) {
                let (from, to) = (listener.name.clone(), backend.name.clone());
                hops.push(PlaintextHop { from, to, why: why.to_owned() });
            }
        }
    }
    hops
}

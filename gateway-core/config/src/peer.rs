//! What a workload accepts, by the precedence that Istio gives to `PeerAuthentication` objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_mesh_mtls::MtlsMode;

use crate::edge_services::EdgeServices;
use crate::objects::{Objects, Stored};
use crate::resources::gateway::has_all;
use crate::resources::istio::{ModeSpec, MtlsSpec, PeerAuthenticationSpec};
use crate::topology::{DefaultMode, default_mode};
use crate::{Problem, Scenario};

type PeerAuthentication = Arc<Stored<PeerAuthenticationSpec>>;

/// A mode and which object asks for it; none if it is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) mode: MtlsMode,
    pub(crate) object: Option<String>,
}

/// What workloads take.
pub(crate) struct Peers<'a> {
    objects: &'a Objects,
    root: Arc<str>,
    default: DefaultMode,
    edge: EdgeServices,
}

impl<'a> Peers<'a> {
    pub(crate) fn new(objects: &'a Objects, root: Arc<str>, scenario: Scenario) -> Self {
        let default = default_mode(!objects.meshes.is_empty(), scenario);
        Self { objects, root, default, edge: EdgeServices::find(objects) }
    }

    /// The mode in force for a port of a workload: that of the port, else of the workload, else of its namespace, else
    /// of the mesh, else the default. `UNSET` asks the next; of several at one level the oldest decides.
    pub(crate) fn demand(&self, place: (&str, &BTreeMap<String, String>), port: u16) -> Demand {
        asked(self.objects, &self.root, place, port)
            .unwrap_or_else(|| Demand { mode: self.default(place), object: None })
    }

    /// Ports of a workload that something is asked for by itself.
    pub(crate) fn named_ports(&self, (namespace, labels): (&str, &BTreeMap<String, String>)) -> Vec<u16> {
        let policy = of_workload(self.objects, &self.root, (namespace, labels));
        let ports = policy.into_iter().flat_map(|policy| policy.spec.port_level_mtls.keys());
        ports.copied().collect()
    }

    fn default(&self, (namespace, labels): (&str, &BTreeMap<String, String>)) -> MtlsMode {
        match self.default {
            DefaultMode::Permissive => MtlsMode::Permissive,
            DefaultMode::StrictBehindTheEdge if self.edge.select(namespace, labels) => MtlsMode::Permissive,
            DefaultMode::Strict | DefaultMode::StrictBehindTheEdge => MtlsMode::Strict,
        }
    }
}

/// Tells of what holds for nobody by where it stands.
pub(crate) fn report_idle(objects: &Objects, root: &str, problems: &mut Vec<Problem>) {
    for policy in objects.peer_authentications.values() {
        let wide = is_wide(policy);
        if *policy.name.namespace == *root && !wide {
            let message = "in the root namespace a `selector` is for no workload, and nor is this resource";
            let suggestion = "for the whole mesh leave it out; for some workloads move to their namespace";
            problems.push(policy.warning(None, message).suggest(suggestion));
        } else if wide && !policy.spec.port_level_mtls.is_empty() {
            let message = "`portLevelMtls` holds for no port: it needs a `selector`";
            let suggestion = "name the workloads by `selector.matchLabels`";
            problems.push(policy.warning(None, message).suggest(suggestion));
        }
    }
}

fn asked(
    objects: &Objects,
    root: &Arc<str>,
    (namespace, labels): (&str, &BTreeMap<String, String>),
    port: u16,
) -> Option<Demand> {
    if let Some(refused) = refused(objects, root, namespace) {
        return Some(Demand { mode: MtlsMode::Strict, object: Some(refused) });
    }
    let workload = of_workload(objects, root, (namespace, labels));
    let levels = [
        workload.and_then(|policy| Some((policy, *policy.spec.port_level_mtls.get(&port)?))),
        workload.and_then(own),
        oldest(objects, namespace, is_wide).and_then(own),
        oldest(objects, root, is_wide).and_then(own),
    ];
    let (policy, mode) =
        levels.into_iter().flatten().find_map(|(policy, mtls)| Some((policy, mode(mtls)?)))?;
    Some(Demand { mode, object: Some(policy.label()) })
}

/// A policy that could not be read may have asked for STRICT: until it is mended, that is what holds.
fn refused(objects: &Objects, root: &Arc<str>, namespace: &str) -> Option<String> {
    let concerned = |scope: &Arc<str>| **scope == *namespace || scope == root;
    let mut refused = objects.refused.iter().filter(|refused| refused.kind == "PeerAuthentication");
    refused.find(|refused| concerned(refused.scope(root))).map(|refused| refused.label())
}

/// The policy that selects a workload. In the root namespace policies are for the mesh, and a selector there is for nobody
/// (Istio, `ComposePeerAuthentication`).
fn of_workload<'a>(
    objects: &'a Objects,
    root: &str,
    (namespace, labels): (&str, &BTreeMap<String, String>),
) -> Option<&'a PeerAuthentication> {
    if namespace == root {
        return None;
    }
    oldest(objects, namespace, |policy| selects(policy, labels))
}

fn own(policy: &PeerAuthentication) -> Option<(&PeerAuthentication, MtlsSpec)> {
    Some((policy, policy.spec.mtls?))
}

fn mode(mtls: MtlsSpec) -> Option<MtlsMode> {
    match mtls.mode {
        ModeSpec::Unset => None,
        ModeSpec::Disable => Some(MtlsMode::Disable),
        ModeSpec::Permissive => Some(MtlsMode::Permissive),
        ModeSpec::Strict => Some(MtlsMode::Strict),
    }
}

fn is_wide(policy: &PeerAuthentication) -> bool {
    policy.spec.selector.as_ref().is_none_or(|selector| selector.match_labels.is_empty())
}

fn selects(policy: &PeerAuthentication, labels: &BTreeMap<String, String>) -> bool {
    let selector = policy.spec.selector.as_ref();
    !is_wide(policy) && selector.is_some_and(|selector| has_all(labels, &selector.match_labels))
}

fn oldest<'a>(
    objects: &'a Objects,
    namespace: &str,
    wanted: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&'a PeerAuthentication> {
    let policies = objects.peer_authentications.values();
    policies.filter(|p| *p.name.namespace == *namespace && wanted(p)).min_by_key(|p| p.seniority())
}

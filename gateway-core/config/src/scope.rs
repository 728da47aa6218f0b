//! Where a security policy of Istio holds: workloads by namespace and labels, or what its target references name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{GATEWAY_GROUP, Objects};
use crate::resources::gateway::has_all;
use crate::resources::istio::{PolicyTargetRef, WorkloadSelector};
use crate::{ObjectName, document::Defect};

/// Where policies are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// At the sidecar of a workload.
    Workload(Workload<'a>),
    /// At a Gateway, by the workload that serves it, where that is known.
    Gateway { name: &'a ObjectName, class: &'a str, workload: Option<Workload<'a>> },
}

/// What of a workload decides about policies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// Where one policy holds.
#[derive(Debug)]
pub(crate) struct Scope {
    namespace: Arc<str>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Workloads with these labels: of the namespace, or of all if it is the root namespace.
    Selected(BTreeMap<String, String>),
    Targets(Vec<Target>),
}

#[derive(Debug)]
enum Target {
    Gateway(ObjectName),
    GatewayClass(String),
    Service(ObjectName),
}

impl Scope {
    /// Every workload that the namespace has a say about.
    pub(crate) fn whole(namespace: &Arc<str>) -> Self {
        Self { namespace: Arc::clone(namespace), what: What::Selected(BTreeMap::new()) }
    }

    /// Reads a policy's `selector`, `targetRef` and `targetRefs`.
    pub(crate) fn read(
        namespace: &Arc<str>,
        selector: Option<&WorkloadSelector>,
        targets: &[&PolicyTargetRef],
    ) -> Result<Self, Defect> {
        let namespace = Arc::clone(namespace);
        let Some(first) = targets.first() else {
            let labels = selector.map(|selector| selector.match_labels.clone()).unwrap_or_default();
            return Ok(Self { namespace, what: What::Selected(labels) });
        };
        if selector.is_some() {
            let message = "a policy has a `selector` or target references, not both";
            return Err(Defect::new(first.name.referenced, message));
        }
        let targets: Result<_, _> = targets.iter().map(|target| Target::read(target, &namespace)).collect();
        Ok(Self { namespace, what: What::Targets(targets?) })
    }

    /// The names of what is not there.
    pub(crate) fn missing(&self, objects: &Objects) -> Vec<String> {
        let What::Targets(targets) = &self.what else { return Vec::new() };
        let missing = targets.iter().filter_map(|target| match target {
            Target::Gateway(name) if !objects.gateways.contains_key(name) => Some(format!("Gateway {name}")),
            Target::Service(name) if !objects.services.contains_key(name) => Some(format!("Service {name}")),
            Target::GatewayClass(name)
                if objects.gateway_classes.keys().all(|class| *class.name != **name) =>
            {
                Some(format!("GatewayClass {name}"))
            }
            _ => None,
        });
        missing.collect()
    }

    /// Whether the policy holds there.
    pub(crate) fn holds(&self, objects: &Objects, root: &str, place: Place<'_>) -> bool {
        match (&self.what, place) {
            (
                What::Selected(labels),
                Place::Workload(workload) | Place::Gateway { workload: Some(workload), .. },
            ) => {
                (*self.namespace == *workload.namespace || *self.namespace == *root)
                    && has_all(workload.labels, labels)
            }
            // Of an unknown workload it is known that it is one.
            (What::Selected(labels), Place::Gateway { workload: None, .. }) => {
                *self.namespace == *root && labels.is_empty()
            }
            (What::Targets(targets), Place::Gateway { name, class, .. }) => {
                targets.iter().any(|target| match target {
                    Target::Gateway(wanted) => wanted == name,
                    Target::GatewayClass(wanted) => wanted == class && *self.namespace == *root,
                    Target::Service(_) => false,
                })
            }
            (What::Targets(targets), Place::Workload(workload)) => {
                targets.iter().any(|target| match target {
                    Target::Service(wanted) => selects(objects, wanted, workload),
                    Target::Gateway(_) | Target::GatewayClass(_) => false,
                })
            }
        }
    }
}

impl Target {
    fn read(target: &PolicyTargetRef, namespace: &Arc<str>) -> Result<Self, Defect> {
        let at = target.name.referenced;
        if target.namespace.as_deref().is_some_and(|other| *other != **namespace) {
            return Err(Defect::new(at, "a policy is attached to what is in its own namespace"));
        }
        let name =
            || ObjectName { namespace: Arc::clone(namespace), name: target.name.value.as_str().into() };
        match (&*target.group, &*target.kind) {
            (GATEWAY_GROUP, "Gateway") => Ok(Self::Gateway(name())),
            (GATEWAY_GROUP, "GatewayClass") => Ok(Self::GatewayClass(target.name.value.clone())),
            ("" | "core", "Service") => Ok(Self::Service(name())),
            (group, kind) => {
                let message = format!(
                    "`{kind}` of group `{group}` is no target: it is a Gateway or a GatewayClass of \
                     `{GATEWAY_GROUP}`, or a Service of the core group"
                );
                Err(Defect::new(at, message))
            }
        }
    }
}

fn selects(objects: &Objects, service: &ObjectName, workload: Workload<'_>) -> bool {
    let selector = objects.services.get(service).and_then(|service| service.spec.spec.selector.as_ref());
    *service.namespace == *workload.namespace
        && selector.is_some_and(|selector| !selector.is_empty() && has_all(workload.labels, selector))
}

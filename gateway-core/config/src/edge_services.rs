//! Which workloads stand right behind the edge: those that a Service selects which a Gateway's route names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ObjectName;
use crate::objects::{Objects, Stored};
use crate::parents::is_service;
use crate::resources::gateway::has_all;
use crate::resources::route::{BackendRef, FilterSpec, RouteSpec};

/// Namespace and selector of every Service behind the edge.
pub(crate) struct EdgeServices(Vec<(Arc<str>, BTreeMap<String, String>)>);

impl EdgeServices {
    pub(crate) fn find(objects: &Objects) -> Self {
        let http = objects.http_routes.values().flat_map(|route| named(route));
        let grpc = objects.grpc_routes.values().flat_map(|route| named(route));
        let services = http.chain(grpc).filter_map(|name| objects.services.get(&name));
        let selector = |service: &Arc<Stored<_>>| selector(service);
        Self(services.filter_map(selector).collect())
    }

    /// Whether one of them selects a workload.
    pub(crate) fn select(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|(of, selector)| **of == *namespace && has_all(labels, selector))
    }
}

fn selector(
    service: &Stored<crate::resources::core::Service>,
) -> Option<(Arc<str>, BTreeMap<String, String>)> {
    let selector = service.spec.spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    Some((Arc::clone(&service.name.namespace), selector.clone()))
}

/// The Services that a route of a Gateway names.
fn named<M>(route: &Stored<RouteSpec<M>>) -> impl Iterator<Item = ObjectName> + '_ {
    let north_south = route.spec.parent_refs.iter().any(|parent| !is_service(parent));
    let rules = route.spec.rules.iter().flatten().filter(move |_| north_south);
    let references =
        rules.flat_map(move |rule| rule.backend_refs.iter().chain(rule.filters.iter().flat_map(of_filter)));
    references.map(|reference: &BackendRef| ObjectName {
        namespace: reference
            .namespace
            .as_deref()
            .map_or_else(|| Arc::clone(&route.name.namespace), Into::into),
        name: reference.name.value.as_str().into(),
    })
}

/// The Services that a filter names.
fn of_filter(filter: &FilterSpec) -> impl Iterator<Item = &BackendRef> {
    let mirror = filter.request_mirror.as_ref().map(|mirror| &mirror.backend_ref);
    let auth = filter.external_auth.as_ref().map(|auth| &auth.backend_ref);
    mirror.into_iter().chain(auth)
}

//! Routes by the Services that they are for: looking through all for each Service would take their product.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ObjectName;
use crate::objects::{Objects, Stored};
use crate::parents::is_service;
use crate::resources::route::{
    FlowSpec as _, GrpcRouteSpec, HttpRouteSpec, ParentRef, PortRouteSpec, TlsRouteSpec,
};

/// By namespace and name of the Service, in the order of their own names.
type ByService<'a, S> = HashMap<(&'a str, &'a str), Vec<&'a Stored<S>>>;

/// The routes whose parents are Services.
pub(crate) struct ServiceRoutes<'a> {
    http: ByService<'a, HttpRouteSpec>,
    grpc: ByService<'a, GrpcRouteSpec>,
    tls: ByService<'a, TlsRouteSpec>,
    tcp: ByService<'a, PortRouteSpec>,
}

impl<'a> ServiceRoutes<'a> {
    pub(crate) fn of(objects: &'a Objects) -> Self {
        Self {
            http: index(objects.http_routes.values(), |spec| &spec.parent_refs),
            grpc: index(objects.grpc_routes.values(), |spec| &spec.parent_refs),
            tls: index(objects.tls_routes.values(), |spec| spec.parent_refs()),
            tcp: index(objects.tcp_routes.values(), |spec| spec.parent_refs()),
        }
    }

    pub(crate) fn http<'s>(&'s self, service: &'s ObjectName) -> &'s [&'s Stored<HttpRouteSpec>] {
        found(&self.http, service)
    }

    pub(crate) fn grpc<'s>(&'s self, service: &'s ObjectName) -> &'s [&'s Stored<GrpcRouteSpec>] {
        found(&self.grpc, service)
    }

    pub(crate) fn tls<'s>(&'s self, service: &'s ObjectName) -> &'s [&'s Stored<TlsRouteSpec>] {
        found(&self.tls, service)
    }

    pub(crate) fn tcp<'s>(&'s self, service: &'s ObjectName) -> &'s [&'s Stored<PortRouteSpec>] {
        found(&self.tcp, service)
    }
}

fn index<'a, S>(
    routes: impl Iterator<Item = &'a Arc<Stored<S>>>,
    parents: impl Fn(&'a S) -> &'a [ParentRef],
) -> ByService<'a, S> {
    let mut index = ByService::new();
    for route in routes {
        for reference in parents(&route.spec).iter().filter(|reference| is_service(reference)) {
            let namespace = reference.namespace.as_deref().unwrap_or(&route.name.namespace);
            let there: &mut Vec<&Stored<S>> =
                index.entry((namespace, reference.name.value.as_str())).or_default();
            // One that names several ports of the Service is there once.
            if there.last().is_none_or(|last| last.name != route.name) {
                there.push(route);
            }
        }
    }
    index
}

fn found<'i, S>(index: &'i ByService<'i, S>, service: &'i ObjectName) -> &'i [&'i Stored<S>] {
    index.get(&(&*service.namespace, &*service.name)).map(Vec::as_slice).unwrap_or_default()
}

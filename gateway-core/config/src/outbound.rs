//! What the sidecar of a workload sends out for it: to a port of a Service, by the routes that hold for this caller.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use towpath_auth::AuthorizationPolicies;
use towpath_gateway_core::{Backend, Policies, RouteName};
use towpath_routing::{
    self as routing, Filters, FlowListener, FlowRoute, Hostname, Route, Rule, WeightedBackend,
};

use crate::backend::{Carries, find_port};
use crate::compile::Work;
use crate::endpoints::application;
use crate::flow;
use crate::matches::Match;
use crate::objects::Stored;
use crate::parents::is_service;
use crate::resources::core::ServicePort;
use crate::resources::route::{FlowSpec, ParentRef, RouteSpec};
use crate::rule::compile as compile_rules;
use crate::service_routes::ServiceRoutes;
use crate::status::{Body, item, parent};
use crate::{Application, Duty, ObjectName, StreamTls};

/// What a listener carries to a port of a Service. Routes for HTTP say what it speaks, then routes for TLS, then those for
/// TCP, then the port itself.
pub(crate) fn compile(
    work: &mut Work<'_>,
    routes: &ServiceRoutes<'_>,
    name: &ObjectName,
    port: u16,
) -> Result<Duty, String> {
    let target = Target::find(work, name, port)?;
    let requests = request_routes(work, routes, &target);
    if !requests.is_empty() {
        return Ok(target.duty(work, requests, Vec::new(), StreamTls::Opaque));
    }
    let (flows, tls) = flow_routes(work, routes, &target);
    if !flows.is_empty() {
        return Ok(target.duty(work, requests, flows, tls));
    }
    let straight = target.straight(work)?;
    Ok(straight.duty(work, &target, Arc::clone))
}

/// The same for each endpoint of a headless Service, whose clients choose one by themselves.
pub(crate) fn each_endpoint(
    work: &mut Work<'_>,
    name: &ObjectName,
    port: u16,
) -> Result<Vec<(SocketAddr, Duty)>, String> {
    let target = Target::find(work, name, port)?;
    let straight = target.straight(work)?;
    let only = |address| straight.duty(work, &target, |backend| narrowed(backend, address));
    Ok(straight.addresses().into_iter().map(|address| (address, only(address))).collect())
}

/// A backend of the one endpoint.
fn narrowed(backend: &Arc<Backend>, address: SocketAddr) -> Arc<Backend> {
    let endpoints = backend.endpoints().unwrap_or_default().iter();
    let endpoints = endpoints.filter(|endpoint| endpoint.address == address).cloned().collect();
    Arc::new(Backend::new(Arc::clone(&backend.name), backend.balance, endpoints))
}

/// The way to a port that no route is for.
struct Straight {
    /// For requests, where there may be some.
    http: Option<Arc<Backend>>,
    /// For anything else, where there may be some.
    streams: Option<Arc<Backend>>,
}

impl Straight {
    fn addresses(&self) -> BTreeSet<SocketAddr> {
        let backends = self.http.iter().chain(&self.streams).filter_map(|backend| backend.endpoints());
        backends.flatten().map(|endpoint| endpoint.address).collect()
    }

    fn duty(&self, work: &Work<'_>, target: &Target<'_>, of: impl Fn(&Arc<Backend>) -> Arc<Backend>) -> Duty {
        let requests = self.http.iter().map(|backend| target.route(of(backend))).collect();
        let flows = self.streams.iter().map(|backend| target.flow(of(backend))).collect();
        target.duty(work, requests, flows, StreamTls::Opaque)
    }
}

/// A port of a Service that something is sent to.
struct Target<'a> {
    service: &'a ObjectName,
    port: &'a ServicePort,
}

impl<'a> Target<'a> {
    fn find(work: &Work<'a>, name: &ObjectName, port: u16) -> Result<Self, String> {
        let found = find_port(work.objects, name, port, Carries::Streams);
        let (service, port) = found.map_err(|refusal| refusal.message)?;
        Ok(Self { service: &service.name, port })
    }

    fn straight(&self, work: &mut Work<'_>) -> Result<Straight, String> {
        let mut backend = |carries| {
            let made = work.backends.service(self.service, self.port.port, carries, &mut work.problems);
            made.map_err(|refusal| refusal.message)
        };
        let (http, streams) = match application(self.port) {
            Application::Http => (Some(backend(Carries::Http)?), None),
            Application::Opaque => (None, Some(backend(Carries::Streams)?)),
            Application::Unknown => (Some(backend(Carries::Http)?), Some(backend(Carries::Streams)?)),
        };
        Ok(Straight { http, streams })
    }

    /// What carries these: requests, flows, or either.
    fn duty(&self, work: &Work<'_>, requests: Vec<Route>, flows: Vec<FlowRoute>, tls: StreamTls) -> Duty {
        let (port, name): (_, Arc<str>) =
            (self.port.port, format!("outbound:{}:{}", self.service, self.port.port).into());
        let listener = |routes| FlowListener { name: Arc::clone(&name), hostname: Hostname::Any, routes };
        let flows: Vec<_> = (!flows.is_empty()).then(|| listener(flows)).into_iter().collect();
        if requests.is_empty() {
            return Duty::Stream {
                tls,
                port,
                routes: flows,
                authorization: AuthorizationPolicies::default(),
            };
        }
        let table = routing::Listener { name, hostname: Hostname::Any, port, https: false, routes: requests };
        Duty::Outbound { port, routes: vec![table], normalization: work.mesh.normalization(), flows }
    }

    fn route(&self, backend: Arc<Backend>) -> Route {
        let name = self.service.to_string();
        let rule = Rule {
            name: RouteName::new(name.as_str(), "0"),
            matches: Vec::new(),
            filters: Filters::default(),
            backends: vec![WeightedBackend::new(backend, 1)],
            policies: Policies::default(),
        };
        Route { name: name.into(), created: i64::MAX, hostnames: Vec::new(), rules: vec![rule] }
    }

    fn flow(&self, backend: Arc<Backend>) -> FlowRoute {
        FlowRoute {
            name: RouteName::new(self.service.to_string(), "0"),
            created: i64::MAX,
            hostnames: Vec::new(),
            backends: vec![WeightedBackend::new(backend, 1)],
        }
    }

    /// The reference of a route by which it is for this port.
    fn reference<'r>(&self, own: &str, references: &'r [ParentRef]) -> Option<&'r ParentRef> {
        let section = self.port.name.as_deref();
        references.iter().find(|reference| {
            is_service(reference)
                && reference.namespace.as_deref().unwrap_or(own) == &*self.service.namespace
                && *reference.name.value == *self.service.name
                && reference.port.is_none_or(|wanted| wanted == self.port.port)
                && reference.section_name.as_deref().is_none_or(|wanted| Some(wanted) == section)
        })
    }

    /// Whose a route of this namespace is; `None` if it does not hold for this caller.
    fn side(&self, work: &Work<'_>, namespace: &Arc<str>) -> Option<Side> {
        let caller = work.options.workload.as_ref().map(|workload| &workload.namespace);
        if *namespace == self.service.namespace {
            Some(Side::Producer)
        } else {
            (caller == Some(namespace)).then_some(Side::Consumer)
        }
    }
}

/// Who made a route (GEP-1294).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Who has the Service.
    Producer,
    /// The caller, for itself.
    Consumer,
}

/// Routes of the two sides: those that the caller's namespace made for itself, else the Service's own.
struct Sides<T> {
    consumer: Vec<T>,
    producer: Vec<T>,
}

impl<T> Sides<T> {
    fn new() -> Self {
        Self { consumer: Vec::new(), producer: Vec::new() }
    }

    fn add(&mut self, side: Side, route: T) {
        match side {
            Side::Producer => self.producer.push(route),
            Side::Consumer => self.consumer.push(route),
        }
    }

    fn in_force(self) -> Vec<T> {
        if self.consumer.is_empty() { self.producer } else { self.consumer }
    }
}

fn request_routes(work: &mut Work<'_>, routes: &ServiceRoutes<'_>, target: &Target<'_>) -> Vec<Route> {
    let mut sides = Sides::new();
    for route in routes.http(target.service) {
        file(work, route, target, &mut sides);
    }
    for route in routes.grpc(target.service) {
        file(work, route, target, &mut sides);
    }
    sides.in_force()
}

/// Compiles a route if it is for this port of the Service, and files it by whose it is.
fn file<M: Match>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    target: &Target<'_>,
    sides: &mut Sides<Route>,
) {
    let Some(reference) = target.reference(&route.name.namespace, &route.spec.parent_refs) else { return };
    let Some(side) = target.side(work, &route.name.namespace) else { return };
    let compiled = compile_rules(work, route);
    let verdicts = (&Ok(()), &compiled.resolved);
    let parents =
        vec![parent(reference, &route.name.namespace, &work.controller(), verdicts, route.generation)];
    work.status.push(item(route, Body::Parents { parents }));
    sides.add(
        side,
        Route {
            name: route.name.to_string().into(),
            created: route.created,
            hostnames: Vec::new(),
            rules: compiled.rules.into_iter().map(|compiled| compiled.rule).collect(),
        },
    );
}

/// The routes of layer 4 for the port, and what is done about TLS for them.
fn flow_routes(
    work: &mut Work<'_>,
    routes: &ServiceRoutes<'_>,
    target: &Target<'_>,
) -> (Vec<FlowRoute>, StreamTls) {
    let mut sides = Sides::new();
    for route in routes.tls(target.service) {
        file_flow(work, route, target, &mut sides);
    }
    let by_name = sides.in_force();
    if !by_name.is_empty() {
        return (by_name, StreamTls::Passthrough);
    }
    let mut sides = Sides::new();
    for route in routes.tcp(target.service) {
        file_flow(work, route, target, &mut sides);
    }
    (sides.in_force(), StreamTls::Opaque)
}

/// The same as [`file`] for layer 4.
fn file_flow<S: FlowSpec>(
    work: &mut Work<'_>,
    route: &Stored<S>,
    target: &Target<'_>,
    sides: &mut Sides<FlowRoute>,
) {
    let Some(reference) = target.reference(&route.name.namespace, route.spec.parent_refs()) else { return };
    let Some(side) = target.side(work, &route.name.namespace) else { return };
    let (compiled, resolved) = flow::compile(work, route, Carries::Streams);
    let hostnames = route.spec.hostnames().iter().map(|hostname| hostname.value.0.clone()).collect();
    let verdicts = (&Ok(()), &resolved);
    let parents =
        vec![parent(reference, &route.name.namespace, &work.controller(), verdicts, route.generation)];
    work.status.push(item(route, Body::Parents { parents }));
    sides.add(side, FlowRoute { hostnames, ..compiled });
}

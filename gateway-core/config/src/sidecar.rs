//! The sidecar of a workload: what it takes in for its application, and what it sends out for it.

use std::sync::Arc;

use towpath_auth::AuthorizationPolicies;
use towpath_gateway_core::{Backend, Balance, Endpoint, Policies, Protocol, RouteName};
use towpath_mesh_mtls::MtlsMode;
use towpath_routing::{self as routing, Filters, Hostname, Route, Rule, WeightedBackend};

use crate::backend::Carries;
use crate::compile::Work;
use crate::endpoints::{Facts, application, protocol};
use crate::matches::Match;
use crate::objects::Stored;
use crate::parents::is_service;
use crate::resources::core::Service;
use crate::resources::gateway::has_all;
use crate::resources::leaf::PortRef;
use crate::resources::route::{ParentRef, RouteSpec};
use crate::rule::compile as compile_rules;
use crate::scope::Place;
use crate::status::{Body, item, parent};
use crate::unmet::{self, Offered};
use crate::{Application, Duty, InboundPort, Listener, ObjectName, Problem, StreamTls};

/// Compiles the listeners of a sidecar.
pub(crate) fn compile(work: &mut Work<'_>, inbound: &[InboundPort]) {
    match work.workload {
        Some(facts) => inbound.iter().for_each(|port| take_in(work, *port, facts)),
        None => unknown_workload(work, inbound),
    }
    let inbound: Vec<_> = work.listeners.clone();
    if let Some(address) = work.options.hbone.filter(|_| !inbound.is_empty()) {
        work.listeners.push(Listener { name: "hbone".into(), address, duty: Duty::Hbone { inbound } });
    }
    let mut entries: Vec<_> = work.options.port_map.iter().flat_map(crate::PortMap::iter).collect();
    entries.sort();
    for (name, port, address) in entries {
        if work.objects.gateways.contains_key(name) {
            continue;
        }
        match outbound(work, name, port) {
            Ok(duty) => {
                work.listeners.push(Listener {
                    name: format!("outbound:{name}:{port}").into(),
                    address,
                    duty,
                });
            }
            Err(message) => {
                work.problems.push(Problem::error(format!("the port map has {name}:{port}: {message}")));
            }
        }
    }
}

/// Policies select workloads by labels: without knowing them, nothing is let in.
fn unknown_workload(work: &mut Work<'_>, inbound: &[InboundPort]) {
    let problem = match &work.options.workload {
        Some(name) => {
            Problem::error(format!("there is no Pod and no WorkloadEntry {name}, whose sidecar this is"))
        }
        None => {
            Problem::error("it is not known whose sidecar this is").suggest("give --workload NAMESPACE/NAME")
        }
    };
    if !inbound.is_empty() {
        work.problems.push(problem);
    }
}

fn take_in(work: &mut Work<'_>, port: InboundPort, facts: &Facts) {
    let demand = work.peers.demand((&facts.namespace, &facts.labels), port.port);
    let wanted = demand.mode;
    let mode = match wanted {
        mode if work.options.has_identity => mode,
        // Plaintext alone is not what was asked for: nothing can be let in.
        MtlsMode::Strict => {
            let object = demand.object.unwrap_or_else(|| "the mesh's default".to_owned());
            let message = format!(
                "{object} asks for STRICT at port {}, and this process has no identity of the mesh: nothing is let in",
                port.port
            );
            work.problems.push(Problem::error(message).suggest("give --identity"));
            MtlsMode::Strict
        }
        MtlsMode::Permissive | MtlsMode::Disable => MtlsMode::Disable,
    };
    let name: Arc<str> = format!("inbound:{}", port.port).into();
    let (framing, application) = spoken(work, facts, port.port);
    let endpoint = Endpoint::plaintext(port.app).with_protocol(framing);
    let endpoint = work.backends.shared(endpoint);
    let app = Arc::new(Backend::new(Arc::clone(&name), Balance::default(), vec![endpoint]));
    let guard = work.guard(&[Place::Workload(facts.place())], work.mesh.normalization());
    // Without HTTP a rule about tokens is void or widened, and no token is looked for.
    let token = application == Application::Opaque || !guard.authentication.is_empty();
    unmet::report(work, &guard, Offered { identity: wanted != MtlsMode::Disable, token });
    let duty = Duty::Inbound { port: port.port, mode, guard, application, app };
    work.listeners.push(Listener { name, address: port.listen, duty });
}

/// How HTTP is framed towards the application, and what it speaks, by the Services that select it.
fn spoken(work: &Work<'_>, facts: &Facts, port: u16) -> (Protocol, Application) {
    let selects = |service: &&Arc<Stored<Service>>| {
        let selector = service.spec.spec.selector.as_ref().filter(|selector| !selector.is_empty());
        service.name.namespace == facts.namespace
            && selector.is_some_and(|selector| has_all(&facts.labels, selector))
    };
    let ports = work.objects.services.values().filter(selects).flat_map(|service| &service.spec.spec.ports);
    let here = ports.filter(|candidate| match &candidate.target_port {
        Some(PortRef::Number(target)) => *target == port,
        Some(PortRef::Name(_)) => false,
        None => candidate.port == port,
    });
    let here: Vec<_> = here.collect();
    let framing =
        here.iter().filter_map(|port| protocol(port).ok()).find(|framing| *framing == Protocol::Http2);
    let said = |wanted| here.iter().any(|port| application(port) == wanted).then_some(wanted);
    let application = said(Application::Http).or_else(|| said(Application::Opaque)).unwrap_or_default();
    (framing.unwrap_or_default(), application)
}

/// What an outbound listener carries to a port of a Service.
fn outbound(work: &mut Work<'_>, name: &ObjectName, port: u16) -> Result<Duty, String> {
    let found = crate::backend::find_port(work.objects, name, port, Carries::Streams);
    if !found.is_ok_and(|(_, port)| application(port) == Application::Opaque) {
        let routes = vec![service_routes(work, name, port)?];
        return Ok(Duty::Outbound { routes, normalization: work.mesh.normalization() });
    }
    let made = work.backends.service(name, port, Carries::Streams, &mut work.problems);
    let backend = made.map_err(|refusal| refusal.message)?;
    let route = routing::FlowRoute {
        name: RouteName::new(name.to_string(), "0"),
        created: i64::MAX,
        hostnames: Vec::new(),
        backends: vec![WeightedBackend::new(backend, 1)],
    };
    let routes = vec![routing::FlowListener {
        name: format!("outbound:{name}:{port}").into(),
        hostname: Hostname::Any,
        routes: vec![route],
    }];
    Ok(Duty::Stream { tls: StreamTls::Opaque, port, routes, authorization: AuthorizationPolicies::default() })
}

/// The routes to a port of a Service: those that the caller's namespace made for itself, else the Service's own, else
/// straight to it (GEP-1294).
fn service_routes(work: &mut Work<'_>, service: &ObjectName, port: u16) -> Result<routing::Listener, String> {
    let objects = work.objects;
    let (object, service_port) = crate::backend::find_port(objects, service, port, Carries::Http)
        .map_err(|refusal| refusal.message)?;
    let caller = work.options.workload.as_ref().map(|workload| Arc::clone(&workload.namespace));
    let section = service_port.name.as_deref();
    let (mut consumer, mut producer) = (Vec::new(), Vec::new());
    for route in objects.http_routes.values() {
        file(work, route, (&object.name, port, section), caller.as_ref(), (&mut consumer, &mut producer));
    }
    for route in objects.grpc_routes.values() {
        file(work, route, (&object.name, port, section), caller.as_ref(), (&mut consumer, &mut producer));
    }
    let mut routes = if consumer.is_empty() { producer } else { consumer };
    if routes.is_empty() {
        routes.push(straight(work, service, port)?);
    }
    Ok(routing::Listener {
        name: format!("outbound:{service}:{port}").into(),
        hostname: Hostname::Any,
        port,
        https: false,
        routes,
    })
}

/// Compiles a route if it is for this port of the Service, and files it by whose it is.
fn file<M: Match>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    (service, port, section): (&ObjectName, u16, Option<&str>),
    caller: Option<&Arc<str>>,
    (consumer, producer): (&mut Vec<Route>, &mut Vec<Route>),
) {
    let means = |reference: &&ParentRef| {
        is_service(reference)
            && reference.namespace.as_deref().unwrap_or(&route.name.namespace) == &*service.namespace
            && *reference.name.value == *service.name
            && reference.port.is_none_or(|wanted| wanted == port)
            && reference.section_name.as_deref().is_none_or(|wanted| Some(wanted) == section)
    };
    let Some(reference) = route.spec.parent_refs.iter().find(means) else { return };
    let own = route.name.namespace == service.namespace;
    if !own && caller != Some(&route.name.namespace) {
        return;
    }
    let compiled = compile_rules(work, route);
    let verdicts = (&Ok(()), &compiled.resolved);
    let parents =
        vec![parent(reference, &route.name.namespace, &work.controller(), verdicts, route.generation)];
    work.status.push(item(route, Body::Parents { parents }));
    let list = if own { producer } else { consumer };
    list.push(Route {
        name: route.name.to_string().into(),
        created: route.created,
        hostnames: Vec::new(),
        rules: compiled.rules.into_iter().map(|compiled| compiled.rule).collect(),
    });
}

fn straight(work: &mut Work<'_>, service: &ObjectName, port: u16) -> Result<Route, String> {
    let backend = work
        .backends
        .service(service, port, Carries::Http, &mut work.problems)
        .map_err(|refusal| refusal.message)?;
    let name = service.to_string();
    let backend = WeightedBackend::new(backend, 1);
    let rule = Rule {
        name: RouteName::new(name.as_str(), "0"),
        matches: Vec::new(),
        filters: Filters::default(),
        backends: vec![backend],
        policies: Policies::default(),
    };
    Ok(Route { name: name.into(), created: i64::MAX, hostnames: Vec::new(), rules: vec![rule] })
}

//! The sidecar of a workload: what it takes in for its application, and what it sends out for it.

use std::sync::Arc;

use towpath_gateway_core::{Backend, Balance, Endpoint, Protocol};
use towpath_mesh_mtls::MtlsMode;

use crate::compile::Work;
use crate::endpoints::{Facts, application, protocol};
use crate::scope::Place;
use crate::service_routes::ServiceRoutes;
use crate::unmet::{self, Offered};
use crate::{Application, Duty, InboundPort, Listener, Problem, capture, outbound};

/// Compiles the listeners of a sidecar.
pub(crate) fn compile(work: &mut Work<'_>, inbound: &[InboundPort]) {
    let capture = work.options.capture.as_ref();
    let mut taken = Vec::new();
    match work.workload {
        Some(facts) => {
            taken.extend(inbound.iter().map(|port| take_in(work, *port, facts)));
            work.listeners.extend_from_slice(&taken);
            if let Some(capture) = capture {
                let captured = capture::inbound(work, (capture, inbound), facts);
                // Given ports are among the captured ones.
                if !captured.is_empty() {
                    taken = captured;
                }
            }
        }
        None if inbound.is_empty() && capture.is_none_or(|capture| capture.inbound.is_empty()) => {}
        None => unknown_workload(work),
    }
    if let Some(address) = work.options.hbone.filter(|_| !taken.is_empty()) {
        work.listeners.push(Listener { name: "hbone".into(), address, duty: Duty::Hbone { inbound: taken } });
    }
    let routes = ServiceRoutes::of(work.objects);
    let mut entries: Vec<_> = work.options.port_map.iter().flat_map(crate::PortMap::iter).collect();
    entries.sort();
    for (name, port, address) in entries {
        if work.objects.gateways.contains_key(name) {
            continue;
        }
        match outbound::compile(work, &routes, name, port) {
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
    if let Some(capture) = capture {
        capture::outbound(work, &routes, capture);
    }
}

/// Policies select workloads by labels: without knowing them, nothing is let in.
fn unknown_workload(work: &mut Work<'_>) {
    let problem = match &work.options.workload {
        Some(name) => {
            Problem::error(format!("there is no Pod and no WorkloadEntry {name}, whose sidecar this is"))
        }
        None => {
            Problem::error("it is not known whose sidecar this is").suggest("give --workload NAMESPACE/NAME")
        }
    };
    work.problems.push(problem);
}

/// What is taken in at a port of the workload.
pub(crate) fn take_in(work: &mut Work<'_>, port: InboundPort, facts: &Facts) -> Listener {
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
    let peers = if wanted == MtlsMode::Disable { unmet::Peers::Unproven } else { unmet::Peers::Proven };
    unmet::report(work, &guard, Offered { peers, token });
    if application != Application::Http {
        unmet::report_unasked(work, &guard.authorization, port.port);
    }
    let duty = Duty::Inbound { port: port.port, mode, guard, application, app };
    Listener { name, address: port.listen, duty }
}

/// How HTTP is framed towards the application, and what it speaks, by the Services that select it.
fn spoken(work: &Work<'_>, facts: &Facts, port: u16) -> (Protocol, Application) {
    let services = facts.services(work.objects).flat_map(|service| &service.spec.spec.ports);
    let here: Vec<_> = services.filter(|candidate| facts.port(candidate) == Some(port)).collect();
    let framing =
        here.iter().filter_map(|port| protocol(port).ok()).find(|framing| *framing == Protocol::Http2);
    let said = |wanted| here.iter().any(|port| application(port) == wanted).then_some(wanted);
    let application = said(Application::Http).or_else(|| said(Application::Opaque)).unwrap_or_default();
    (framing.unwrap_or_default(), application)
}

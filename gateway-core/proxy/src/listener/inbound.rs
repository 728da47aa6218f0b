//! What a sidecar takes in for one port of its application.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use tower::{Layer, Service};
use towpath_auth::{AuthorizationPolicies, RecheckLayer};
use towpath_config::{Application, Duty, Guard, Listener};
use towpath_gateway_core::{Accepted, Changes, HttpService, Live, Policies, RouteName};
use towpath_mesh_mtls::MtlsMode;
use towpath_routing::{self as routing, FlowListener, FlowRoute, FlowRoutes, Routes};
use towpath_server::{ConnectionFuture, ConnectionService, Detect, Drain, Limits, Serve, UntilDrainedLayer};
use towpath_stacks::{AcceptStack, Entry, FlowEntry, layer4, sidecar_inbound};

use super::modes::Modes;
use super::{Shared, entry, store_guard};
use crate::worker::WorkerParts;

/// What configuration swaps for such a port.
#[derive(Debug, Clone)]
pub(crate) struct Inbound {
    modes: Modes,
    entry: Entry,
    application: Application,
    // To the application, for what is not HTTP.
    flows: Live<FlowRoutes>,
    // Of the policies, for connections that live longer.
    changes: Changes,
}

impl Inbound {
    /// The data of a new listener, which is for this port of the application.
    pub(super) fn new(
        listener: &Listener,
        (port, application): (u16, Application),
        (mode, guard): (MtlsMode, &Guard),
        patience: Duration,
    ) -> Self {
        Self {
            modes: Modes::new(mode, patience),
            entry: entry(inbound_routes(listener), guard, port),
            application,
            flows: Live::new(inbound_flows(listener)),
            changes: Changes::new(),
        }
    }

    pub(super) fn fits(&self, new: &Duty) -> bool {
        matches!(new, Duty::Inbound { port, application, .. }
            if self.entry.port == *port && self.application == *application)
    }

    pub(super) fn store(&self, listener: &Listener, mode: MtlsMode, guard: &Guard) {
        store_guard(&self.entry, guard);
        self.changes.tell();
        self.flows.store(inbound_flows(listener));
        self.entry.routes.store(inbound_routes(listener));
        self.modes.change(mode);
    }

    /// Lets plaintext connections end.
    pub(super) fn drain(&self) {
        self.modes.plaintext.load().signal();
    }

    pub(super) fn port(&self) -> u16 {
        self.entry.port
    }

    pub(super) fn mode(&self) -> Live<MtlsMode> {
        self.modes.current.clone()
    }

    pub(super) fn policies(&self) -> Live<AuthorizationPolicies> {
        self.entry.authorization.clone()
    }

    /// Whether requests may come on a connection.
    pub(super) fn may_be_http(&self) -> bool {
        self.application != Application::Opaque
    }

    /// What one worker does with a connection, once it is known who is at its other end.
    pub(super) fn behind(
        &self,
        shared: &Shared,
        parts: &WorkerParts,
        place: (usize, &Arc<str>),
    ) -> impl AcceptStack + use<> {
        let Self { modes, entry, application, flows, changes } = self.clone();
        let flow_entry =
            FlowEntry { routes: flows, authorization: entry.authorization.clone(), port: entry.port };
        let opaque = layer4(parts.flows_of(place), flow_entry);
        let rechecks = [RecheckLayer::http, RecheckLayer::tcp].map(|layer| {
            let layer = layer(entry.authorization.clone(), changes.clone()).port(entry.port);
            layer.on_end(|connection, verdict| {
                let policy = verdict.policy.as_deref().unwrap_or_default();
                tracing::info!(peer = %connection.peer, policy, "connection ended: {}", verdict.ground.as_str());
            })
        });
        let stack = HttpService::new(sidecar_inbound(parts.of(place), entry));
        let carrier = Carrier { stack, opaque, application, limits: shared.limits, rechecks };
        ByTransport {
            plaintext: carrier.serve(modes.plaintext.clone()),
            mtls: carrier.serve(shared.drain.clone()),
            passed: ConnectionService::new(carrier.opaque(&modes.plaintext)),
        }
    }
}

/// What serves connections to the application, once it is known who is at their other end.
struct Carrier<O> {
    stack: HttpService,
    opaque: O,
    application: Application,
    limits: Limits,
    /// For requests, and for what is not HTTP.
    rechecks: [RecheckLayer; 2],
}

impl<O: AcceptStack> Carrier<O> {
    /// Under this drain.
    fn serve(&self, drain: impl Into<Live<Drain>>) -> ConnectionService {
        let drain = drain.into();
        let [recheck, _] = &self.rechecks;
        let http = || recheck.layer(Serve::new(self.stack.clone(), self.limits, drain.clone()));
        match self.application {
            Application::Http => ConnectionService::new(http()),
            Application::Opaque => ConnectionService::new(self.opaque(&drain)),
            Application::Unknown => ConnectionService::new(Detect::new(http(), self.opaque(&drain))),
        }
    }

    fn opaque(&self, drain: &Live<Drain>) -> impl AcceptStack + use<O> {
        let [_, recheck] = &self.rechecks;
        recheck.layer(UntilDrainedLayer::new(drain.clone()).layer(self.opaque.clone()))
    }
}

/// Serves plaintext connections, and TLS that ends at the application, under a drain of their own.
#[derive(Clone)]
struct ByTransport {
    plaintext: ConnectionService,
    mtls: ConnectionService,
    passed: ConnectionService,
}

impl Service<Accepted> for ByTransport {
    type Response = ();
    type Error = Infallible;
    type Future = ConnectionFuture;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        for service in [&mut self.plaintext, &mut self.mtls, &mut self.passed] {
            ready!(service.poll_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> ConnectionFuture {
        if accepted.connection.passed_through {
            self.passed.call(accepted)
        } else if accepted.connection.tls.is_some() {
            self.mtls.call(accepted)
        } else {
            self.plaintext.call(accepted)
        }
    }
}

/// The one route of an inbound listener: everything goes to the application.
pub(crate) fn inbound_routes(listener: &Listener) -> Routes {
    let Duty::Inbound { port, app, .. } = &listener.duty else { return Routes::default() };
    let name: Arc<str> = format!("inbound/{port}").into();
    let rule = routing::Rule {
        name: RouteName::new(Arc::clone(&name), "app"),
        matches: Vec::new(),
        filters: routing::Filters::default(),
        backends: vec![routing::WeightedBackend::new(Arc::clone(app), 1)],
        policies: Policies::builder().with(no_deadline()).build(),
    };
    let route = routing::Route { name, created: 0, hostnames: Vec::new(), rules: vec![rule] };
    Routes::new(vec![routing::Listener {
        name: Arc::clone(&listener.name),
        hostname: routing::Hostname::Any,
        port: *port,
        https: false,
        routes: vec![route],
    }])
}

/// The same for what is not HTTP.
fn inbound_flows(listener: &Listener) -> FlowRoutes {
    let Duty::Inbound { port, app, .. } = &listener.duty else { return FlowRoutes::default() };
    let route = FlowRoute {
        name: RouteName::new(format!("inbound/{port}"), "app"),
        created: 0,
        hostnames: Vec::new(),
        backends: vec![routing::WeightedBackend::new(Arc::clone(app), 1)],
    };
    FlowRoutes::new(vec![FlowListener {
        name: Arc::clone(&listener.name),
        hostname: routing::Hostname::Any,
        routes: vec![route],
    }])
}

/// Time limits are the caller's: its route says how long it waits, and it hangs up when that has passed.
fn no_deadline() -> towpath_upstream::Timeouts {
    towpath_upstream::Timeouts { request: None, backend_request: None }
}

//! In front of an ingress: requests that arrive at one listener and are served there as if at another.
//!
//! The ingress sees one plaintext port and cannot tell at which listener of the gateway a request arrived. A route
//! whose keys or limits the gateway checks at one listener could be reached through another that forwards for the same
//! host: the policy would be passed by.

use std::sync::Arc;

use towpath_auth::ApiKeys;
use towpath_rate_limit::RateLimit;
use towpath_routing::{Hostname, Route, Rule};

use crate::compile::Work;
use crate::gateway::GatewayState;
use crate::listener::ListenerState;
use crate::{ObjectName, Problem};

/// Reports every route of a Gateway whose policies can be passed by.
pub(crate) fn report(work: &mut Work<'_>, gateway: &GatewayState<'_>) {
    for listener in &gateway.listeners {
        for (kind, route) in gateway.listeners.iter().flat_map(|other| &other.routes) {
            let attached = || listener.routes.iter().any(|(k, there)| k == kind && there.name == route.name);
            if passes_by(listener, route) && !attached() {
                let problem = problem(work, gateway, listener, kind, route);
                work.problems.push(problem);
            }
        }
    }
}

/// Names of the policies that guard a rule.
fn guards(rule: &Rule) -> [Option<&Arc<str>>; 2] {
    [
        rule.policies.get::<ApiKeys>().map(|keys| &keys.name),
        rule.policies.get::<RateLimit>().map(|limit| &limit.name),
    ]
}

/// Whether a listener sends on requests for one of the route's hosts without a policy that guards the route.
fn passes_by(listener: &ListenerState<'_>, route: &Route) -> bool {
    let mut wanted =
        route.rules.iter().map(guards).filter(|guards| guards.iter().any(Option::is_some)).peekable();
    if wanted.peek().is_none() {
        return false;
    }
    let routes = listener.routes.iter().filter(|(_, other)| meet(&other.hostnames, &route.hostnames));
    let forwarding =
        routes.flat_map(|(_, other)| &other.rules).filter(|rule| rule.filters.redirect.is_none());
    let given: Vec<_> = forwarding.map(guards).collect();
    wanted.any(|wanted| {
        let lacks =
            |given: &[Option<&Arc<str>>; 2]| wanted.iter().zip(given).any(|(w, g)| w.is_some() && w != g);
        given.iter().any(lacks)
    })
}

fn meet(a: &[Hostname], b: &[Hostname]) -> bool {
    let any = |name: &Hostname| b.iter().any(|other| name.intersection(other).is_some());
    a.is_empty() || b.is_empty() || a.iter().any(any)
}

fn problem(
    work: &Work<'_>,
    gateway: &GatewayState<'_>,
    listener: &ListenerState<'_>,
    kind: &str,
    route: &Route,
) -> Problem {
    let message = format!(
        "listener `{}` of Gateway {} forwards for the same host, and the ingress serves this route to its requests \
         without the keys and limits that the gateway checks at other listeners",
        listener.spec.name.value, gateway.object.name
    );
    let name: Option<ObjectName> = route.name.parse().ok();
    let place = |name: &ObjectName| match kind {
        "HTTPRoute" => work.objects.http_routes.get(name).map(|object| object.error(None, message.clone())),
        _ => work.objects.grpc_routes.get(name).map(|object| object.error(None, message.clone())),
    };
    let found = name.as_ref().and_then(place).unwrap_or_else(|| Problem::error(message.clone()));
    found.suggest("attach the route to that listener too, or let the listener only redirect")
}

//! What is wrong with an object whatever other objects there are. Such an object is refused whole, and its last good
//! version stays.

use std::time::Duration;

use towpath_gateway_core::TrustDomain;

use crate::document::Defect;
use crate::matches::Match;
use crate::resources::gateway::{GatewaySpec, ListenerSetSpec, ListenerSpec};
use crate::resources::istio::WorkloadEntrySpec;
use crate::resources::route::{BackendRef, FlowSpec, GrpcRouteSpec, HttpRouteSpec, RouteSpec, RuleSpec};
use crate::resources::towpath::{ConsumerSpec, MeshSpec, RateLimitPolicySpec};
use crate::{client_validation, filter, provider, session};

/// Largest weight of a backend (Gateway API, `BackendRef.weight`).
const MAX_WEIGHT: u32 = 1_000_000;

pub(crate) fn gateway(spec: &GatewaySpec, found: &mut Vec<Defect>) {
    listeners(&spec.listeners, found);
    if let Some(frontend) = spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) {
        client_validation::check(frontend, found);
    }
}

pub(crate) fn listener_set(spec: &ListenerSetSpec, found: &mut Vec<Defect>) {
    listeners(&spec.listeners, found);
}

fn listeners(listeners: &[ListenerSpec], found: &mut Vec<Defect>) {
    let mut names: Vec<&str> = Vec::new();
    for listener in listeners {
        let name = listener.name.value.as_str();
        if names.contains(&name) {
            found.push(Defect::new(listener.name.referenced, format!("listener `{name}` is there twice")));
        }
        names.push(name);
        if listener.port.value == 0 {
            found.push(Defect::new(listener.port.referenced, "port 0 cannot be listened on"));
        }
    }
}

pub(crate) fn http_route(spec: &HttpRouteSpec, found: &mut Vec<Defect>) {
    route(spec, found);
}

pub(crate) fn grpc_route(spec: &GrpcRouteSpec, found: &mut Vec<Defect>) {
    route(spec, found);
}

fn route<M: Match>(spec: &RouteSpec<M>, found: &mut Vec<Defect>) {
    lengths(spec, found);
    for rule in spec.rules.iter().flatten() {
        for request in &rule.matches {
            request.compile(found);
        }
        self::rule(rule, found);
    }
}

/// The lengths that the definition of the resource allows (Gateway API, `HTTPRouteSpec`, `HTTPRouteRule`).
fn lengths<M>(spec: &RouteSpec<M>, found: &mut Vec<Defect>) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    let longest = |length: fn(&RuleSpec<M>) -> usize| rules.iter().map(length).max().unwrap_or_default();
    let matches = rules.iter().map(|rule| rule.matches.len()).sum();
    for (what, length, limit) in [
        ("parentRefs", spec.parent_refs.len(), 32),
        ("hostnames", spec.hostnames.len(), 16),
        ("rules", rules.len(), 16),
        ("matches in one rule", longest(|rule| rule.matches.len()), 64),
        ("matches in all rules", matches, 128),
        ("filters in one rule", longest(|rule| rule.filters.len()), 16),
        ("backendRefs in one rule", longest(|rule| rule.backend_refs.len()), 16),
    ] {
        if length > limit {
            let message = format!("there are {length} {what}, and {limit} are allowed");
            let suggestion = Some("split the route into several".into());
            found.push(Defect { location: None, message, suggestion });
        }
    }
}

pub(crate) fn flow_route(spec: &impl FlowSpec, found: &mut Vec<Defect>) {
    for backend in spec.rules().iter().flat_map(|rule| &rule.backend_refs) {
        weight(backend, found);
        if !backend.filters.is_empty() {
            let message = "a route of layer 4 has no filters: nothing of HTTP is read";
            found.push(Defect::new(backend.name.referenced, message));
        }
    }
}

fn weight(backend: &BackendRef, found: &mut Vec<Defect>) {
    if backend.weight.is_some_and(|weight| weight > MAX_WEIGHT) {
        found.push(Defect::new(backend.name.referenced, format!("a weight is at most {MAX_WEIGHT}")));
    }
}

fn rule<M: Match>(rule: &RuleSpec<M>, found: &mut Vec<Defect>) {
    let prefixed = rule.matches.iter().all(Match::is_prefix);
    let compiled = filter::compile(&rule.filters, prefixed, found);
    if let (Some(_), Some(backend)) = (compiled.filters.redirect, rule.backend_refs.first()) {
        let message = "RequestRedirect answers by itself: a rule with it has no backendRefs";
        found.push(Defect::new(backend.name.referenced, message));
    }
    for backend in &rule.backend_refs {
        filter::compile(&backend.filters, prefixed, found);
        weight(backend, found);
    }
    if let Some(session) = &rule.session_persistence {
        session::check(session, found);
    }
    if let Some(timeouts) = &rule.timeouts
        && let (Some(request), Some(backend)) = (&timeouts.request, &timeouts.backend_request)
        && request.0 > Duration::ZERO
        && backend.value.0 > request.0
    {
        let message = "backendRequest is longer than request, which covers all tries";
        found.push(Defect::new(backend.referenced, message));
    }
}

pub(crate) fn workload_entry(spec: &WorkloadEntrySpec, found: &mut Vec<Defect>) {
    if spec.address.value.parse::<std::net::IpAddr>().is_err() {
        let message = format!("`{}` is not an IP address", spec.address.value);
        found.push(
            Defect::new(spec.address.referenced, message)
                .suggest("names are not resolved: write the address"),
        );
    }
}

pub(crate) fn mesh(spec: &MeshSpec, found: &mut Vec<Defect>) {
    let federated = spec.federation.iter().map(|foreign| &foreign.trust_domain);
    for domain in spec.trust_domain.iter().chain(&spec.trust_domain_aliases).chain(federated) {
        if let Err(error) = domain.value.parse::<TrustDomain>() {
            found.push(Defect::new(domain.referenced, error.to_string()));
        }
    }
    provider::check(&spec.extension_providers, found);
}

pub(crate) fn consumer(spec: &ConsumerSpec, found: &mut Vec<Defect>) {
    const ADVICE: &str = "store its digest only, as `sha256`: printf %s KEY | sha256sum";
    for key in &spec.api_keys {
        match (&key.sha256, &key.key) {
            (_, Some(plain)) => {
                found.push(
                    Defect::new(plain.referenced, "a plain key does not belong in a resource")
                        .suggest(ADVICE),
                );
            }
            (Some(digest), None) if digest.value.digest().is_none() => {
                let message = "`sha256` is not 64 hexadecimal digits: is this the key itself?";
                found.push(Defect::new(digest.referenced, message).suggest(ADVICE));
            }
            (Some(_), None) => {}
            (None, None) => {
                found.push(Defect {
                    location: None,
                    message: "an API key has no `sha256`".into(),
                    suggestion: None,
                });
            }
        }
    }
}

pub(crate) fn rate_limit_policy(spec: &RateLimitPolicySpec, found: &mut Vec<Defect>) {
    if spec.period.value.0 == Duration::ZERO {
        found.push(Defect::new(spec.period.referenced, "a period is longer than 0s"));
    }
}

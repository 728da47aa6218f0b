//! A snapshot as people and tools look at it. Nothing secret: no key, no digest of one, no certificate.

use serde_json::{Value, json};
use towpath_auth::{ApiKeys, ExternalAuth, ExternalAuthProtocol};
use towpath_gateway_core::{Backend, Endpoint, Policies, Protocol, RetryBudget, RouteName, Transport};
use towpath_rate_limit::RateLimit;
use towpath_routing::{self as routing, Filters, PathMatch, RequestMatch, Rule};
use towpath_upstream::{Retry, Timeouts};

use crate::{Application, Duty, EdgeTls, Guard, Listener, Snapshot, StreamTls};

pub(crate) fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "scenario": snapshot.scenario.as_str(),
        "trustDomain": snapshot.mesh.trust_domain.as_str(),
        "rootNamespace": &*snapshot.mesh.root_namespace,
        "identity": snapshot.identity.as_ref().map(ToString::to_string),
        "problems": snapshot.problems,
        "listeners": snapshot.listeners.iter().map(listener).collect::<Vec<_>>(),
        "items": snapshot.status,
        "plaintextHops": snapshot.plaintext_hops,
    })
}

/// Sets a field of an object.
pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

const EITHER: &str = "HTTP or TCP, by the first bytes";

fn listener(listener: &Listener) -> Value {
    let mut value = json!({"name": &*listener.name, "address": listener.address.to_string()});
    match &listener.duty {
        Duty::Edge { tls, routes, guard } => {
            set(&mut value, "duty", "edge".into());
            edge_tls(&mut value, tls.as_ref());
            self::guard(&mut value, guard);
            set(&mut value, "routes", routes.iter().map(table).collect());
        }
        Duty::Stream { tls, port, routes, authorization } => {
            let (word, ends) = match tls {
                StreamTls::Opaque => ("none", None),
                StreamTls::Passthrough => ("passthrough", None),
                StreamTls::Terminate(tls) => ("terminate", Some(tls)),
            };
            set(&mut value, "duty", "stream".into());
            set(&mut value, "tls", word.into());
            edge_tls(&mut value, ends);
            flows(&mut value, *port, routes, authorization);
        }
        Duty::Datagram { port, routes, authorization } => {
            set(&mut value, "duty", "datagram".into());
            flows(&mut value, *port, routes, authorization);
        }
        Duty::Inbound { port, mode, guard, application, app } => {
            set(&mut value, "duty", "inbound".into());
            set(&mut value, "port", (*port).into());
            set(&mut value, "mode", mode.as_str().into());
            let carries = match application {
                Application::Http => "HTTP",
                Application::Opaque => "TCP",
                Application::Unknown => EITHER,
            };
            set(&mut value, "carries", carries.into());
            self::guard(&mut value, guard);
            set(&mut value, "app", backend(app));
        }
        Duty::CapturedInbound { listeners } => {
            set(&mut value, "duty", "captured inbound".into());
            set(&mut value, "listeners", listeners.iter().map(self::listener).collect());
        }
        Duty::CapturedOutbound { listeners, rest } => {
            set(&mut value, "duty", "captured outbound".into());
            set(&mut value, "outboundTrafficPolicy", json!(rest));
            set(&mut value, "listeners", listeners.iter().map(self::listener).collect());
        }
        Duty::Hbone { inbound } => {
            set(&mut value, "duty", "hbone".into());
            set(&mut value, "inbound", inbound.iter().map(|inbound| &*inbound.name).collect());
        }
        Duty::Outbound { port, routes, normalization, flows } => {
            set(&mut value, "pathNormalization", paths(*normalization));
            set(&mut value, "duty", "outbound".into());
            set(&mut value, "port", (*port).into());
            set(&mut value, "carries", if flows.is_empty() { "HTTP" } else { EITHER }.into());
            set(&mut value, "routes", routes.iter().map(table).collect());
        }
    }
    value
}

/// What holds before a request goes on.
fn guard(value: &mut Value, guard: &Guard) {
    let rules = guard.authentication.rules().iter();
    set(value, "pathNormalization", paths(guard.normalization));
    set(value, "issuers", rules.map(|rule| &*rule.issuer).collect());
    set(value, "authorization", (!guard.authorization.is_empty()).into());
}

fn paths(normalization: routing::Normalization) -> Value {
    let name = match normalization.paths {
        routing::PathNormalization::None => "NONE",
        routing::PathNormalization::Base => "BASE",
        routing::PathNormalization::MergeSlashes => "MERGE_SLASHES",
        routing::PathNormalization::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        routing::PathNormalization::Edge => "EDGE",
    };
    name.into()
}

/// Names of certificates, and what is asked of clients.
fn edge_tls(value: &mut Value, tls: Option<&EdgeTls>) {
    let certificates = tls.map(|tls| tls.certificates.as_slice()).unwrap_or_default();
    let names: Vec<_> = certificates.iter().map(|certificate| certificate.hostname.to_string()).collect();
    set(value, "certificates", names.into());
    if let Some(clients) = tls.and_then(|tls| tls.clients.as_ref()) {
        let validation = json!({"mode": clients.mode, "authorities": clients.roots.len()});
        set(value, "clientValidation", validation);
    }
}

fn flows(
    value: &mut Value,
    port: u16,
    routes: &[routing::FlowListener],
    authorization: &towpath_auth::AuthorizationPolicies,
) {
    set(value, "port", port.into());
    set(value, "authorization", (!authorization.is_empty()).into());
    set(value, "routes", routes.iter().map(flow_table).collect());
}

fn flow_table(listener: &routing::FlowListener) -> Value {
    let routes = listener.routes.iter().map(|route| {
        let backends = route.backends.iter().map(|weighted| {
            let mut value = backend(&weighted.backend);
            set(&mut value, "weight", weighted.weight.into());
            value
        });
        json!({
            "name": route.name.to_string(),
            "hostnames": route.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "backends": backends.collect::<Vec<_>>(),
        })
    });
    json!({
        "listener": &*listener.name,
        "hostname": listener.hostname.to_string(),
        "routes": routes.collect::<Vec<_>>(),
    })
}

fn table(listener: &routing::Listener) -> Value {
    let routes: Vec<_> = listener
        .routes
        .iter()
        .map(|route| {
            json!({
                "name": &*route.name,
                "hostnames": route.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "rules": route.rules.iter().map(rule).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"listener": &*listener.name, "hostname": listener.hostname.to_string(), "routes": routes})
}

fn rule(rule: &Rule) -> Value {
    let mut value = settings(&rule.name, &rule.filters, &rule.backends, &rule.policies);
    set(&mut value, "matches", rule.matches.iter().map(request).collect());
    value
}

/// What the rule that took a request does, in the form of [`Snapshot::to_json`]. It is told from what requests carry.
pub fn rule_settings(matched: &routing::Matched) -> Value {
    let action = matched.policies.get::<routing::RuleAction>();
    let none = Filters::default();
    let filters = action.map_or(&none, |action| action.filters());
    settings(&matched.name, filters, action.map_or(&[], |action| action.backends()), &matched.policies)
}

fn settings(
    name: &RouteName,
    filters: &Filters,
    backends: &[routing::WeightedBackend],
    policies: &Policies,
) -> Value {
    let backends: Vec<_> = backends
        .iter()
        .map(|weighted| {
            let mut value = backend(&weighted.backend);
            set(&mut value, "weight", weighted.weight.into());
            let own = [("rewrite", weighted.rewrite.is_some()), ("redirect", weighted.redirect.is_some())];
            for (name, _) in own.into_iter().filter(|(_, given)| *given) {
                set(&mut value, name, true.into());
            }
            value
        })
        .collect();
    json!({
        "name": name.to_string(),
        "filters": self::filters(filters),
        "backends": backends,
        "policies": self::policies(policies),
    })
}

fn request(request: &RequestMatch) -> Value {
    let path = match &request.path {
        PathMatch::Exact(path) => format!("= {path}"),
        PathMatch::Prefix(path) => format!("^ {path}"),
        PathMatch::Regex(regex) => format!("~ {}", regex.as_str()),
    };
    json!({
        "path": path,
        "method": request.method.as_ref().map(ToString::to_string),
        "headers": request.headers.iter().map(|header| header.name.as_str()).collect::<Vec<_>>(),
        "query": request.query.iter().map(|query| &*query.name).collect::<Vec<_>>(),
    })
}

fn filters(filters: &Filters) -> Value {
    let changes =
        |modifier: &routing::HeaderModifier| modifier.set.len() + modifier.add.len() + modifier.remove.len();
    let given = [
        ("requestHeaders", changes(&filters.request_headers) > 0),
        ("responseHeaders", changes(&filters.response_headers) > 0),
        ("rewrite", filters.rewrite.is_some()),
        ("redirect", filters.redirect.is_some()),
        ("mirror", !filters.mirrors.is_empty()),
        ("unresolved", filters.unresolved),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

fn policies(policies: &Policies) -> Value {
    let mut value = json!({});
    if let Some(keys) = policies.get::<ApiKeys>() {
        set(&mut value, "apiKeys", json!({"policy": &*keys.name, "keys": keys.keys.len()}));
    }
    if let Some(limit) = policies.get::<RateLimit>() {
        let period = format!("{:?}", limit.period);
        set(
            &mut value,
            "rateLimit",
            json!({"policy": &*limit.name, "requests": limit.requests, "period": period}),
        );
    }
    if let Some(timeouts) = policies.get::<Timeouts>() {
        let text = |limit: Option<std::time::Duration>| limit.map(|limit| format!("{limit:?}"));
        set(
            &mut value,
            "timeouts",
            json!({"request": text(timeouts.request), "backendRequest": text(timeouts.backend_request)}),
        );
    }
    if let Some(cors) = policies.get::<routing::Cors>() {
        set(&mut value, "cors", json!({"origins": cors.origins.len(), "credentials": cors.credentials}));
    }
    if let Some(auth) = policies.get::<ExternalAuth>() {
        let protocol = match auth.protocol {
            ExternalAuthProtocol::Http { .. } => "HTTP",
            ExternalAuthProtocol::Grpc { .. } => "GRPC",
        };
        let asked = json!({"backend": &*auth.backend.name, "protocol": protocol, "maxBody": auth.max_body});
        set(&mut value, "externalAuth", asked);
    }
    if let Some(session) = policies.get::<routing::SessionPersistence>() {
        let carrier = match &session.carrier {
            routing::SessionCarrier::Cookie(name) => json!({"cookie": &**name}),
            routing::SessionCarrier::Header(name) => json!({"header": name.as_str()}),
        };
        let text = |limit: Option<std::time::Duration>| limit.map(|limit| format!("{limit:?}"));
        let limits = (text(session.absolute_timeout), text(session.idle_timeout));
        let session = json!({
            "in": carrier,
            "absoluteTimeout": limits.0,
            "idleTimeout": limits.1,
            "permanent": session.permanent,
        });
        set(&mut value, "session", session);
    }
    if let Some(fault) = policies.get::<routing::FaultInjection>() {
        let delay = fault.delay.map(|delay| {
            json!({"fixedDelay": format!("{:?}", delay.fixed), "perMillion": delay.share.per_million()})
        });
        let abort = fault.abort.map(|abort| {
            let status = match abort.status {
                routing::AbortStatus::Http(status) => json!({"httpStatus": status.as_u16()}),
                routing::AbortStatus::Grpc(status) => json!({"grpcStatus": status.code()}),
            };
            json!({"status": status, "perMillion": abort.share.per_million()})
        });
        set(&mut value, "fault", json!({"delay": delay, "abort": abort}));
    }
    if let Some(direct) = policies.get::<routing::DirectResponse>() {
        let answer = json!({"status": direct.status.as_u16(), "bodyBytes": direct.body.len()});
        set(&mut value, "directResponse", answer);
    }
    if let Some(retry) = policies.get::<Retry>() {
        set(&mut value, "retry", json!({"attempts": retry.attempts}));
    }
    value
}

fn backend(backend: &Backend) -> Value {
    let endpoints =
        backend.endpoints().map(|endpoints| endpoints.iter().map(|e| endpoint(e)).collect::<Vec<_>>());
    let mut value = json!({
        "name": &*backend.name,
        "resolved": endpoints.is_some(),
        "endpoints": endpoints.unwrap_or_default(),
    });
    if let Some(budget) = backend.retry_budget().map(RetryBudget::constraint) {
        let budget = json!({
            "percent": budget.percent,
            "interval": format!("{:?}", budget.interval),
            "minRetries": budget.min_retries,
            "minInterval": format!("{:?}", budget.min_interval),
        });
        set(&mut value, "retryBudget", budget);
    }
    value
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let identities = match &endpoint.transport {
        Transport::Plaintext | Transport::Tls { .. } => Vec::new(),
        Transport::Mtls { identities } | Transport::Hbone { identities, .. } => {
            identities.iter().map(ToString::to_string).collect()
        }
    };
    json!({
        "address": endpoint.address.to_string(),
        "transport": match endpoint.transport {
            Transport::Plaintext => "plaintext",
            Transport::Mtls { .. } => "mtls",
            Transport::Hbone { .. } => "hbone",
            Transport::Tls { .. } => "tls",
        },
        "identities": identities,
        "protocol": match endpoint.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Opaque => "opaque",
        },
        "workload": &*endpoint.workload.name,
        "cluster": &*endpoint.workload.cluster,
        "weight": endpoint.weight,
    })
}

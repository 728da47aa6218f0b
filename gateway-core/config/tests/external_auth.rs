//! `externalAuth` filters: what they compile to, and what becomes of rules whose service leads nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, condition, gateway, in_scenario, problems, route, rule, status};
use serde_json::json;
use towpath_auth::{ExternalAuth, ExternalAuthProtocol, HeaderNames, Pattern};
use towpath_config::{Duty, Options, Role, Scenario, Snapshot};

const PAGES: &str = "{name: pages, port: 9080}";

fn with(auth: &str) -> String {
    let filter = format!("{{type: ExternalAuth, externalAuth: {auth}}}");
    route("web", &format!("[{{filters: [{filter}], backendRefs: [{PAGES}]}}]"))
}

fn resolved(snapshot: &Snapshot) -> String {
    condition(&status(snapshot, "HTTPRoute", "web")["parents"][0]["conditions"], "ResolvedRefs")
}

fn policy(snapshot: &Snapshot) -> ExternalAuth {
    let edges = snapshot.listeners.iter().filter_map(|listener| match &listener.duty {
        Duty::Edge { routes, .. } => Some(routes),
        _ => None,
    });
    let mut rules = edges.flatten().flat_map(|table| &table.routes).flat_map(|route| &route.rules);
    rules.find_map(|rule| rule.policies.get::<ExternalAuth>()).unwrap().clone()
}

#[test]
fn both_protocols_are_settings_of_the_rule() {
    let text = with(
        "{protocol: HTTP, backendRef: {name: plain, port: 80}, forwardBody: {maxSize: 1024}, \
         http: {path: /check, allowedHeaders: [X-Tenant], allowedResponseHeaders: [X-User, X-Role]}}",
    );
    let snapshot = compiled(&[WORLD, &text], &gateway());
    assert_eq!((problems(&snapshot), resolved(&snapshot).as_str()), (Vec::new(), "True/ResolvedRefs"));
    let auth = policy(&snapshot);
    assert_eq!((&*auth.name, &*auth.backend.name, auth.max_body), ("shop/web", "shop/plain:80", 1024));
    assert_eq!((auth.status_on_error.as_u16(), auth.timeout), (403, ExternalAuth::TIMEOUT));
    let ExternalAuthProtocol::Http(http) = auth.protocol else { panic!("the protocol is HTTP") };
    assert_eq!((&*http.path_prefix, http.allowed_headers), ("/check", vec![Pattern::new("x-tenant")]));
    assert_eq!(http.to_backend, HeaderNames::Listed(vec![Pattern::new("x-user"), Pattern::new("x-role")]));
    assert_eq!((http.to_client, http.of_refusal), (HeaderNames::NONE, HeaderNames::All));

    let text = with("{protocol: HTTP, backendRef: {name: plain, port: 80}, http: {}}");
    let auth = policy(&compiled(&[WORLD, &text], &gateway()));
    assert!(matches!(auth.protocol, ExternalAuthProtocol::Http(http) if http.to_backend == HeaderNames::All));

    let text = with("{protocol: GRPC, backendRef: {name: plain, port: 80}, grpc: {}}");
    let auth = policy(&compiled(&[WORLD, &text], &gateway()));
    assert_eq!(auth.max_body, 0);
    assert!(
        matches!(auth.protocol, ExternalAuthProtocol::Grpc { allowed_headers } if allowed_headers.is_empty())
    );
}

#[test]
fn a_service_that_leads_nowhere_shuts_the_rule() {
    let backend = |reference: &str| with(&format!("{{protocol: GRPC, backendRef: {reference}, grpc: {{}}}}"));
    for (reference, reason) in [
        ("{name: none, port: 80}", "BackendNotFound"),
        ("{name: plain, port: 81}", "BackendNotFound"),
        ("{name: plain, port: 80, kind: Pod}", "InvalidKind"),
        ("{name: ingress, namespace: istio-system, port: 80}", "RefNotPermitted"),
    ] {
        let snapshot = compiled(&[WORLD, &backend(reference)], &gateway());
        assert_eq!(resolved(&snapshot), format!("False/{reason}"), "{reference}");
        assert_eq!(rule(&snapshot, "shop/web#0")["filters"], json!(["unresolved"]), "{reference}");
        assert!(problems(&snapshot)[0].contains("requests that this rule takes end as 500"), "{reference}");
    }
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: istio-system}\n\
                 spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}\n";
    let text = backend("{name: ingress, namespace: istio-system, port: 80}");
    let snapshot = compiled(&[WORLD, &text, grant], &gateway());
    assert_eq!(resolved(&snapshot), "True/ResolvedRefs");
    assert_eq!(&*policy(&snapshot).backend.name, "istio-system/ingress:80");
}

#[test]
fn what_is_wrong_with_a_filter_refuses_the_route() {
    for (auth, message) in [
        ("{protocol: HTTP, backendRef: {name: plain, port: 80}}", "this protocol needs `http`"),
        ("{protocol: GRPC, backendRef: {name: plain, port: 80}}", "this protocol needs `grpc`"),
        (
            "{protocol: HTTP, backendRef: {name: plain, port: 80}, http: {}, grpc: {}}",
            "no settings of the other",
        ),
        (
            "{protocol: HTTP, backendRef: {name: plain, port: 80}, http: {path: check}}",
            "`check` is not a path",
        ),
        (
            "{protocol: HTTP, backendRef: {name: plain, port: 80}, http: {path: '/a?b'}}",
            "`/a?b` is not a path",
        ),
        (
            "{protocol: HTTP, backendRef: {name: plain, port: 80, weight: 2}, http: {}}",
            "neither filters nor a weight",
        ),
        ("{protocol: TCP, backendRef: {name: plain, port: 80}}", "unknown value `TCP`"),
        (
            "{protocol: HTTP, backendRef: {name: plain, port: 80}, http: {}, forwardBody: {maxSize: 70000}}",
            "invalid",
        ),
    ] {
        let snapshot = compiled(&[WORLD, &with(auth)], &gateway());
        let problems = problems(&snapshot);
        assert!(problems.iter().any(|problem| problem.contains(message)), "{auth}: {problems:?}");
        assert_eq!(rule(&snapshot, "shop/web#0"), json!(null), "{auth}");
    }
    let missing = route("web", &format!("[{{filters: [{{type: ExternalAuth}}], backendRefs: [{PAGES}]}}]"));
    assert!(problems(&compiled(&[WORLD, &missing], &gateway()))[0].contains("has no `externalAuth`"));
    let auth =
        "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: plain, port: 80}, grpc: {}}}";
    let of_backend =
        route("web", &format!("[{{backendRefs: [{{name: pages, port: 9080, filters: [{auth}]}}]}}]"));
    let snapshot = compiled(&[WORLD, &of_backend], &gateway());
    assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false, "never served without it");
}

#[test]
fn the_hop_to_the_service_is_told_if_nothing_protects_it() {
    let text = with("{protocol: GRPC, backendRef: {name: plain, port: 80}, grpc: {}}");
    let snapshot = compiled(&[WORLD, &text], &gateway());
    assert!(snapshot.plaintext_hops.iter().any(|hop| &*hop.to == "shop/plain:80"));
}

#[test]
fn in_front_of_an_ingress_the_ingress_asks() {
    let text = with("{protocol: GRPC, backendRef: {name: plain, port: 80}, grpc: {}}");
    let asks = |options: Options| {
        let snapshot = compiled(&[WORLD, &text], &in_scenario(Scenario::Ingress, options));
        rule(&snapshot, "shop/web#0")["policies"]["externalAuth"]["backend"].clone()
    };
    assert_eq!(asks(gateway()), json!(null));
    assert_eq!(asks(Options { has_identity: true, ..Options::new(Role::Ingress) }), "shop/plain:80");
}

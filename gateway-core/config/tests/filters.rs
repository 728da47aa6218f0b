//! Filters of rules and of backends: what they compile to, and what of them is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, condition, gateway, problems, route, rule, status};
use towpath_config::{Duty, Scenario, Snapshot};
use towpath_routing::{Cors, Names, OriginPattern, PathRewrite, Rule};

fn rules(snapshot: &Snapshot) -> Vec<Rule> {
    let tables = snapshot.listeners.iter().flat_map(|listener| match &listener.duty {
        Duty::Edge { routes, .. } | Duty::Outbound { routes, .. } => routes.clone(),
        _ => Vec::new(),
    });
    tables.flat_map(|table| table.routes).flat_map(|route| route.rules).collect()
}

fn one(filters: &str, backend: &str) -> (Rule, Vec<String>, String) {
    let text = route("web", &format!("[{{filters: {filters}, backendRefs: [{backend}]}}]"));
    let snapshot = compiled(&[WORLD, &text], &gateway());
    let resolved =
        condition(&status(&snapshot, "HTTPRoute", "web")["parents"][0]["conditions"], "ResolvedRefs");
    (rules(&snapshot).remove(0), problems(&snapshot), resolved)
}

const PAGES: &str = "{name: pages, port: 9080}";

#[test]
fn cors_is_a_setting_of_the_rule() {
    let text = "[{type: CORS, cors: {allowOrigins: ['https://*.a.example', 'https://b.example'], allowMethods: [GET, PUT], \
                allowHeaders: ['*'], allowCredentials: true}}]";
    let (rule, problems, resolved) = one(text, PAGES);
    assert_eq!((problems, resolved.as_str()), (Vec::new(), "True/ResolvedRefs"));
    let cors = rule.policies.get::<Cors>().unwrap();
    assert_eq!(
        cors.origins,
        ["https://*.a.example", "https://b.example"].map(|o| OriginPattern::new(o).unwrap())
    );
    assert!(
        matches!(&cors.methods, Names::Listed(list) if list == "GET, PUT")
            && matches!(cors.headers, Names::Any)
    );
    assert!(cors.credentials && matches!(cors.expose, Names::None));
    assert_eq!(cors.max_age.as_secs(), 5, "the default");
}

#[test]
fn an_origin_that_is_none_is_named_and_the_route_refused() {
    let text = route(
        "web",
        &format!(
            "[{{filters: [{{type: CORS, cors: {{allowOrigins: ['a.example']}}}}], backendRefs: [{PAGES}]}}]"
        ),
    );
    let snapshot = compiled(&[WORLD, &text], &gateway());
    let problems = problems(&snapshot);
    assert!(problems[0].contains("`a.example` is not an origin (write `scheme://host"), "{problems:?}");
    assert!(rules(&snapshot).is_empty());
}

#[test]
fn mirrors_have_a_backend_and_a_share_each() {
    let text = "[{type: RequestMirror, requestMirror: {backendRef: {name: plain, port: 80}}}, \
                {type: RequestMirror, requestMirror: {backendRef: {name: ratings, port: 9080}, percent: 20}}, \
                {type: RequestMirror, requestMirror: {backendRef: {name: plain, port: 80}, fraction: {numerator: 5, denominator: 1000}}}]";
    let (rule, problems, _) = one(text, PAGES);
    assert_eq!(problems, Vec::<String>::new());
    let shares: Vec<_> =
        rule.filters.mirrors.iter().map(|m| (&*m.backend.name, m.numerator, m.denominator)).collect();
    assert_eq!(shares, [("shop/plain:80", 1, 1), ("shop/ratings:9080", 20, 100), ("shop/plain:80", 5, 1000)]);
}

#[test]
fn a_mirror_that_leads_nowhere_is_left_out_and_said_to_be() {
    let (rule, problems, resolved) =
        one("[{type: RequestMirror, requestMirror: {backendRef: {name: none, port: 80}}}]", PAGES);
    assert_eq!((rule.filters.mirrors.len(), resolved.as_str()), (0, "False/BackendNotFound"));
    assert!(
        !rule.filters.unresolved && problems[0].contains("there is no Service shop/none"),
        "{problems:?}"
    );
    for (share, message) in [
        ("percent: 101", "101 of 100"),
        ("fraction: {numerator: 1, denominator: 0}", "1 of 0"),
        ("percent: 1, fraction: {numerator: 1}", "not both"),
    ] {
        let text = route(
            "web",
            &format!(
                "[{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {PAGES}, {share}}}}}]}}]"
            ),
        );
        let problems = common::problems(&compiled(&[WORLD, &text], &gateway()));
        assert!(problems.iter().any(|problem| problem.contains(message)), "{share}: {problems:?}");
    }
}

#[test]
fn a_plaintext_hop_to_a_mirror_is_reported() {
    let text = route(
        "web",
        &format!(
            "[{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: plain, port: 80}}}}}}], backendRefs: [{PAGES}]}}]"
        ),
    );
    let snapshot = compiled(&[WORLD, &text], &common::in_scenario(Scenario::GatewayApi, gateway()));
    assert!(
        snapshot.plaintext_hops.iter().any(|hop| &*hop.to == "shop/plain:80"),
        "{:?}",
        snapshot.plaintext_hops
    );
}

#[test]
fn backends_rewrite_and_redirect_for_themselves() {
    let own = "{name: pages, port: 9080, filters: [{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}";
    let (rule, problems, resolved) = one("[]", own);
    assert_eq!((problems, resolved.as_str()), (Vec::new(), "True/ResolvedRefs"));
    let rewrite = rule.backends[0].rewrite.as_ref().unwrap();
    assert_eq!(rewrite.host.as_deref(), Some("b.example"));
    assert!(matches!(&rewrite.path, Some(PathRewrite::Prefix(path)) if &**path == "/b"));
    let own =
        "{name: pages, port: 9080, filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]}";
    assert_eq!(one("[]", own).0.backends[0].redirect.as_ref().unwrap().status, 301);
}

#[test]
fn filters_of_rules_alone_are_refused_for_backends() {
    for filter in [
        "{type: CORS, cors: {}}",
        "{type: RequestMirror, requestMirror: {backendRef: {name: plain, port: 80}}}",
    ] {
        let text =
            route("web", &format!("[{{backendRefs: [{{name: pages, port: 9080, filters: [{filter}]}}]}}]"));
        let snapshot = compiled(&[WORLD, &text], &gateway());
        assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false, "{filter}");
        assert!(snapshot.has_errors());
    }
}

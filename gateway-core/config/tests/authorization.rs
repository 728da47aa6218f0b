//! `AuthorizationPolicy`: where it holds, and what becomes of what is not understood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;

use common::{WORLD, compiled, gateway, problems, sidecar};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use towpath_auth::{
    AuthorizationPolicies, ExternalAuth, ExternalAuthProtocol, Facts, HeaderNames, Http, HttpFacts, Pattern,
    Verdict,
};
use towpath_config::{Duty, GivenWorkload, Options, Snapshot};

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// The policies of the first listener that has some.
fn authorization(snapshot: &Snapshot) -> AuthorizationPolicies {
    let policies = snapshot.listeners.iter().find_map(|listener| match &listener.duty {
        Duty::Inbound { guard, .. } | Duty::Edge { guard, .. } => Some(guard.authorization.clone()),
        _ => None,
    });
    policies.unwrap()
}

/// The policies in force at the pod, as they are compiled.
fn in_force(policies: &str) -> (String, Vec<String>) {
    let snapshot = compiled(&[WORLD, policies], &sidecar("shop/pages-0", ""));
    (format!("{:?}", authorization(&snapshot).iter().collect::<Vec<_>>()), problems(&snapshot))
}

#[test]
fn policies_select_by_namespace_and_labels() {
    for (namespace, selector, selected) in [
        ("shop", "", true),
        ("shop", "selector: {matchLabels: {app: pages}}", true),
        ("shop", "selector: {matchLabels: {app: other}}", false),
        ("istio-system", "", true),
        ("istio-system", "selector: {matchLabels: {app: pages}}", true),
        ("other", "", false),
        ("shop", "targetRefs: [{kind: Service, name: pages}]", true),
        ("shop", "targetRef: {group: core, kind: Service, name: pages}", true),
        ("shop", "targetRefs: [{kind: Service, name: ratings}, {kind: Service, name: pages}]", true),
        ("shop", "targetRefs: [{kind: Service, name: ratings}]", false),
        ("shop", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]", false),
    ] {
        let (compiled, problems) = in_force(&policy("p", namespace, &format!("{{{selector}}}")));
        assert_eq!(
            compiled.contains(&format!("{namespace}/p")),
            selected,
            "{namespace} {selector}: {compiled} {problems:?}"
        );
    }
}

#[test]
fn policies_select_gateways() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: gw-0, namespace: edge, labels: {app: gw}}\n---\n";
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: towpath}\nspec: {controllerName: a}\n---\n";
    let target = |kind: &str, name: &str| {
        format!("targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}}}]")
    };
    let known = Some("edge/gw-0".parse().unwrap());
    for (workload, namespace, spec, selected) in [
        (None, "edge", String::new(), false),
        (None, "istio-system", String::new(), true),
        (None, "istio-system", "selector: {matchLabels: {app: gw}}".into(), false),
        (known.clone(), "edge", String::new(), true),
        (known.clone(), "edge", "selector: {matchLabels: {app: gw}}".into(), true),
        (known.clone(), "edge", "selector: {matchLabels: {app: other}}".into(), false),
        (None, "edge", target("Gateway", "gw"), true),
        (None, "shop", target("Gateway", "gw"), false),
        (known, "edge", target("Gateway", "other"), false),
        (None, "istio-system", target("GatewayClass", "towpath"), true),
        (None, "edge", target("GatewayClass", "towpath"), false),
    ] {
        let options = Options { workload, ..gateway() };
        let snapshot =
            compiled(&[WORLD, pod, class, &policy("p", namespace, &format!("{{{spec}}}"))], &options);
        let found = authorization(&snapshot).iter().count() == 1;
        assert_eq!(found, selected, "{:?} {namespace} {spec}: {:?}", options.workload, problems(&snapshot));
    }
}

#[test]
fn what_is_not_understood_fails_closed() {
    let all = "rules: [AuthorizationRule { from: [], to: [], when: [] }]";
    let (deny_all, custom_all) = (format!("action: Deny, {all}"), format!("action: Custom, {all}"));
    let nothing = "action: Allow, rules: []";
    for (spec, expected, message) in [
        ("{rules: [{when: [{key: a, values: [b]}]}]}", nothing, "`a` is not an attribute"),
        ("{action: DENY, rules: [{when: [{key: a, values: [b]}]}]}", &*deny_all, "taken without it"),
        ("{rules: [{when: [{key: source.ip}]}]}", nothing, "has no values"),
        ("{rules: [{when: [{key: 'request.headers[]', values: [b]}]}]}", nothing, "request.headers[NAME]"),
        ("{rules: [{when: [{key: 'request.auth.claims', values: [b]}]}]}", nothing, "claims[NAME]"),
        ("{rules: [{from: [{source: {ipBlocks: [1.2.3]}}]}]}", nothing, "`1.2.3` is neither"),
        (
            "{rules: [{from: [{source: {principals: [a], serviceAccounts: [b]}}]}]}",
            nothing,
            "do not go together",
        ),
        ("{rules: [{from: [{source: {serviceAccounts: ['b*']}}]}]}", nothing, "is not a service account"),
        ("{rules: [{from: [{source: {}}]}]}", nothing, "`source` without a value"),
        ("{rules: [{from: []}]}", nothing, "empty `from`, `to` or `when`"),
        ("{rules: [{to: [{operation: {ports: [x]}}]}]}", nothing, "`x` is not a port"),
        ("{rules: [{to: [{operation: {hosts: ['']}}]}]}", nothing, "`hosts` has an empty value"),
        ("{rules: [{to: [{operation: {paths: ['/a/{*}/{x}']}}]}]}", nothing, "`{` stands for itself nowhere"),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", &*custom_all, "no extension provider `x`"),
        ("{action: CUSTOM, rules: [{}]}", &*custom_all, "CUSTOM needs a `provider`"),
        ("{provider: {name: x}}", nothing, "goes with action CUSTOM alone"),
        ("{targetRefs: [{kind: Pod, name: x}]}", &*deny_all, "is no target"),
        ("{targetRefs: [{kind: Service, name: x, namespace: y}]}", &*deny_all, "in its own namespace"),
        ("{selector: {}, targetRefs: [{kind: Service, name: x}]}", &*deny_all, "not both"),
    ] {
        let (compiled, problems) = in_force(&policy("p", "shop", spec));
        assert!(compiled.contains(expected), "{spec}: {compiled}");
        assert!(
            problems.iter().any(|problem| problem.starts_with("error: ") && problem.contains(message)),
            "{spec}: {problems:?}"
        );
    }
    let (compiled, _) = in_force(&policy(
        "p",
        "shop",
        "{action: DENY, rules: [{to: [{operation: {paths: [/x, '/{*}{*}']}}]}]}",
    ));
    assert!(
        compiled.contains("paths: Values { is: [], not: [] }"),
        "a DENY that is not understood is widened: {compiled}"
    );
    let (compiled, problems) = in_force(&policy("p", "shop", "{actoin: DENY}"));
    assert!(compiled.contains(&deny_all) && problems.len() == 1, "{compiled} {problems:?}");
}

#[test]
fn a_target_that_is_not_there_is_told_of() {
    let (compiled, problems) = in_force(&policy("p", "shop", "{targetRefs: [{kind: Service, name: none}]}"));
    assert!(compiled == "[]" && problems.len() == 1, "{compiled} {problems:?}");
    assert!(problems[0].contains("there is no Service shop/none"), "{problems:?}");
}

#[test]
fn a_policy_without_action_or_rules_allows_nothing() {
    let (compiled, problems) = in_force(&policy("p", "shop", "{}"));
    assert!(compiled.contains("action: Allow, rules: []") && problems.is_empty(), "{compiled} {problems:?}");
    let (audit, problems) = in_force(&policy("p", "shop", "{action: AUDIT, rules: [{}]}"));
    assert!(audit.contains("action: Audit") && problems.is_empty(), "{audit} {problems:?}");
}

#[test]
fn a_policy_that_is_tried_out_is_told_of_and_not_in_force() {
    for (action, tried) in [("DENY", true), ("ALLOW", true), ("AUDIT", false), ("CUSTOM", false)] {
        let dry = policy("p", "shop", &format!("{{action: {action}, rules: [{{}}]}}"))
            .replace("namespace: shop}", "namespace: shop, annotations: {istio.io/dry-run: 'true', x: y}}");
        let snapshot = compiled(&[WORLD, &dry], &sidecar("shop/pages-0", ""));
        let policies = authorization(&snapshot);
        assert!(policies.iter().next().is_none() && policies.is_empty() != tried, "{action}: {policies:?}");
        assert_eq!(problems(&snapshot).len(), 1, "{:?}", problems(&snapshot));
    }
}

#[test]
fn cluster_local_stands_for_the_domains_of_the_mesh() {
    let mesh = "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {trustDomain: td.example, trustDomainAliases: [old]}\n---\n";
    let rule =
        "{rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b, other.example/ns/a/sa/b]}}]}]}";
    let (compiled, _) = in_force(&format!("{mesh}{}", policy("p", "shop", rule)));
    for principal in ["td.example/ns/a/sa/b", "old/ns/a/sa/b", "other.example/ns/a/sa/b"] {
        assert!(compiled.contains(&format!("Exact(\"{principal}\")")), "{compiled}");
    }
}

#[test]
fn service_accounts_are_of_the_policys_namespace_or_of_their_own() {
    let (compiled, problems) =
        in_force(&policy("p", "shop", "{rules: [{from: [{source: {serviceAccounts: [web, other/job]}}]}]}"));
    assert!(problems.is_empty(), "{problems:?}");
    for (namespace, name) in [("shop", "web"), ("other", "job")] {
        let account = format!("ServiceAccount {{ namespace: \"{namespace}\", name: \"{name}\" }}");
        assert!(compiled.contains(&account), "{compiled}");
    }
}

const PROVIDERS: &str = "
apiVersion: towpath.dev/v1alpha1
kind: Mesh
metadata: {name: m}
spec:
  extensionProviders:
    - name: http
      envoyExtAuthzHttp: {service: ratings.shop.svc.cluster.local, port: 9080, pathPrefix: /check, timeout: 1s, failOpen: true, statusOnError: '503', headersToUpstreamOnAllow: [x-user]}
    - name: grpc
      envoyExtAuthzGrpc: {service: shop/plain.shop.svc.cluster.local, port: 80, includeRequestBodyInCheck: {maxRequestBytes: 100}}
    - name: gone
      envoyExtAuthzGrpc: {service: gone.shop, port: 80}
---
";

#[test]
fn custom_policies_ask_the_providers_of_the_mesh() {
    let custom = |provider: &str| {
        policy("p", "shop", &format!("{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}"))
    };
    let asked = |provider: &str| {
        let snapshot = compiled(&[WORLD, PROVIDERS, &custom(provider)], &sidecar("shop/pages-0", ""));
        let auth = authorization(&snapshot).iter().find_map(|policy| policy.provider.clone()).unwrap();
        (auth, problems(&snapshot))
    };
    let (http, found) = asked("http");
    assert!(found.is_empty(), "{found:?}");
    assert_eq!((&*http.name, &*http.backend.name), ("shop/p", "shop/ratings:9080"));
    assert_eq!((http.fail_open, http.status_on_error.as_u16(), http.timeout.as_secs()), (true, 503, 1));
    assert!(matches!(&http.protocol, ExternalAuthProtocol::Http(http) if &*http.path_prefix == "/check"));
    let (grpc, found) = asked("grpc");
    assert!(found.is_empty(), "{found:?}");
    assert_eq!((&*grpc.backend.name, grpc.max_body, grpc.fail_open), ("shop/plain:80", 100, false));
    assert!(matches!(grpc.protocol, ExternalAuthProtocol::Grpc { .. }));
    let (gone, found) = asked("gone");
    assert!(
        gone.backend.endpoints().is_none() && found[0].contains("there is no Service shop/gone"),
        "{found:?}"
    );
    let options = Options { assume_providers: true, ..sidecar("shop/pages-0", "") };
    let assumed = compiled(&[WORLD, &custom("any")], &options);
    assert!(problems(&assumed).is_empty());
    let auth: Arc<_> = authorization(&assumed).iter().find_map(|policy| policy.provider.clone()).unwrap();
    assert_eq!(&*auth.backend.name, "any");
}

fn mesh_with(kind: &str, settings: &str) -> String {
    format!(
        "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: m}}\n\
         spec: {{extensionProviders: [{{name: p, {kind}: {{service: plain.shop, port: 80, {settings}}}}}]}}\n---\n"
    )
}

/// The provider that a CUSTOM policy asks of this kind and with these settings, and what is told.
fn provider(kind: &str, settings: &str) -> (Option<Arc<ExternalAuth>>, Vec<String>) {
    let custom = policy("p", "shop", "{action: CUSTOM, provider: {name: p}, rules: [{}]}");
    let snapshot = compiled(&[WORLD, &mesh_with(kind, settings), &custom], &sidecar("shop/pages-0", ""));
    let asked = authorization(&snapshot).iter().find_map(|policy| policy.provider.clone());
    (asked, problems(&snapshot))
}

#[test]
fn providers_have_istios_fields() {
    let http = |settings: &str| {
        let (auth, found) = provider("envoyExtAuthzHttp", settings);
        assert!(found.is_empty(), "{settings}: {found:?}");
        let auth = auth.unwrap();
        let ExternalAuthProtocol::Http(http) = auth.protocol.clone() else { panic!("the protocol is HTTP") };
        (auth, http)
    };
    let listed = |names: &[&str]| HeaderNames::Listed(names.iter().map(|name| Pattern::new(name)).collect());
    let (auth, unset) = http("pathPrefix: ''");
    assert_eq!((auth.max_body, auth.partial_body, auth.raw_body), (0, false, false));
    assert_eq!((unset.to_backend, unset.to_client), (HeaderNames::NONE, HeaderNames::NONE));
    assert_eq!((unset.of_refusal, unset.allowed_headers), (HeaderNames::All, Vec::new()));
    let (auth, set) = http(
        "pathPrefix: /check, includeRequestHeadersInCheck: [X-*, '*-id'], includeAdditionalHeadersInCheck: {X-Key: 100%%}, \
         headersToUpstreamOnAllow: ['x-auth-*', x-user], headersToDownstreamOnAllow: [set-cookie], \
         headersToDownstreamOnDeny: ['*'], includeRequestBodyInCheck: {maxRequestBytes: 9, allowPartialMessage: true}",
    );
    assert_eq!(set.allowed_headers, ["X-*", "*-id"].map(Pattern::new));
    assert_eq!(set.added_headers["x-key"], "100%");
    assert_eq!(set.to_backend, listed(&["x-auth-*", "x-user"]));
    assert_eq!((set.to_client, set.of_refusal), (listed(&["set-cookie"]), listed(&["*"])));
    assert_eq!((auth.max_body, auth.partial_body, auth.raw_body), (9, true, false));
    assert_eq!(http("includeHeadersInCheck: [x-a]").1.allowed_headers, ["x-a"].map(Pattern::new));
    let both = "includeHeadersInCheck: [x-a], includeRequestHeadersInCheck: [x-b]";
    assert_eq!(http(both).1.allowed_headers, ["x-b"].map(Pattern::new));
    let body = "includeRequestBodyInCheck: {maxRequestBytes: 9, packAsBytes: true}";
    let (auth, found) = provider("envoyExtAuthzGrpc", body);
    assert!(found.is_empty() && auth.unwrap().raw_body, "{found:?}");
    for kind in ["envoyExtAuthzHttp", "envoyExtAuthzGrpc"] {
        let (auth, found) = provider(kind, "clearRouteCache: true");
        assert!(auth.is_some() && found[0].contains("`clearRouteCache` changes nothing"), "{found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_provider_of_http_is_told_with_its_place() {
    for (settings, message) in [
        ("pathPrefix: nope", "`nope` is not a path that begins with `/`"),
        ("pathPrefix: /a b", "`/a b` is not a path"),
        ("pathPrefix: '/p?x='", "`/p?x=` is not a path"),
        ("pathPrefix: '/p#x'", "`/p#x` is not a path"),
        ("headersToUpstreamOnAllow: ['x-*-user']", "`x-*-user` is not a header name, perhaps with a `*`"),
        ("headersToDownstreamOnDeny: ['**']", "`**` is not a header name"),
        ("includeRequestHeadersInCheck: ['a b*']", "`a b*` is not a header name"),
        ("includeRequestHeadersInCheck: [':path']", "`:path` is not a header name"),
        (
            "includeAdditionalHeadersInCheck: {host: a}",
            "`host` is not the name of a header that can be added",
        ),
        ("includeAdditionalHeadersInCheck: {a b: c}", "`a b` is not the name of a header"),
        ("includeAdditionalHeadersInCheck: {x-a: '%REQ(x)%'}", "`%%` stands for a `%`"),
    ] {
        let found = problems(&compiled(&[&mesh_with("envoyExtAuthzHttp", settings)], &gateway()));
        assert!(found[0].contains(":4:") && found[0].contains(message), "{settings}: {found:?}");
    }
}

#[test]
fn what_passes_an_authorizer_of_http_by_is_told() {
    let custom = |provider: &str| {
        policy("p", "shop", &format!("{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}"))
    };
    for (port, provider, told) in [("tcp", "http", true), ("tcp", "grpc", false), ("http", "http", false)] {
        let world = WORLD.replace(
            "{name: http, port: 9080, targetPort: 9080}",
            &format!("{{name: {port}, port: 9080, targetPort: 9080}}"),
        );
        let snapshot = compiled(&[&world, PROVIDERS, &custom(provider)], &sidecar("shop/pages-0", ""));
        let found = problems(&snapshot);
        assert_eq!(
            found.iter().any(|problem| problem.contains("what is not HTTP passes the policy by")),
            told,
            "{found:?}"
        );
    }
}

#[test]
fn headers_in_which_tokens_are_looked_for_go_past_authorizers() {
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\nspec: {jwtRules: [{issuer: a, jwks: '{\"keys\": []}', fromHeaders: [{name: x-token}]}]}\n---\n";
    let custom = policy("p", "shop", "{action: CUSTOM, provider: {name: http}, rules: [{}]}");
    let snapshot = compiled(&[WORLD, PROVIDERS, tokens, &custom], &sidecar("shop/pages-0", ""));
    let provider = authorization(&snapshot).iter().find_map(|policy| policy.provider.clone()).unwrap();
    let ExternalAuthProtocol::Http(http) = &provider.protocol else { panic!("{provider:?}") };
    assert_eq!(http.checked_later, ["x-token"]);
}

#[test]
fn a_custom_rule_that_asks_for_a_token_is_told_of() {
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\nspec: {jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]}\n---\n";
    for (field, told) in [("requestPrincipals", true), ("notRequestPrincipals", false)] {
        let rule = format!("{{from: [{{source: {{{field}: ['*']}}}}]}}");
        let custom =
            policy("p", "shop", &format!("{{action: CUSTOM, provider: {{name: http}}, rules: [{rule}]}}"));
        let snapshot = compiled(&[WORLD, PROVIDERS, tokens, &custom], &sidecar("shop/pages-0", ""));
        let found = problems(&snapshot);
        let why = "a rule holds for no request: it asks for a token, and CUSTOM policies are asked before";
        assert_eq!(found.iter().any(|problem| problem.contains(why)), told, "{field}: {found:?}");
    }
}

#[test]
fn providers_that_make_no_sense_are_refused_with_their_place() {
    for (spec, message) in [
        ("{name: a}", "is `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`"),
        ("{name: a, envoyExtAuthzGrpc: {service: a, port: 1}}", "`a` names no Service"),
        (
            "{name: a, envoyExtAuthzGrpc: {service: a.b, port: 1, statusOnError: '200'}}",
            "`200` is not the status of a refusal",
        ),
        (
            "{name: a, envoyExtAuthzGrpc: {service: a.b, port: 1}}, {name: a, envoyExtAuthzGrpc: {service: a.b, port: 1}}",
            "two providers `a`",
        ),
    ] {
        let mesh = format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: m}}\nspec: {{extensionProviders: [{spec}]}}\n"
        );
        let found = problems(&compiled(&[&mesh], &gateway()));
        assert!(found.iter().any(|problem| problem.contains(message)), "{spec}: {found:?}");
    }
}

/// Policies of which some are scoped to what is not `shop` with `app: b`: another namespace, or other labels.
fn scoped() -> impl Strategy<Value = (bool, String)> {
    let scope = select(vec![
        (true, "shop", ""),
        (true, "shop", "selector: {matchLabels: {app: b}}, "),
        (true, "istio-system", ""),
        (true, "istio-system", "selector: {matchLabels: {app: b}}, "),
        (false, "shop", "selector: {matchLabels: {app: a}}, "),
        (false, "shop", "selector: {matchLabels: {app: b, version: v2}}, "),
        (false, "istio-system", "selector: {matchLabels: {app: a}}, "),
        (false, "other", ""),
        (false, "other", "selector: {matchLabels: {app: b}}, "),
        (false, "shop", "targetRefs: [{kind: Service, name: pages}], "),
    ]);
    let action = select(vec!["ALLOW", "DENY", "AUDIT", "CUSTOM, provider: {name: x}"]);
    let rule = select(vec![
        "",
        "{}",
        "{to: [{operation: {methods: [GET]}}]}",
        "{to: [{operation: {notPaths: ['/a/{**}']}}]}",
        "{from: [{source: {notPrincipals: ['*']}}]}",
        "{when: [{key: 'request.headers[x]', values: ['1']}]}",
        "{when: [{key: nonsense, values: ['1']}]}",
    ]);
    (scope, action, rule).prop_map(|((holds, namespace, selector), action, rule)| {
        (holds, format!("{namespace}|{selector}action: {action}, rules: [{rule}]"))
    })
}

fn decided(policies: &[(bool, String)], method: &str, path: &str, header: bool) -> Verdict {
    let texts = policies.iter().enumerate().map(|(number, (_, text))| {
        let (namespace, spec) = text.split_once('|').unwrap();
        policy(&format!("p{number}"), namespace, &format!("{{{spec}}}"))
    });
    let text: String = texts.collect();
    let options = Options {
        given: Some(GivenWorkload { namespace: "shop".into(), labels: [("app".into(), "b".into())].into() }),
        ..sidecar("shop/pages-0", "")
    };
    let snapshot = compiled(&[WORLD, &text], &options);
    let mut headers = http::HeaderMap::new();
    if header {
        headers.insert("x", http::HeaderValue::from_static("1"));
    }
    let http = HttpFacts { method, host: None, path, query: None, headers: &headers, token: None };
    let facts = Facts { http: Http::Request(http), ..Facts::default() };
    let policies = authorization(&snapshot);
    let asked: Vec<_> = policies.custom(&facts).map(|policy| policy.name.clone()).collect();
    Verdict { policy: None, rule: None, audit: asked.into_iter().next(), ..policies.evaluate(&facts) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_policy_for_one_workload_never_changes_a_decision_at_another(
        policies in vec(scoped(), 0..8), method in select(vec!["GET", "PUT"]), path in select(vec!["/", "/a/b"]), header: bool,
    ) {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            policies.iter().cloned().partition(|(holds, _)| *holds);
        let alone = decided(&here, method, path, header);
        // The same numbers for the same policies: those from elsewhere come behind.
        let all = [here, elsewhere].concat();
        prop_assert_eq!(decided(&all, method, path, header), alone, "{:?}", all);
    }
}

#[test]
fn by_default_deny_nobody_passes_without_identity_and_policy() {
    let mesh = |word: &str| {
        format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: m}}\nspec: {{{word}: true}}\n---\n"
        )
    };
    let allow = policy("p", "shop", "{rules: [{to: [{operation: {methods: [GET]}}]}]}");
    let id = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let headers = http::HeaderMap::new();
    for (texts, identity, method, passes) in [
        (mesh("strict"), true, "GET", true),
        (mesh("defaultDeny"), true, "GET", false),
        (mesh("defaultDeny") + &allow, true, "GET", true),
        (mesh("defaultDeny") + &allow, true, "PUT", false),
        (mesh("defaultDeny") + &allow, false, "GET", false),
    ] {
        let snapshot = compiled(&[WORLD, &texts], &sidecar("shop/pages-0", ""));
        let http = Http::Request(HttpFacts {
            method,
            host: None,
            path: "/",
            query: None,
            headers: &headers,
            token: None,
        });
        let facts = Facts { principal: identity.then_some(&id), http, ..Facts::default() };
        assert_eq!(authorization(&snapshot).evaluate(&facts).allowed, passes, "{texts} {identity} {method}");
    }
    let gateway = compiled(&[WORLD, &mesh("defaultDeny")], &gateway());
    assert!(authorization(&gateway).is_empty(), "an edge has clients without identity");
}

#[test]
fn a_strict_mesh_names_what_nothing_protects() {
    let mesh =
        "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {strict: true}\n---\n";
    let peers = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n---\n"
        )
    };
    let out = "shop/plain:80=127.0.0.1:15102";
    for (text, map, named) in [
        (mesh.to_owned(), "", None),
        (
            mesh.to_owned() + &peers("PERMISSIVE"),
            "",
            Some("inbound:9080: the mode PERMISSIVE takes plaintext"),
        ),
        (
            mesh.to_owned(),
            out,
            Some("outbound:shop/plain:80 -> shop/plain:80: the endpoint is not a workload"),
        ),
        (peers("PERMISSIVE"), out, None),
    ] {
        let snapshot = compiled(&[WORLD, &text], &sidecar("shop/pages-0", map));
        let found = snapshot.not_strict();
        assert_eq!(found.is_some(), named.is_some(), "{text}: {found:?}");
        assert!(found.as_deref().unwrap_or_default().contains(named.unwrap_or_default()), "{found:?}");
        assert_eq!(
            snapshot.problems.iter().any(|problem| problem.message.contains("`strict`")),
            named.is_some()
        );
    }
}

#[test]
fn a_rule_that_no_request_satisfies_is_told_of_with_its_place() {
    let policy = |rule: &str| {
        policy(
            "p",
            "shop",
            &format!("{{action: ALLOW, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}, {rule}]}}"),
        )
    };
    let disable = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: DISABLE}}\n---\n";
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\nspec: {jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]}\n---\n";
    let identity = policy("{from: [{source: {namespaces: [shop]}}]}");
    let token = policy("{when: [{key: 'request.auth.claims[a]', values: [b]}]}");
    let neither = policy("{from: [{source: {notPrincipals: [a]}}, {source: {requestPrincipals: ['*']}}]}");
    let opaque = "apiVersion: v1\nkind: Pod\nmetadata: {name: raw-0, namespace: shop, labels: {app: raw}}\nspec: {}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: raw, namespace: shop}\nspec: {selector: {app: raw}, ports: [{name: tcp, port: 9080}]}\n---\n";
    let at = "1.yaml:4:70: AuthorizationPolicy shop/p: a rule holds for no request:";
    for (texts, expected) in [
        (identity.clone(), None),
        (identity + disable, Some("it asks for an identity, and where the mode is DISABLE nobody has one")),
        (token.clone(), Some("it asks for a token, and no RequestAuthentication checks one")),
        (token.clone() + tokens, None),
        (token + opaque, None),
        (neither + disable, None),
        (
            policy("{to: [{operation: {ports: ['80'], notPorts: ['80']}}]}"),
            Some("what one of its fields takes another leaves out"),
        ),
    ] {
        let workload = if texts.contains("raw-0") { "shop/raw-0" } else { "shop/pages-0" };
        let snapshot = compiled(&[WORLD, &texts], &sidecar(workload, ""));
        assert!(!snapshot.listeners.is_empty(), "{:?}", snapshot.problems);
        let told = problems(&snapshot).into_iter().filter(|problem| problem.contains("holds for no request"));
        let expected = expected.map(|why| format!("error: {at} {why}"));
        assert_eq!(told.collect::<Vec<_>>(), Vec::from_iter(expected), "{texts}");
    }
}

#[test]
fn a_value_that_no_request_has_is_told_of_with_its_place() {
    let scheme = "no request has `spiffe://td/ns/a/sa/b`: a principal has no scheme (leave out `spiffe://`)";
    let relative = "no request has `admin/*`: a path begins with `/` (did you mean `/admin/*`?)";
    for (rule, expected) in [
        ("{from: [{source: {principals: ['spiffe://td/ns/a/sa/b']}}]}", Some(scheme)),
        ("{from: [{source: {notPrincipals: ['spiffe://td/ns/a/sa/b']}}]}", Some(scheme)),
        ("{when: [{key: source.principal, values: ['spiffe://td/ns/a/sa/b']}]}", Some(scheme)),
        ("{from: [{source: {principals: [td/ns/a/sa/b, '*', '*/sa/b']}}]}", None),
        ("{to: [{operation: {paths: ['admin/*']}}]}", Some(relative)),
        ("{to: [{operation: {notPaths: ['admin/*']}}]}", Some(relative)),
        ("{to: [{operation: {paths: [/admin, '*', '*/admin', '/{*}/a', '{*}/a']}}]}", None),
    ] {
        let (_, problems) = in_force(&policy("p", "shop", &format!("{{rules: [{rule}]}}")));
        let told: Vec<_> = problems.into_iter().filter(|problem| problem.starts_with("warning")).collect();
        let column = "spec: {rules: [".len() + rule.find('\'').unwrap_or_default() + 1;
        let expected =
            expected.map(|what| format!("warning: 1.yaml:4:{column}: AuthorizationPolicy shop/p: {what}"));
        assert_eq!(told, Vec::from_iter(expected), "{rule}");
    }
}

#[test]
fn keys_that_are_not_named_are_found_by_their_issuer() {
    let rules = |rules: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: shop}}\nspec: {{jwtRules: [{rules}]}}\n"
        );
        compiled(&[WORLD, &text], &sidecar("shop/pages-0", ""))
    };
    let known = "/.well-known/openid-configuration";
    let snapshot = rules(
        "{issuer: 'https://a.example/'}, {issuer: 'https://a.example'}, {issuer: b, jwksUri: 'https://b.example/k'}",
    );
    let found = snapshot.remote_jwks().into_iter().map(|jwks| (jwks.uri.to_string(), jwks.discovered_for));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            (format!("https://a.example{known}"), Some("https://a.example".into())),
            (format!("https://a.example{known}"), Some("https://a.example/".into())),
            ("https://b.example/k".to_owned(), None),
        ]
    );
    let snapshot = rules("{issuer: 'who@a.example'}");
    let told = problems(&snapshot);
    assert!(told.iter().any(|problem| problem.contains("is no URL to find them by")), "{told:?}");
    assert!(snapshot.remote_jwks().is_empty());
}

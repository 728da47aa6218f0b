//! `VirtualService`s and what becomes of them: the same decisions, or a finding that says why not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use std::fmt::Write as _;

use common::{compiled, gateway, problems};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;
use serde_json::{Value, json};
use towpath_config::{Duty, Loss, Migration, Snapshot, Source, migrate, rule_settings};
use towpath_routing::{RequestFacts, Routes};

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: shop}\n\
                       spec: {gatewayClassName: c, listeners: [{name: http, port: 80, protocol: HTTP}]}\n";

/// A Service with one endpoint.
fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: [127.0.0.1]}}]\nports: [{{name: '', port: 8000}}]\n"
    )
}

fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs, namespace: shop}}\n\
         spec:\n  hosts: ['*']\n  gateways: [gw]\n  http:\n{http}"
    )
}

fn migrated(texts: &[&str]) -> Migration {
    let files = texts.iter().enumerate().map(|(at, text)| (format!("{at}.yaml"), (*text).to_owned()));
    migrate(&Source::from_files(files.collect()))
}

fn findings(migration: &Migration, loss: Loss) -> Vec<String> {
    migration.findings.iter().filter(|finding| finding.loss == loss).map(ToString::to_string).collect()
}

/// How a `StringMatch` is written and read.
#[derive(Debug, Clone)]
enum Text {
    Exact(&'static str),
    Prefix(&'static str),
    Regex(&'static str),
    Present,
}

impl Text {
    fn yaml(&self) -> String {
        match self {
            Self::Exact(text) => format!("{{exact: '{text}'}}"),
            Self::Prefix(text) => format!("{{prefix: '{text}'}}"),
            Self::Regex(text) => format!("{{regex: '{text}'}}"),
            Self::Present => "{}".to_owned(),
        }
    }

    fn takes(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => *wanted == text,
            Self::Prefix(wanted) => text.starts_with(wanted),
            Self::Regex(regex) => Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(text),
            Self::Present => true,
        }
    }
}

#[derive(Debug, Clone)]
struct Match {
    uri: Option<Text>,
    fold: bool,
    method: Option<&'static str>,
    headers: Vec<(String, Text)>,
    without: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
}

#[derive(Debug, Clone)]
struct Asked {
    path: String,
    method: &'static str,
    headers: Vec<(String, String)>,
    query: String,
}

impl Match {
    fn yaml(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.uri.as_ref().map(|uri| format!("uri: {}", uri.yaml())));
        if self.fold {
            parts.push("ignoreUriCase: true".to_owned());
        }
        parts.extend(self.method.map(|method| format!("method: {{exact: {method}}}")));
        for (name, list) in
            [("headers", &self.headers), ("withoutHeaders", &self.without), ("queryParams", &self.query)]
        {
            if !list.is_empty() {
                let entries: Vec<_> =
                    list.iter().map(|(name, value)| format!("{name}: {}", value.yaml())).collect();
                parts.push(format!("{name}: {{{}}}", entries.join(", ")));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }

    /// As Istio reads it.
    fn takes(&self, asked: &Asked) -> bool {
        let header = |(name, wanted): &(String, Text)| {
            asked.headers.iter().any(|(there, value)| there == name && wanted.takes(value))
        };
        let parameter = |(name, wanted): &(String, Text)| {
            let pairs = asked.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| key == name).is_some_and(|(_, value)| wanted.takes(value))
        };
        let uri = |uri: &Text| match (self.fold, uri) {
            (true, Text::Exact(text)) => text.eq_ignore_ascii_case(&asked.path),
            (true, Text::Prefix(text)) => asked.path.to_lowercase().starts_with(&text.to_lowercase()),
            (_, other) => other.takes(&asked.path),
        };
        self.uri.as_ref().is_none_or(uri)
            && self.method.is_none_or(|method| method == asked.method)
            && self.headers.iter().all(header)
            && !self.without.iter().any(header)
            && self.query.iter().all(parameter)
    }
}

fn value() -> impl Strategy<Value = Text> {
    prop_oneof![
        2 => select(vec!["1", "2"]).prop_map(Text::Exact),
        1 => Just(Text::Present),
        1 => Just(Text::Regex("[12]")),
    ]
}

fn named(names: &'static str, most: usize) -> impl Strategy<Value = Vec<(String, Text)>> {
    btree_map(names, value(), 0..most).prop_map(|map| map.into_iter().collect())
}

fn matches() -> impl Strategy<Value = Match> {
    let uri = proptest::option::weighted(
        0.8,
        prop_oneof![
            select(vec!["/", "/a", "/a/b", "/b"]).prop_map(Text::Exact),
            select(vec!["/", "/a", "/a/", "/b"]).prop_map(Text::Prefix),
            select(vec!["/a.*", "/[ab]", "/(a|b)/.*"]).prop_map(Text::Regex),
        ],
    );
    let fold = proptest::bool::weighted(0.1);
    let method = proptest::option::weighted(0.2, select(vec!["GET", "PUT"]));
    (uri, fold, method, named("[xy]", 2), named("[xy]", 2), named("[pq]", 2)).prop_map(
        |(uri, fold, method, headers, without, query)| Match { uri, fold, method, headers, without, query },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let path = select(vec!["/", "/a", "/a/", "/a/b", "/ab", "/A", "/b", "/b/c", "/c"]);
    let headers = btree_map("[xy]", "[123]", 0..3);
    let query = select(vec!["", "p=1", "q=2&p=3", "p=2&q=1"]);
    (path, select(vec!["GET", "PUT"]), headers, query).prop_map(|(path, method, headers, query)| Asked {
        path: path.to_owned(),
        method,
        headers: headers.into_iter().collect(),
        query: query.to_owned(),
    })
}

/// The Service that a request goes to by the compiled routes; nothing if it is not found.
fn decided(routes: &Routes, asked: &Asked) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        headers
            .insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let method: Method = asked.method.parse().unwrap();
    let facts = RequestFacts {
        host: "a.example",
        path: &asked.path,
        query: &asked.query,
        method: &method,
        headers: &headers,
    };
    let explained = routes.explain(&facts);
    let rule = rule_settings(explained.winner?.matched());
    if rule["policies"]["directResponse"]["status"] == 404 {
        return None;
    }
    Some(rule["backends"][0]["name"].as_str().unwrap().to_owned())
}

fn tables(snapshot: &Snapshot) -> Routes {
    match &snapshot.listeners[0].duty {
        Duty::Edge { routes, .. } => Routes::new(routes.clone()),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_global_rejects: 4000, ..ProptestConfig::default() })]

    #[test]
    fn where_nothing_is_reported_the_decisions_are_the_same(
        rules in vec(vec(matches(), 0..3), 1..5),
        requests in vec(asked(), 24),
    ) {
        let (mut http, mut world) = (String::new(), GATEWAY.to_owned());
        for (at, rule) in rules.iter().enumerate() {
            let matches: Vec<_> = rule.iter().map(Match::yaml).collect();
            let matches = if rule.is_empty() { String::new() } else { format!("match: [{}], ", matches.join(", ")) };
            let _ = writeln!(http, "    - {{{matches}route: [{{destination: {{host: s{at}}}}}]}}");
            world += &service(&format!("s{at}"));
        }
        let migration = migrated(&[&world, &virtual_service(&http)]);
        prop_assert_eq!(migration.problems.len(), 0);
        prop_assume!(migration.findings.iter().all(|finding| finding.loss == Loss::Note));
        let yaml = migration.to_yaml();
        let snapshot = compiled(&[&world, &yaml], &gateway());
        prop_assert_eq!(problems(&snapshot), Vec::<String>::new(), "{}\n{}", http, yaml);
        let routes = tables(&snapshot);
        for asked in requests {
            let first = rules.iter().position(|rule| rule.is_empty() || rule.iter().any(|one| one.takes(&asked)));
            let before = first.map(|at| format!("shop/s{at}:80"));
            prop_assert_eq!(decided(&routes, &asked), before, "{:?}\n{}\n{}", asked, http, yaml);
        }
    }
}

/// The first rule of the first route.
fn first_rule(migration: &Migration) -> Value {
    migration.objects[0]["spec"]["rules"][0].clone()
}

#[test]
fn what_a_rule_does_is_carried_over() {
    let world = [service("a"), service("b")].concat();
    for (rule, field, expected) in [
        (
            "redirect: {uri: /new, authority: 'n.example:8443', scheme: https}",
            "filters",
            json!([{"type": "RequestRedirect", "requestRedirect": {"statusCode": 301, "hostname": "n.example",
                "port": 8443, "scheme": "https", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}}}]),
        ),
        (
            "rewrite: {authority: x.example}, route: [{destination: {host: a}}]",
            "filters",
            json!([{"type": "URLRewrite", "urlRewrite": {"hostname": "x.example"}}]),
        ),
        (
            "match: [{uri: {exact: /x}}], rewrite: {uri: /y}, route: [{destination: {host: a}}]",
            "filters",
            json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/y"}}}]),
        ),
        (
            "headers: {request: {set: {a: b}, remove: [c]}, response: {add: {d: e}}}, route: [{destination: {host: a}}]",
            "filters",
            json!([
                {"type": "RequestHeaderModifier",
                 "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}], "remove": ["c"]}},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "d", "value": "e"}]}},
            ]),
        ),
        (
            "mirror: {host: b}, mirrorPercentage: {value: 0.5}, route: [{destination: {host: a}}]",
            "filters",
            json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b", "port": 80},
                "fraction": {"numerator": 5000, "denominator": 1_000_000}}}]),
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: 'https://a.example'}], allowMethods: [GET], maxAge: 24h}, \
             route: [{destination: {host: a}}]",
            "filters",
            json!([{"type": "CORS", "cors": {"allowOrigins": ["https://a.example"], "allowMethods": ["GET"], "maxAge": 86400}}]),
        ),
        (
            "timeout: 1.5s, retries: {attempts: 2, perTryTimeout: 500ms, retryOn: 'gateway-error,429'}, \
             route: [{destination: {host: a}}]",
            "timeouts",
            json!({"request": "1500ms", "backendRequest": "500ms"}),
        ),
        (
            "match: [{queryParams: {q: {exact: ''}}}], route: [{destination: {host: a}}]",
            "matches",
            json!([{"path": {"type": "PathPrefix", "value": "/"},
                "queryParams": [{"type": "RegularExpression", "name": "q", "value": "^$"}]}]),
        ),
        (
            "retries: {attempts: 2, retryOn: 'gateway-error,429', backoff: 25ms}, route: [{destination: {host: a}}]",
            "retry",
            json!({"attempts": 2, "codes": [429, 502, 503, 504], "backoff": "25ms"}),
        ),
        ("route: [{destination: {host: a}}]", "timeouts", json!({"request": "0s"})),
        (
            "route: [{destination: {host: a}, weight: 3}, {destination: {host: b}}]",
            "backendRefs",
            json!([{"name": "a", "port": 80, "weight": 3}, {"name": "b", "port": 80, "weight": 0}]),
        ),
        (
            "fault: {delay: {fixedDelay: 5s, percentage: {value: 10}}}, route: [{destination: {host: a}}]",
            "filters",
            json!([{"type": "ExtensionRef",
                "extensionRef": {"group": "towpath.dev", "kind": "HTTPRouteFilter", "name": "vs-0"}}]),
        ),
    ] {
        let migration = migrated(&[GATEWAY, &world, &virtual_service(&format!("    - {{{rule}}}\n"))]);
        assert_eq!(first_rule(&migration)[field], expected, "{rule}");
        assert_eq!(findings(&migration, Loss::Lost), Vec::<String>::new(), "{rule}");
        let changed = findings(&migration, Loss::Changed);
        assert_eq!(changed.len(), usize::from(rule.contains("retryOn")), "{rule}: {changed:?}");
        assert!(
            changed.iter().all(|finding| finding.contains("for idempotent methods alone")),
            "{changed:?}"
        );
        let snapshot = compiled(&[GATEWAY, &world, &migration.to_yaml()], &gateway());
        assert_eq!(problems(&snapshot), Vec::<String>::new(), "{rule}\n{}", migration.to_yaml());
    }
}

#[test]
fn every_field_that_is_not_carried_over_is_named_with_its_place() {
    let world = service("a");
    for (rule, says) in [
        (
            "match: [{sourceLabels: {a: b}}], route: [{destination: {host: a}}]",
            "spec.http[0].match[0].sourceLabels",
        ),
        (
            "match: [{authority: {exact: x}}], route: [{destination: {host: a}}]",
            "spec.http[0].match[0].authority",
        ),
        ("match: [{uri: {regex: '('}}], route: [{destination: {host: a}}]", "is not a regular expression"),
        ("delegate: {name: other}", "spec.http[0].delegate"),
        ("route: [{destination: {host: api.example.com}}]", "is not a Service of this cluster"),
        (
            "route: [{destination: {host: a, subset: v9}}]",
            "no DestinationRule among the files has subset `v9`",
        ),
        (
            "route: [{destination: {host: a}}], nonsense: 1",
            "spec.http[0].nonsense: no field of this name is known",
        ),
        (
            "rewrite: {uriRegexRewrite: {match: a, rewrite: b}}, route: [{destination: {host: a}}]",
            "uriRegexRewrite",
        ),
        (
            "corsPolicy: {allowOrigins: [{regex: '.*'}]}, route: [{destination: {host: a}}]",
            "allowOrigins[0].regex",
        ),
        (
            "headers: {request: {remove: [Host]}}, route: [{destination: {host: a}}]",
            "remove[0]: the host is changed by",
        ),
        ("timeout: soon, route: [{destination: {host: a}}]", "`soon` is not a duration"),
        ("{}", "has not one of `route`, `redirect` and `directResponse`"),
    ] {
        let rule = if rule == "{}" { "    - {}\n".to_owned() } else { format!("    - {{{rule}}}\n") };
        let migration = migrated(&[GATEWAY, &world, &virtual_service(&rule)]);
        let lost = findings(&migration, Loss::Lost);
        assert!(lost.iter().any(|finding| finding.contains(says)), "{rule}: {lost:?}");
        assert!(lost.iter().all(|finding| finding.starts_with("lost: 2.yaml:8:")), "{lost:?}");
    }
}

#[test]
fn a_prefix_that_is_replaced_says_what_is_different_now() {
    for (prefix, uri, path, says) in [
        ("/a/", "/b/", "/a", &["the path `/a` is taken as well"][..]),
        ("/a", "/b", "/a", &["paths such as `/ax` are no longer taken"]),
        ("/a", "/", "/a", &["`/ax` became `/x`", "paths such as `/ax`"]),
        ("/", "/v1/", "/", &[]),
    ] {
        let rule = format!(
            "    - {{match: [{{uri: {{prefix: {prefix}}}}}], rewrite: {{uri: {uri}}}, route: [{{destination: {{host: a}}}}]}}\n"
        );
        let migration = migrated(&[GATEWAY, &service("a"), &virtual_service(&rule)]);
        let rule = first_rule(&migration);
        let written = rule["matches"][0]["path"]["value"].as_str().unwrap_or("/");
        assert_eq!(written, path, "{rule}");
        let changed = findings(&migration, Loss::Changed);
        assert_eq!(changed.len(), says.len(), "{changed:?}");
        assert!(says.iter().all(|say| changed.iter().any(|finding| finding.contains(say))), "{changed:?}");
    }
}

#[test]
fn subsets_become_services_and_routes_of_the_mesh_are_attached_to_theirs() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\n\
                spec: {host: a, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}, \
                subsets: [{name: v1, labels: {version: v1}}]}\n";
    let mesh = virtual_service("    - {route: [{destination: {host: a, subset: v1}}]}\n")
        .replace("gateways: [gw]", "gateways: [mesh, gw]")
        .replace("hosts: ['*']", "hosts: [a, b.other.svc.cluster.local]");
    let migration = migrated(&[GATEWAY, &service("a"), rule, &mesh]);
    let named = |kind: &str| -> Vec<_> {
        let of = migration.objects.iter().filter(|object| object["kind"] == kind);
        of.map(|object| object["metadata"]["name"].as_str().unwrap()).collect()
    };
    assert_eq!(named("HTTPRoute"), ["vs-mesh", "vs-gw"]);
    assert_eq!(named("Service"), ["a-v1"]);
    let parents = &migration.objects[0]["spec"]["parentRefs"];
    assert_eq!(
        *parents,
        json!([
            {"group": "", "kind": "Service", "name": "a"},
            {"group": "", "kind": "Service", "name": "b", "namespace": "other"},
        ])
    );
    let hostnames = &migration.objects[1]["spec"]["hostnames"];
    assert_eq!(*hostnames, json!(["a.shop.svc.cluster.local", "b.other.svc.cluster.local"]));
    let made = migration.objects.iter().find(|object| object["kind"] == "Service").unwrap();
    assert_eq!(made["spec"]["selector"], json!({"app": "a", "version": "v1"}));
    assert!(findings(&migration, Loss::Lost)[0].contains("spec.trafficPolicy.outlierDetection"));
}

#[test]
fn long_lists_go_on_in_a_second_route_and_two_objects_for_one_host_are_named() {
    let mut rules = String::new();
    for n in 0..40 {
        let _ = writeln!(
            rules,
            "    - {{match: [{{uri: {{exact: /{n}}}}}], route: [{{destination: {{host: a}}}}]}}"
        );
    }
    let first = virtual_service(&rules);
    let second = first.replace("name: vs", "name: other");
    let migration = migrated(&[GATEWAY, &service("a"), &first, &second]);
    let names: Vec<_> =
        migration.objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["other-000", "other-001", "other-002", "vs-000", "vs-001", "vs-002"]);
    assert!(findings(&migration, Loss::Changed)[0].contains("`*` is in VirtualService shop/other as well"));
    let snapshot = compiled(&[GATEWAY, &service("a"), &migration.to_yaml()], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
}

#[test]
fn what_is_no_yaml_is_a_problem_and_the_rest_is_carried_over() {
    let broken = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x\n";
    let good = virtual_service("    - {route: [{destination: {host: a}}]}\n");
    let migration = migrated(&[broken, GATEWAY, &service("a"), &good]);
    assert_eq!((migration.problems.len(), migration.objects.len()), (1, 1));
}

#[test]
fn layer_4_becomes_routes_of_its_own() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: vs, namespace: shop}\nspec:\n  \
                hosts: [a.example]\n  gateways: [tls, mesh]\n  tls:\n    - match: [{port: 443, sniHosts: [a.example]}]\n      \
                route: [{destination: {host: a, port: {number: 80}}}]\n  tcp:\n    - match: [{port: 9000}, {sourceLabels: \
                {a: b}}]\n      route: [{destination: {host: a}, weight: 1}, {destination: {host: b.other.svc}, weight: 3}]\n";
    let gateway_text = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: tls, namespace: shop}\n\
                        spec: {gatewayClassName: c, listeners: [{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}, \
                        {name: tcp, port: 9000, protocol: TCP}]}\n";
    let migration = migrated(&[gateway_text, &service("a"), text]);
    let kinds: Vec<_> = migration.objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["TLSRoute", "TCPRoute", "ReferenceGrant"]);
    let tls = &migration.objects[0]["spec"];
    assert_eq!(tls["parentRefs"], json!([{"name": "tls", "port": 443}]));
    assert_eq!(tls["hostnames"], json!(["a.example"]));
    assert_eq!(findings(&migration, Loss::Lost).len(), 2, "{:?}", migration.findings);
    let other = service("b").replace("namespace: shop", "namespace: other");
    let snapshot = compiled(&[gateway_text, &service("a"), &other, &migration.to_yaml()], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new(), "{}", migration.to_yaml());
    assert_eq!(snapshot.listeners.len(), 2);
}

#[test]
fn what_comes_out_is_always_served_or_said() {
    let world = [service("a"), service("a-v1")].concat();
    let subsets = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\n\
                   spec: {host: a, subsets: [{name: v1, labels: {v: one}}, {name: V2.1, labels: {v: two}}]}\n";
    let to_a = "route: [{destination: {host: a}}]";
    for (spec, finding) in [
        (format!("{{hosts: ['*'], gateways: [gw, shop/gw], http: [{{{to_a}}}]}}"), None),
        (format!("{{hosts: [a, a.shop.svc.cluster.local], http: [{{{to_a}}}]}}"), None),
        (format!("{{hosts: [a], gateways: [], http: [{{{to_a}}}]}}"), None),
        (format!("{{http: [{{{to_a}}}]}}"), Some("lost: no hosts")),
        (
            format!(
                "{{hosts: ['*'], gateways: [gw], http: [{{match: [{{method: {{exact: PROPFIND}}}}], {to_a}}}]}}"
            ),
            Some("lost: is not a method"),
        ),
        (
            "{hosts: ['*'], gateways: [gw], http: [{route: [{destination: {host: a, subset: V2.1}}]}]}"
                .into(),
            Some("note: the subset"),
        ),
        (
            "{hosts: ['*'], gateways: [gw], http: [{route: [{destination: {host: a, subset: v1}}]}]}".into(),
            Some("changed: the Service shop/a-v1 is there already"),
        ),
        (
            format!(
                "{{hosts: ['*'], gateways: [gw], http: [{{rewrite: {{authority: 'x.example:80'}}, {to_a}}}]}}"
            ),
            Some("changed: a host is put in its place without a port"),
        ),
        (
            "{hosts: ['*'], gateways: [gw], http: [{redirect: {authority: '[::1]'}}]}".into(),
            Some("lost: `[::1]` is not a DNS name"),
        ),
        (
            "{hosts: ['*'], gateways: [gw], http: [{rewrite: {uri: /x}, redirect: {uri: /y}}]}".into(),
            Some("changed: `rewrite` beside it has no effect"),
        ),
        (
            format!(
                "{{hosts: ['*'], gateways: [gw], http: [{{match: [{{uri: {{prefix: //a}}}}], rewrite: {{uri: /b}}, {to_a}}}]}}"
            ),
            Some("lost: `//a` is no prefix"),
        ),
        (format!("{{hosts: ['*'], gateways: [gw], http: [{{timeout: 100001s, {to_a}}}]}}"), None),
        (format!("{{hosts: ['*'], gateways: [gw], tcp: [{{match: [], {to_a}}}]}}"), None),
        (
            format!("{{hosts: [a], gateways: [gw, mesh], tcp: [{{{to_a}}}]}}"),
            Some("changed: routes of layer 4 are of gateways"),
        ),
        (format!("{{hosts: ['*'], gateways: [gw], tls: [{{match: [{{sniHosts: ['*']}}], {to_a}}}]}}"), None),
    ] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs, namespace: shop}}\nspec: {spec}\n"
        );
        let gateway_text = GATEWAY.replace(
            "protocol: HTTP}",
            "protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}, {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}",
        );
        let migration = migrated(&[&gateway_text, &world, subsets, &text]);
        let said: Vec<_> = migration
            .findings
            .iter()
            .filter(|finding| !finding.why.starts_with("Istio tries twice more"))
            .map(|finding| format!("{}: {}", finding.loss, finding.why))
            .collect();
        match finding {
            None => assert_eq!(said, Vec::<String>::new(), "{spec}"),
            Some(finding) => assert!(said.iter().any(|say| say.starts_with(finding)), "{spec}: {said:?}"),
        }
        let snapshot = compiled(&[&gateway_text, &world, &migration.to_yaml()], &gateway());
        assert_eq!(problems(&snapshot), Vec::<String>::new(), "{spec}\n{}", migration.to_yaml());
    }
}

//! North-south: listeners, routes, backends, policies, certificates and status.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{WORLD, compiled, condition, endpoints, gateway, problems, route, rule, source, status};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use towpath_auth::ApiKeys;
use towpath_config::{Duty, Options, Snapshot, compile};
use towpath_routing::{PathMatch, Rule};
use towpath_upstream::{Retry, Timeouts};

const PAGES: &str = "[{backendRefs: [{name: pages, port: 9080}]}]";

fn rules(snapshot: &Snapshot) -> Vec<Rule> {
    let tables = snapshot.listeners.iter().flat_map(|listener| match &listener.duty {
        Duty::Edge { routes, .. } | Duty::Outbound { routes, .. } => routes.clone(),
        _ => Vec::new(),
    });
    tables.flat_map(|table| table.routes).flat_map(|route| route.rules).collect()
}

fn one_rule(text: &str) -> Rule {
    let snapshot = compiled(&[WORLD, &route("web", text)], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    rules(&snapshot).remove(0)
}

/// The Gateway of the world with these listeners.
fn listeners(text: &str) -> String {
    WORLD.replace(
        "    - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}",
        text,
    )
}

fn parent(snapshot: &Snapshot, route: &str) -> (String, String) {
    let conditions = &status(snapshot, "HTTPRoute", route)["parents"][0]["conditions"];
    (condition(conditions, "Accepted"), condition(conditions, "ResolvedRefs"))
}

#[test]
fn routes_attach_by_section_port_namespace_kind_and_host() {
    let world = listeners(
        "    - {name: a, port: 80, protocol: HTTP, hostname: '*.a.example', allowedRoutes: {namespaces: {from: All}}}
    - {name: b, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}
    - {name: c, port: 82, protocol: HTTP}
    - {name: d, port: 83, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}}",
    );
    for (parent_ref, hostnames, accepted, listener) in [
        ("sectionName: a", "[]", "True/Accepted", Some("*.a.example")),
        ("sectionName: a", "[x.a.example, other.example]", "True/Accepted", Some("x.a.example")),
        ("sectionName: a", "['*.example']", "True/Accepted", Some("*.a.example")),
        ("sectionName: a", "[a.example]", "False/NoMatchingListenerHostname", None),
        ("sectionName: b", "[]", "False/NotAllowedByListeners", None),
        ("sectionName: c", "[]", "False/NotAllowedByListeners", None),
        ("sectionName: d", "[y.example]", "True/Accepted", Some("y.example")),
        ("port: 83", "[y.example]", "True/Accepted", Some("y.example")),
        ("sectionName: a, port: 83", "[]", "False/NoMatchingParent", None),
        ("sectionName: none", "[]", "False/NoMatchingParent", None),
    ] {
        let text =
            route("web", PAGES).replace("namespace: edge}", &format!("namespace: edge, {parent_ref}}}"));
        let text = format!("{text}  hostnames: {hostnames}\n");
        let snapshot = compiled(&[&world, &text], &gateway());
        assert_eq!(parent(&snapshot, "web").0, accepted, "{parent_ref} {hostnames}");
        let json = snapshot.to_json();
        let routes = json["listeners"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|l| l["routes"][0]["routes"].as_array().unwrap());
        let hosts: Vec<_> = routes.map(|route| route["hostnames"].clone()).collect();
        assert_eq!(
            hosts,
            listener.map(|host| json!([host])).into_iter().collect::<Vec<_>>(),
            "{parent_ref} {hostnames}"
        );
        assert_eq!(snapshot.has_errors(), listener.is_none());
    }
}

#[test]
fn listeners_are_judged_one_by_one() {
    let world = listeners(
        "    - {name: good, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: own, port: 81, protocol: example.com/own}
    - {name: same1, port: 82, protocol: HTTP, hostname: a.example}
    - {name: same2, port: 82, protocol: HTTP, hostname: a.example}
    - {name: tls, port: 83, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}
    - {name: mixed1, port: 84, protocol: HTTP}
    - {name: mixed2, port: 84, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}
    - {name: kinds, port: 85, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: Strange}]}}",
    );
    let snapshot = compiled(&[&world, &route("web", PAGES)], &gateway());
    let gateway = status(&snapshot, "Gateway", "gw");
    assert_eq!(condition(&gateway["conditions"], "Accepted"), "True/ListenersNotValid");
    let seen: Vec<_> = gateway["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            let of = |kind| condition(&l["conditions"], kind);
            [
                l["name"].as_str().unwrap().to_owned(),
                of("Accepted"),
                of("Programmed"),
                of("ResolvedRefs"),
                of("Conflicted"),
            ]
            .join(" ")
        })
        .collect();
    assert_eq!(
        seen,
        [
            "good True/Accepted True/Programmed True/ResolvedRefs False/NoConflicts",
            "own False/UnsupportedProtocol False/Invalid True/ResolvedRefs False/NoConflicts",
            "same1 False/HostnameConflict False/HostnameConflict True/ResolvedRefs True/HostnameConflict",
            "same2 False/HostnameConflict False/HostnameConflict True/ResolvedRefs True/HostnameConflict",
            "tls True/Accepted False/Invalid False/InvalidCertificateRef False/NoConflicts",
            "mixed1 False/ProtocolConflict False/ProtocolConflict True/ResolvedRefs True/ProtocolConflict",
            "mixed2 False/ProtocolConflict False/ProtocolConflict False/InvalidCertificateRef True/ProtocolConflict",
            "kinds True/Accepted True/Programmed False/InvalidRouteKinds False/NoConflicts",
        ]
    );
    assert_eq!(gateway["listeners"][0]["attachedRoutes"], 1);
    let open: Vec<_> = snapshot.listeners.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(open, ["0.0.0.0:80", "0.0.0.0:85"]);
}

#[test]
fn the_generation_that_was_seen_is_told() {
    let world = WORLD.replace(
        "metadata: {name: gw, namespace: edge}",
        "metadata: {name: gw, namespace: edge, generation: 7}",
    );
    let snapshot = compiled(&[&world], &gateway());
    assert_eq!(status(&snapshot, "Gateway", "gw")["conditions"][0]["observedGeneration"], 7);
}

#[test]
fn only_gateways_of_our_class_are_served() {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: towpath}\nspec: {controllerName: towpath.dev/gateway}\n";
    for (controller, texts, served) in [
        (None, vec![WORLD], true),
        (Some("towpath.dev/gateway"), vec![WORLD, class], true),
        (Some("someone.else/gateway"), vec![WORLD, class], false),
        (Some("towpath.dev/gateway"), vec![WORLD], false),
    ] {
        let options = Options { controller_name: controller.map(Into::into), ..gateway() };
        let snapshot = compiled(&texts, &options);
        assert_eq!(!snapshot.listeners.is_empty(), served, "{controller:?}");
        assert_eq!(status(&snapshot, "Gateway", "gw") != Value::Null, served, "{controller:?}");
    }
}

#[test]
fn addresses_come_from_the_resource_or_the_port_map() {
    let with = |addresses: &str| {
        WORLD.replace(
            "gatewayClassName: towpath",
            &format!("gatewayClassName: towpath\n  addresses: {addresses}"),
        )
    };
    let mapped = Options { port_map: Some("edge/gw:80=127.0.0.1:8080".parse().unwrap()), ..gateway() };
    let unmapped = Options { port_map: Some("edge/gw:81=127.0.0.1:8080".parse().unwrap()), ..gateway() };
    for (addresses, options, open, programmed) in [
        ("[]", gateway(), vec!["0.0.0.0:80"], "True/Programmed"),
        (
            "[{value: 127.0.0.2}, {value: '::1'}]",
            gateway(),
            vec!["127.0.0.2:80", "[::1]:80"],
            "True/Programmed",
        ),
        ("[{type: Hostname, value: a.example}]", gateway(), vec![], "False/Invalid"),
        ("[{value: nonsense}]", gateway(), vec!["0.0.0.0:80"], "False/AddressNotUsable"),
        ("[{value: 192.0.2.1}]", mapped.clone(), vec!["127.0.0.1:8080"], "False/AddressNotUsable"),
        ("[]", mapped, vec!["127.0.0.1:8080"], "True/Programmed"),
        ("[]", unmapped, vec![], "True/Programmed"),
    ] {
        let snapshot = compiled(&[&with(addresses)], &options);
        assert_eq!(
            snapshot.listeners.iter().map(|l| l.address.to_string()).collect::<Vec<_>>(),
            open,
            "{addresses}"
        );
        assert_eq!(
            condition(&status(&snapshot, "Gateway", "gw")["conditions"], "Programmed"),
            programmed,
            "{addresses}"
        );
    }
}

#[test]
fn gateways_of_one_address_and_port_share_a_socket() {
    let other = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: other, namespace: shop}\nspec: {gatewayClassName: x, listeners: [{name: l, port: 80, protocol: HTTP, hostname: o.example}]}\n";
    let own = route("own", PAGES).replace("{name: gw, namespace: edge}", "{name: other}");
    let snapshot = compiled(&[WORLD, other, &route("web", PAGES), &own], &gateway());
    assert_eq!(snapshot.listeners.len(), 1);
    let json = snapshot.to_json();
    let tables: Vec<_> = json["listeners"][0]["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["listener"].as_str().unwrap(), t["routes"].as_array().unwrap().len()))
        .collect();
    assert_eq!(tables, [("edge/gw/http", 1), ("shop/other/l", 1)]);
    let same = other.replace(", hostname: o.example", "");
    let snapshot = compiled(&[WORLD, &same, &route("web", PAGES), &own], &gateway());
    assert_eq!(snapshot.to_json()["listeners"][0]["routes"][0]["routes"].as_array().unwrap().len(), 2);
}

#[test]
fn backends_are_pods_and_virtual_machines() {
    for (service, expected) in [
        ("pages", "10.0.0.1:15006 mtls spiffe://cluster.local/ns/shop/sa/pages east"),
        ("ratings", "10.0.1.1:15006 mtls spiffe://cluster.local/ns/shop/sa/ratings vm"),
    ] {
        let text = route("web", &format!("[{{backendRefs: [{{name: {service}, port: 9080}}]}}]"));
        assert_eq!(endpoints(&rule(&compiled(&[WORLD, &text], &gateway()), "shop/web#0")), [expected]);
    }
    let endpoint = |name: &str| {
        one_rule(&format!("[{{backendRefs: [{{name: {name}, port: 9080}}]}}]")).backends[0]
            .backend
            .endpoints()
            .unwrap()[0]
            .clone()
    };
    let vm = endpoint("ratings");
    assert_eq!(
        (vm.weight, &*vm.locality.region, &*vm.locality.zone, &*vm.workload.name),
        (3, "r1", "z1", "shop/ratings-vm")
    );
    assert_eq!(&*endpoint("pages").locality.zone, "a");
}

#[test]
fn the_application_protocol_frames_requests() {
    for (protocol, expected) in
        [("kubernetes.io/h2c", "http2"), ("grpc", "http2"), ("kubernetes.io/ws", "http1"), ("http", "http1")]
    {
        let world = WORLD.replace(
            "port: 9080, targetPort: 9080",
            &format!("port: 9080, targetPort: 9080, appProtocol: {protocol}"),
        );
        let snapshot = compiled(&[&world, &route("web", PAGES)], &gateway());
        assert_eq!(
            rule(&snapshot, "shop/web#0")["backends"][0]["endpoints"][0]["protocol"],
            expected,
            "{protocol}"
        );
    }
    let world =
        WORLD.replace("port: 9080, targetPort: 9080", "port: 9080, targetPort: 9080, appProtocol: https");
    let snapshot = compiled(&[&world, &route("web", PAGES)], &gateway());
    assert_eq!(parent(&snapshot, "web").1, "False/UnsupportedProtocol");
    assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false);
}

#[test]
fn references_that_lead_nowhere_end_as_500_with_their_reason() {
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: istio-system}\nspec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service, name: ingress}]}\n";
    for (reference, grant, reason) in [
        ("{name: none, port: 1}", "", "False/BackendNotFound"),
        ("{name: pages, port: 1}", "", "False/BackendNotFound"),
        ("{name: pages}", "", "False/BackendNotFound"),
        ("{kind: Strange, name: pages, port: 9080}", "", "False/InvalidKind"),
        ("{name: ingress, namespace: istio-system, port: 80}", "", "False/RefNotPermitted"),
        ("{name: ingress, namespace: istio-system, port: 80}", grant, "True/ResolvedRefs"),
        ("{name: pages, port: 9080, filters: [{type: Compress}]}", "", "False/InvalidKind"),
    ] {
        let text = route("web", &format!("[{{backendRefs: [{reference}]}}]"));
        let snapshot = compiled(&[WORLD, &text, grant], &gateway());
        assert_eq!(parent(&snapshot, "web"), ("True/Accepted".into(), reason.into()), "{reference}");
        assert_eq!(
            rule(&snapshot, "shop/web#0")["backends"][0]["resolved"],
            reason.starts_with("True"),
            "{reference}"
        );
    }
}

#[test]
fn a_rule_with_a_filter_that_is_not_served_is_never_served_without_it() {
    let text = route("web", "[{filters: [{type: Compress}], backendRefs: [{name: pages, port: 9080}]}]");
    let snapshot = compiled(&[WORLD, &text], &gateway());
    assert_eq!(rule(&snapshot, "shop/web#0")["filters"], json!(["unresolved"]));
    assert_eq!(parent(&snapshot, "web").1, "False/InvalidKind");
    assert!(snapshot.has_errors());
}

#[test]
fn a_rule_is_compiled_with_all_its_parts() {
    let rule = one_rule(
        "
    - matches:
        - path: {type: Exact, value: /a}
          method: POST
          headers: [{name: X-A, value: b}]
          queryParams: [{name: q, type: RegularExpression, value: 'x+'}]
      filters:
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}}
        - {type: URLRewrite, urlRewrite: {hostname: B.example, path: {type: ReplaceFullPath, replaceFullPath: /z}}}
      timeouts: {request: 0s, backendRequest: 20s}
      retry: {attempts: 3, codes: [500, 503], backoff: 100ms}
      backendRefs: [{name: pages, port: 9080, weight: 5, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}]}, {name: plain, port: 80}]",
    );
    let request = &rule.matches[0];
    assert!(matches!(&request.path, PathMatch::Exact(path) if &**path == "/a"));
    assert_eq!(
        (request.method.as_ref().unwrap().as_str(), request.headers.len(), request.query.len()),
        ("POST", 1, 1)
    );
    let headers = &rule.filters.request_headers;
    assert_eq!((headers.set.len(), headers.add.len(), headers.remove.len()), (1, 1, 1));
    assert_eq!(rule.filters.rewrite.unwrap().host.as_deref(), Some("b.example"));
    assert_eq!(
        rule.backends.iter().map(|b| (b.weight, b.response_headers.remove.len())).collect::<Vec<_>>(),
        [(5, 1), (1, 0)]
    );
    let timeouts = Timeouts { request: None, backend_request: Some(Duration::from_secs(20)) };
    assert_eq!(rule.policies.get::<Timeouts>(), Some(&timeouts));
    let retry = rule.policies.get::<Retry>().unwrap();
    assert_eq!((retry.attempts, retry.codes.len(), retry.backoff), (3, 2, Duration::from_millis(100)));
}

#[test]
fn the_default_deadline_never_cuts_a_longer_try() {
    let rule = one_rule("[{timeouts: {backendRequest: 30s}}]");
    assert_eq!(rule.policies.get::<Timeouts>().unwrap().request, Some(Duration::from_secs(30)));
    assert_eq!(one_rule("[{}]").policies.get::<Timeouts>(), None);
}

#[test]
fn a_route_without_rules_takes_everything_and_answers_500() {
    let text = route("web", "[]").replace("  rules: []\n", "");
    let snapshot = compiled(&[WORLD, &text], &gateway());
    let rule = rule(&snapshot, "shop/web#0");
    assert_eq!((&rule["matches"], &rule["backends"]), (&json!([]), &json!([])));
}

#[test]
fn grpc_routes_are_routes() {
    let text = route(
        "web",
        "[{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: pages, port: 9080}]}]",
    )
    .replace("HTTPRoute", "GRPCRoute");
    let snapshot = compiled(&[WORLD, &text, &route("web", PAGES)], &gateway());
    assert_eq!(rule(&snapshot, "shop/web#0")["matches"], json!([]));
    assert_eq!(status(&snapshot, "Gateway", "gw")["listeners"][0]["attachedRoutes"], 2);
    assert_eq!(rules(&snapshot).len(), 2);
    assert_eq!(
        condition(&status(&snapshot, "GRPCRoute", "web")["parents"][0]["conditions"], "Accepted"),
        "True/Accepted"
    );
}

fn keys(name: &str, target: &str, rest: &str) -> String {
    format!(
        "apiVersion: towpath.dev/v1alpha1\nkind: ApiKeyPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{targetRefs: [{target}]{rest}}}\n---\n"
    )
}

#[test]
fn the_most_specific_policy_wins_and_of_equals_the_oldest() {
    let gateway_in_shop =
        WORLD.replace("metadata: {name: gw, namespace: edge}", "metadata: {name: gw, namespace: shop}");
    let text = route("web", "[{name: a}, {name: b}]").replace("namespace: edge", "namespace: shop");
    let consumers = ["alice", "bob"].map(|name| {
        let digest = if name == "alice" { "a" } else { "b" }.repeat(64);
        format!("apiVersion: towpath.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{apiKeys: [{{sha256: {digest}}}]}}\n---\n")
    });
    let policies = [
        keys("all", "{kind: Gateway, name: gw}", ", consumers: [bob]"),
        keys("on-route", "{kind: HTTPRoute, name: web}", ""),
        keys(
            "on-rule",
            "{kind: HTTPRoute, name: web, sectionName: b}",
            ", locations: [{query: k}], hideCredential: false",
        ),
    ];
    let policy_of = |policies: &[String], rule: &str| {
        let (consumers, policies) = (consumers.concat(), policies.concat());
        let snapshot = compiled(&[&gateway_in_shop, &text, &consumers, &policies], &gateway());
        let found = rules(&snapshot).into_iter().find(|r| &*r.name.rule == rule).unwrap();
        found
            .policies
            .get::<ApiKeys>()
            .map(|keys| (keys.name.to_string(), keys.keys.len(), keys.hide_credential))
    };
    assert_eq!(policy_of(&[], "a"), None);
    assert_eq!(policy_of(&policies[..1], "a"), Some(("shop/all".into(), 1, true)));
    assert_eq!(policy_of(&policies[..2], "a"), Some(("shop/on-route".into(), 2, true)));
    assert_eq!(policy_of(&policies, "a"), Some(("shop/on-route".into(), 2, true)));
    assert_eq!(policy_of(&policies, "b"), Some(("shop/on-rule".into(), 2, false)));
    let old = keys("z-old", "{kind: HTTPRoute, name: web}", "")
        .replace("namespace: shop}", "namespace: shop, creationTimestamp: '2020-01-01T00:00:00Z'}");
    assert_eq!(policy_of(&[old, policies[1].clone()], "a").unwrap().0, "shop/z-old");
}

#[test]
fn what_a_broken_key_policy_protected_stays_shut() {
    for (broken, web, other) in [
        (keys("p", "{kind: HTTPRoute, name: web}", ", nonsense: 1"), Some(0), None),
        (keys("p", "nonsense", ""), Some(0), Some(0)),
    ] {
        let snapshot = compiled(&[WORLD, &route("web", PAGES), &route("other", PAGES), &broken], &gateway());
        let keys = |name: &str| rule(&snapshot, name)["policies"]["apiKeys"]["keys"].as_u64();
        assert_eq!((keys("shop/web#0"), keys("shop/other#0")), (web, other), "{broken}");
    }
}

fn secret(name: &str, certificate: &str, key: &str) -> String {
    common::secret("edge", name, certificate, key)
}

fn https(references: &str) -> String {
    listeners(&format!(
        "    - {{name: tls, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{references}]}}}}"
    ))
}

#[test]
fn certificates_are_read_and_judged() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    let pem = params.self_signed(&key).unwrap().pem();
    let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_hours(24 * days);
    for (text, now, open, message) in [
        (secret("s", &pem, &key.serialize_pem()), at(20_600), true, None),
        (secret("s", &pem, &key.serialize_pem()), at(20_900), true, Some("the certificate expired on ")),
        (
            secret("s", &pem, &key.serialize_pem()),
            at(20_000),
            true,
            Some("the certificate is not valid before "),
        ),
        (
            secret("s", &pem, &other.serialize_pem()),
            at(20_600),
            false,
            Some("`tls.key` is not the key of the certificate"),
        ),
        (
            secret("s", "nonsense", &key.serialize_pem()),
            at(20_600),
            false,
            Some("`tls.crt` holds no PEM certificate"),
        ),
        (secret("s", &pem, "nonsense"), at(20_600), false, Some("`tls.key` holds no PEM private key")),
        (
            secret("s", &pem, &key.serialize_pem()).replace("kubernetes.io/tls", "Opaque"),
            at(20_600),
            false,
            Some("type is `Opaque`"),
        ),
        (secret("other", &pem, &key.serialize_pem()), at(20_600), false, Some("there is no Secret edge/s")),
    ] {
        let snapshot = compiled(&[&https("{name: s}"), &text], &Options { now, ..gateway() });
        assert_eq!(!snapshot.listeners.is_empty(), open, "{message:?}");
        let said = problems(&snapshot);
        assert_eq!(said.len(), usize::from(message.is_some()), "{said:?}");
        assert!(message.is_none_or(|message| said[0].contains(message)), "{said:?}");
        let secret: String = key.serialize_pem().lines().nth(1).unwrap().into();
        assert!(
            !format!("{said:?}{}{snapshot:?}", snapshot.to_json()).contains(&secret),
            "the key is nowhere to be seen"
        );
    }
}

#[test]
fn a_broken_secret_keeps_the_certificate_of_before() {
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let chain = |snapshot: &Snapshot| match &snapshot.listeners[0].duty {
        Duty::Edge { tls: Some(tls), .. } => tls.certificates[0].chain.clone(),
        other => panic!("{other:?}"),
    };
    let good = secret("s", &pem, &key.serialize_pem());
    let first = compiled(&[&https("{name: s}"), &good], &gateway());
    let mut before = first.clone();
    // Twice: what was kept is kept again.
    for _ in 0..2 {
        let broken = source(&[&https("{name: s}"), &secret("s", &pem, "nonsense")]);
        before = compile(&broken, &gateway(), Some(&before));
        assert!(problems(&before)[0].contains("`tls.key` holds no PEM private key"));
        assert_eq!(chain(&before), chain(&first));
    }
    let gone = compile(&source(&[&https("{name: s}")]), &gateway(), Some(&before));
    assert!(gone.listeners.is_empty(), "a Secret that was deleted is not kept");
}

#[test]
fn authorization_policies_that_select_the_gateway_hold_at_its_listeners() {
    let policy = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: edge}
spec: {selector: {matchLabels: {app: gateway}}, action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gateway-0, namespace: edge, labels: {app: gateway}}
---
apiVersion: v1
kind: Pod
metadata: {name: other-0, namespace: edge, labels: {app: other}}
";
    for (workload, in_force) in [(Some("edge/gateway-0"), true), (Some("edge/other-0"), false), (None, false)]
    {
        let workload = workload.map(|name| name.parse().unwrap());
        let snapshot = compiled(&[WORLD, &route("web", PAGES), policy], &Options { workload, ..gateway() });
        let Duty::Edge { guard, .. } = &snapshot.listeners[0].duty else { panic!("no edge") };
        assert_eq!(!guard.authorization.is_empty(), in_force);
    }
}

#[test]
fn of_several_certificates_each_is_shown_for_its_names() {
    let pair = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![format!("{name}.example")]).unwrap().self_signed(&key).unwrap();
        secret(name, &certificate.pem(), &key.serialize_pem())
    };
    let snapshot = compiled(&[&https("{name: a}, {name: b}"), &pair("a"), &pair("b")], &gateway());
    assert_eq!(snapshot.to_json()["listeners"][0]["certificates"], json!(["a.example", "*", "b.example"]));
}

#[test]
fn endpoints_that_did_not_change_keep_their_count() {
    let texts = [
        WORLD,
        &route(
            "web",
            "[{backendRefs: [{name: pages, port: 9080}]}, {backendRefs: [{name: plain, port: 80}]}]",
        ),
    ];
    let endpoint = |snapshot: &Snapshot, rule: usize| {
        Arc::clone(&rules(snapshot)[rule].backends[0].backend.endpoints().unwrap()[0])
    };
    let first = compiled(&texts, &gateway());
    let moved = WORLD.replace("10.0.2.1", "10.0.2.2");
    let second = compile(&source(&[&moved, texts[1]]), &gateway(), Some(&first));
    assert!(Arc::ptr_eq(&endpoint(&first, 0), &endpoint(&second, 0)));
    assert!(!Arc::ptr_eq(&endpoint(&first, 1), &endpoint(&second, 1)));
    let without_identity = compile(
        &source(&texts),
        &Options { scenario: Some(towpath_config::Scenario::InCluster), has_identity: false, ..gateway() },
        Some(&second),
    );
    assert!(
        !Arc::ptr_eq(&endpoint(&second, 0), &endpoint(&without_identity, 0)),
        "another transport is another endpoint"
    );
}

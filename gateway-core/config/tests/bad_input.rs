//! What is wrong is said with file, line, column and advice, and takes nothing else down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, gateway, problems, route, rule, source, status};
use proptest::prelude::*;
use serde_json::Value;
use towpath_config::{Options, Role, Source, compile};

fn only(text: &str) -> String {
    let snapshot = compiled(&[text], &gateway());
    let problems = problems(&snapshot);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n";

#[test]
fn every_finding_tells_where_and_what_was_meant() {
    for (text, expected) in [
        (
            format!("{ROUTE}  rules:\n  - backendRef: []\n"),
            "error: 0.yaml:6:5: HTTPRoute default/r: unknown field `backendRef` (did you mean `backendRefs`?)",
        ),
        (
            format!("# one\n---\n{ROUTE}  hostnames: ['a..b']\n"),
            "error: 0.yaml:7:15: HTTPRoute default/r: `a..b` is not a host name: a DNS name, with at most a `*.` in front",
        ),
        (
            format!("{ROUTE}  rules: [{{matches: [{{path: {{type: Prefix, value: /}}}}]}}]\n"),
            "error: 0.yaml:5:36: HTTPRoute default/r: unknown value `Prefix` (known: Exact, PathPrefix, RegularExpression)",
        ),
        (
            format!("{ROUTE}  rules: [{{matches: [{{path: {{type: RegularExpression, value: '('}}}}]}}]\n"),
            "error: 0.yaml:5:62: HTTPRoute default/r: `(` is not a regular expression: unclosed group",
        ),
        (
            format!("{ROUTE}  rules: [{{timeouts: {{request: 1s, backendRequest: 2s}}}}]\n"),
            "error: 0.yaml:5:52: HTTPRoute default/r: backendRequest is longer than request, which covers all tries",
        ),
        (
            format!("{ROUTE}  rules: [{{timeouts: {{request: 1 second}}}}]\n"),
            "error: 0.yaml:5:32: HTTPRoute default/r: `1 second` is not a duration such as 10s, 500ms or 1h30m",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoutes\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:2:7: unknown kind `HTTPRoutes`: the object has no effect (did you mean `HTTPRoute`?)",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v2\nkind: HTTPRoute\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:1:13: version `v2` of this kind is not read (read are v1, v1beta1, v1alpha2, v1alpha3)",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: r}\n".into(),
            "warning: 0.yaml:2:7: ServiceEntry is not served yet: it has no effect",
        ),
        ("kind: Service\nmetadata: {name: r}\n".into(), "error: 0.yaml:1:7: missing field `apiVersion`"),
        ("apiVersion: v1\nkind: Service\nspec: {}\n".into(), "error: 0.yaml:3:1: Service: missing field `metadata`"),
        (
            "apiVersion: towpath.dev/v1alpha1\nkind: Consumer\nmetadata: {name: a}\nspec: {apiKeys: [{key: hunter2}]}\n".into(),
            "error: 0.yaml:4:24: Consumer default/a: a plain key does not belong in a resource \
             (store its digest only, as `sha256`: printf %s KEY | sha256sum)",
        ),
        (
            "apiVersion: towpath.dev/v1alpha1\nkind: Consumer\nmetadata: {name: a}\nspec: {apiKeys: [{sha256: hunter2}]}\n".into(),
            "error: 0.yaml:4:27: Consumer default/a: `sha256` is not 64 hexadecimal digits: is this the key itself? \
             (store its digest only, as `sha256`: printf %s KEY | sha256sum)",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: []\n".into(),
            "error: 0.yaml:2:7: lists of objects are not read (write each object as a document of its own, with `---` between them)",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems: []\n".into(),
            "error: 0.yaml:2:7: lists of objects are not read (write each object as a document of its own, with `---` between them)",
        ),
        (
            "apiVersion: towpath.dev/v1alpha1\nkind: consumers\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:2:7: unknown kind `consumers`: the object has no effect (did you mean `Consumer`?)",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: authorizationpolicy\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:2:7: AuthorizationPolicy default/r: unknown kind `authorizationpolicy`; everything in its namespace is \
             refused until it is mended (did you mean `AuthorizationPolicy`?)",
        ),
        (
            "apiVersion: security.istio.io\nkind: PeerAuthentication\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:1:13: PeerAuthentication default/r: `security.istio.io` has no version; STRICT holds in its namespace \
             until it is mended (read are v1, v1beta1)",
        ),
        (
            "apiVersion: gateway.networking.k8s.io\nkind: HTTPRoute\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:1:13: `gateway.networking.k8s.io` has no version (read are v1, v1beta1, v1alpha2, v1alpha3)",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: Policy\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:2:7: unknown kind `Policy`: the object has no effect \
             (known: PeerAuthentication, AuthorizationPolicy, RequestAuthentication)",
        ),
        (
            "apiVersion: networking.istio.oi/v1\nkind: WorkloadEntry\nmetadata: {name: r}\n".into(),
            "error: 0.yaml:1:13: unknown group `networking.istio.oi`: the object has no effect (did you mean `networking.istio.io`?)",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {name: r}\n".into(),
            "warning: 0.yaml:2:7: EnvoyFilter of `networking.istio.io` is not read: it has no effect (remove it if nobody else reads it)",
        ),
        (
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: r}\n".into(),
            "warning: 0.yaml:2:7: Telemetry of `telemetry.istio.io` is not read: it has no effect (remove it if nobody else reads it)",
        ),
        (
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XMesh\nmetadata: {name: r}\n".into(),
            "warning: 0.yaml:2:7: XMesh of `gateway.networking.x-k8s.io` is not read: it has no effect (known: XBackendTrafficPolicy)",
        ),
        (format!("{ROUTE}  rules: [\n"), "error: 0.yaml:5:10: unclosed bracket '['"),
    ] {
        assert_eq!(only(&text), expected, "{text}");
    }
}

#[test]
fn references_to_nothing_are_found_where_they_are_written() {
    let text = route(
        "web",
        "\n  - backendRefs: [{name: nothing, port: 1}]\n  - backendRefs: [{name: pages, port: 1}]\n",
    );
    let text = text.replace("{name: gw, namespace: edge}", "{name: gw, namespace: edge}, {name: other}");
    let policy = "apiVersion: towpath.dev/v1alpha1\nkind: ApiKeyPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  targetRefs:\n  - {kind: HTTPRoute, name: wbe}\n  - {kind: HTTPRoute, name: web, sectionName: x}\n  - {kind: Service, name: web}\n  consumers: [carol]\n";
    let snapshot = compiled(&[WORLD, &text, policy], &gateway());
    assert_eq!(
        problems(&snapshot),
        [
            "error: 1.yaml:5:52: HTTPRoute shop/web: there is no Gateway shop/other",
            "error: 1.yaml:7:26: HTTPRoute shop/web: there is no Service shop/nothing",
            "error: 1.yaml:8:26: HTTPRoute shop/web: Service shop/pages has no port 1",
            "error: 2.yaml:6:29: ApiKeyPolicy shop/p: there is no HTTPRoute shop/wbe to attach to",
            "error: 2.yaml:7:29: ApiKeyPolicy shop/p: HTTPRoute shop/web has no section `x` to attach to",
            "error: 2.yaml:8:27: ApiKeyPolicy shop/p: a policy is attached to Gateway, HTTPRoute, GRPCRoute, not to `Service`",
            "error: 2.yaml:9:15: ApiKeyPolicy shop/p: there is no Consumer shop/carol",
        ]
    );
}

#[test]
fn a_broken_document_takes_no_other_down() {
    let texts = [
        WORLD,
        "kind: [\n---\n",
        &format!(
            "{}---\n{ROUTE}  nonsense: 1\n",
            route("web", "[{backendRefs: [{name: pages, port: 9080}]}]")
        ),
    ];
    let snapshot = compiled(&texts, &gateway());
    assert_ne!(rule(&snapshot, "shop/web#0"), Value::Null);
    assert_eq!(snapshot.errors().count(), 2);
}

#[test]
fn the_first_of_two_objects_stays() {
    let second = route("web", "[{name: second}]");
    let snapshot = compiled(&[WORLD, &route("web", "[{name: first}]"), &second], &gateway());
    assert_ne!(rule(&snapshot, "shop/web#first"), Value::Null);
    assert_eq!(rule(&snapshot, "shop/web#second"), Value::Null);
    assert_eq!(
        problems(&snapshot),
        [
            "error: 2.yaml:1:1: HTTPRoute shop/web: is there twice: the one at 1.yaml:1 stays in force (remove or rename one of them)"
        ]
    );
}

#[test]
fn there_is_one_mesh_at_most() {
    let mesh = |name| format!("apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: {name}}}\n");
    let snapshot = compiled(&[&mesh("a"), &mesh("b")], &gateway());
    assert_eq!(
        problems(&snapshot),
        ["error: 1.yaml:1:1: Mesh b: there is one Mesh at most: a holds (remove this one)"]
    );
}

#[test]
fn weights_that_are_all_zero_are_noticed() {
    let rules = "[{backendRefs: [{name: pages, port: 9080, weight: 0}]}]";
    let snapshot = compiled(&[WORLD, &route("web", rules)], &gateway());
    assert_eq!(
        problems(&snapshot),
        ["warning: 1.yaml:6:33: HTTPRoute shop/web: every weight is 0: requests end as 500"]
    );
}

#[test]
fn lists_are_as_long_as_the_definition_allows_and_no_longer() {
    let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(", "));
    let matching = |matches: usize| {
        format!("{{matches: {}, backendRefs: [{{name: pages, port: 9080}}]}}", list("{}", matches))
    };
    for (rules, message) in [
        (list(&matching(8), 16), None),
        (
            list(&matching(1), 17),
            Some("there are 17 rules, and 16 are allowed (split the route into several)"),
        ),
        (list(&matching(64), 2), None),
        (list(&matching(65), 1), Some("there are 65 matches in one rule, and 64 are allowed")),
        (list(&matching(43), 3), Some("there are 129 matches in all rules, and 128 are allowed")),
    ] {
        let found = problems(&compiled(&[WORLD, &route("web", &rules)], &gateway()));
        match message {
            Some(message) => assert!(found.iter().any(|problem| problem.contains(message)), "{found:?}"),
            None => assert_eq!(found, Vec::<String>::new()),
        }
    }
}

#[test]
fn an_expression_that_is_wrong_or_too_large_refuses_its_route_and_no_other() {
    let regex = |value: &str| {
        let path = format!("{{path: {{type: RegularExpression, value: '{value}'}}}}");
        route("bad", &format!("[{{matches: [{path}], backendRefs: [{{name: pages, port: 9080}}]}}]"))
    };
    let good = route("good", "[{backendRefs: [{name: pages, port: 9080}]}]");
    for value in ["/(", "/(?=x)", "/(((a{999}){999}){999})"] {
        let snapshot = compiled(&[WORLD, &regex(value), &good], &gateway());
        let found = problems(&snapshot);
        assert!(found.len() == 1 && found[0].starts_with("error: 1.yaml:6:"), "{value}: {found:?}");
        assert!(!rule(&snapshot, "shop/good#0").is_null());
        assert!(rule(&snapshot, "shop/bad#0").is_null());
    }
}

#[test]
fn other_documents_are_left_alone() {
    let texts = [
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {}\nanything: [1, {a: ~}]\n",
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, managedFields: [{x: 1}]}\nspec: {clusterIP: 1.2.3.4, newField: 1, ports: [{port: 1, nodePort: 2}]}\nstatus: {loadBalancer: {}}\n",
        "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"j\"}, \"spec\": {\"ports\": [{\"port\": 1}]}}",
        "# nothing\n---\n---\n",
    ];
    assert_eq!(problems(&compiled(&texts, &gateway())), Vec::<String>::new());
}

#[test]
fn the_last_good_version_of_a_broken_object_stays() {
    let good =
        |path| route("web", &format!("[{{name: {path}, backendRefs: [{{name: pages, port: 9080}}]}}]"));
    let first = compiled(&[WORLD, &good("one")], &gateway());
    let broken = format!("{}  nonsense: 1\n", good("two"));
    let second = compile(&source(&[WORLD, &broken]), &gateway(), Some(&first));
    assert_ne!(rule(&second, "shop/web#one"), Value::Null);
    assert_eq!(
        problems(&second),
        [
            "error: 1.yaml:7:3: HTTPRoute shop/web: unknown field `nonsense`; the last good version of the object stays in force (known: parentRefs, hostnames, rules, useDefaultGateways)"
        ]
    );
    // It stays as long as the file is broken, even so broken that nobody can tell what it holds.
    let third = compile(&source(&[WORLD, "{{{"]), &gateway(), Some(&second));
    assert_ne!(rule(&third, "shop/web#one"), Value::Null);
    let mended = compile(&source(&[WORLD, &good("three")]), &gateway(), Some(&third));
    assert_eq!((problems(&mended).len(), rule(&mended, "shop/web#one")), (0, Value::Null));
    assert_ne!(rule(&mended, "shop/web#three"), Value::Null);
    let removed = compile(&source(&[WORLD, ""]), &gateway(), Some(&mended));
    assert_eq!(rule(&removed, "shop/web#three"), Value::Null);
}

#[test]
fn a_broken_route_says_so_in_its_status() {
    let broken = route("web", "[{name: a, nonsense: 1}]");
    let parents = status(&compiled(&[WORLD, &broken], &gateway()), "HTTPRoute", "web")["parents"].clone();
    assert_eq!(common::condition(&parents[0]["conditions"], "Accepted"), "False/UnsupportedValue");
}

fn roles() -> [Options; 3] {
    let workload = Some("shop/pages-0".parse().unwrap());
    let map = Some("edge/gw:80=127.0.0.1:1,shop/pages:9080=127.0.0.1:2".parse().unwrap());
    let inbound = vec!["9080=127.0.0.1:3>127.0.0.1:4".parse().unwrap()];
    let sidecar = Options { workload, port_map: map, ..Options::new(Role::Sidecar { inbound }) };
    [gateway(), sidecar, Options::new(Role::Ingress)]
}

/// YAML made of the words that the compiler knows, in places where they may make no sense.
fn yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("name"),
        Just("kind"),
        Just("spec"),
        Just("rules"),
        Just("matches"),
        Just("path"),
        Just("value"),
        Just("/a"),
        Just("hostnames"),
        Just("*.a"),
        Just("parentRefs"),
        Just("gw"),
        Just("Gateway"),
        Just("HTTPRoute"),
        Just("9080"),
        Just("backendRefs"),
        Just("filters"),
        Just("type"),
        Just("1s"),
        Just("~"),
        Just("&x"),
        Just("*x"),
        Just("|"),
        Just("-"),
    ];
    let piece = prop_oneof![
        Just(": "),
        Just("\n"),
        Just("\n  "),
        Just("- "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("\n---\n"),
        Just("'"),
        Just("\t")
    ];
    proptest::collection::vec((word, piece), 0..40)
        .prop_map(|parts| parts.into_iter().flat_map(|(a, b)| [a, b]).collect::<Vec<_>>().concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for options in roles() {
            compile(&Source::from_files(vec![("a".into(), text.clone())]), &options, None);
        }
    }

    #[test]
    fn no_yaml_makes_it_panic(spec in yaml(), kind in prop_oneof![Just("HTTPRoute"), Just("Gateway"), Just("GRPCRoute")]) {
        let text = format!("apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  {spec}\n");
        for options in roles() {
            compile(&source(&[WORLD, &text, &spec]), &options, None).to_json();
        }
    }

    #[test]
    fn no_cut_of_a_good_file_makes_it_panic(at in 0..WORLD.len(), insert in ".{0,6}") {
        let text = WORLD.get(..at).map(|head| format!("{head}{insert}{}", &WORLD[at..])).unwrap_or_default();
        for options in roles() {
            let snapshot = compile(&source(&[&text]), &options, None);
            compile(&source(&[WORLD]), &options, Some(&snapshot));
        }
    }
}

#[test]
fn a_path_that_is_too_long_takes_down_its_route_alone() {
    let long = "/a".repeat(100_000);
    for kind in ["PathPrefix", "Exact"] {
        let long = route("long", &format!("[{{matches: [{{path: {{type: {kind}, value: {long}}}}}]}}]"));
        let good = route("good", "[{matches: [{path: {value: /good}}]}]");
        let snapshot = compiled(&[WORLD, &long, &good], &gateway());
        let said = problems(&snapshot);
        assert!(said.iter().any(|problem| problem.contains("a path passes 1024 bytes")), "{kind}");
        assert_eq!(rule(&snapshot, "shop/long#0"), Value::Null);
        assert_ne!(rule(&snapshot, "shop/good#0"), Value::Null);
    }
}

//! What keeps something shut keeps it shut when it cannot be read: from the start, and as far as it can be told what it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, gateway, problems, route, rule, sidecar, source};
use towpath_auth::Facts;
use towpath_config::{Duty, Snapshot, compile};
use towpath_mesh_mtls::MtlsMode;

const GOOD: &str = "apiVersion: security.istio.io/v1
kind: KIND
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: none}}}
";

/// What is exchanged for what in a good policy, so that it is not good any more.
const DEFECTS: &[(&str, &str)] = &[
    ("spec: {", "spec: {nonsense: 1, "),
    ("namespace: shop}", "namespace: shop, creationTimestamp: zz}"),
    ("namespace: shop}", "namespace: shop, labels: 5}"),
    ("namespace: shop}", "namespace: shop, nonsense: 1}"),
    ("security.istio.io/v1", "v1"),
    ("istio.io/v1", "istio/v1"),
    ("name: p, ", ""),
    ("name: p", "name: [p]"),
    ("istio.io/v1", "istio.io/v2"),
    ("istio.io/v1", "istio.io"),
    ("apiVersion: security.istio.io/v1\n", ""),
    ("istio.io/v1", "istio.oi/v1"),
    ("kind: ", "kind: X"),
    ("Authentication", "authentication"),
    ("AuthorizationPolicy", "authorizationpolicy"),
    ("none}}}", "none}}"),
    ("none}}}", "none}}}}"),
    ("app: none", "app: 'none"),
    ("app: none", "app: none, app: none"),
    (
        "metadata: {name: p, namespace: shop}\n",
        "metadata:\n  labels:\n    namespace: other\n   x: [\n  namespace: shop\n",
    ),
    (
        "metadata: {name: p, namespace: shop}",
        "metadata:\n  name: p\n  namespace: shop # here\n  labels: {namespace: other}",
    ),
    ("spec: {", "spec: {\n"),
];

/// Those that leave nothing of the namespace.
const WITHOUT_NAMESPACE: &[(&str, &str)] = &[
    ("namespace: shop}", "namespace: [shop]}"),
    ("namespace: shop", "namespce: shop"),
    ("namespace: shop", "Namespace: shop"),
    ("namespace: shop", "namespace: Shop"),
    ("namespace: shop", "namespace: 'shop '"),
    ("namespace: shop", "namespace: '${NAMESPACE}'"),
    ("metadata: {name: p, namespace: shop}\n", ""),
    ("metadata: {name: p, namespace: shop}", "metadata: shop"),
    ("name: p, namespace: shop}", "name: p, namespace: shop, namespace: other}"),
    ("name: p, namespace: shop}", "name: p, namespace: shop/"),
    ("spec: {", "metadata: {namespace: other}\nspec: {"),
];

/// The texts that defects make of a policy, as far as it has what they are in.
fn all_broken(kind: &str, defects: &[(&'static str, &'static str)]) -> Vec<String> {
    let texts = defects.iter().map(|defect| broken(kind, *defect));
    texts.filter(|text| *text != GOOD.replace("KIND", kind)).collect()
}

fn broken(kind: &str, (good, bad): (&str, &str)) -> String {
    let text = GOOD.replace("KIND", kind).replacen(good, bad, 1);
    // A policy in which one of the defects of braces alone is none would prove nothing.
    let is_spaced = bad.starts_with("metadata:\n  name") || bad == "spec: {\n";
    if is_spaced { text.replace("none}}}", "none}}") } else { text }
}

fn at_pages(text: &str) -> Snapshot {
    compiled(&[WORLD, text], &sidecar("shop/pages-0", ""))
}

/// Whether anything passes at the pod, and in which mode it is asked for its identity.
fn in_force(snapshot: &Snapshot) -> (bool, MtlsMode) {
    let duty = snapshot.listeners.iter().find_map(|listener| match &listener.duty {
        Duty::Inbound { guard, mode, .. } => Some((guard.authorization.clone(), *mode)),
        _ => None,
    });
    let (policies, mode) = duty.unwrap();
    (policies.evaluate(&Facts::default()).allowed, mode)
}

/// What holds where a policy of this kind cannot be read, and how it is told.
fn shut(kind: &str) -> ((bool, MtlsMode), &'static str) {
    match kind {
        "PeerAuthentication" => ((true, MtlsMode::Strict), "STRICT holds in"),
        _ => ((false, MtlsMode::Permissive), "everything in"),
    }
}

const KINDS: [&str; 3] = ["AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication"];

#[test]
fn a_policy_that_cannot_be_read_shuts_its_namespace() {
    for kind in KINDS {
        let open = at_pages(&GOOD.replace("KIND", kind));
        assert_eq!((in_force(&open), problems(&open)), ((true, MtlsMode::Permissive), vec![]), "{kind}");
        for text in all_broken(kind, DEFECTS) {
            let snapshot = at_pages(&text);
            let (expected, told) = shut(kind);
            assert_eq!(in_force(&snapshot), expected, "{text}");
            let found = problems(&snapshot);
            assert_eq!(found.len(), 1, "{text} {found:?}");
            let told = format!("{told} its namespace");
            assert!(found[0].contains(kind) && found[0].contains(&told), "{text} {found:?}");
            let elsewhere = at_pages(&text.replace("shop", "elsewhere"));
            assert_eq!(in_force(&elsewhere), (true, MtlsMode::Permissive), "{text}");
            let root = at_pages(&text.replace("shop", "istio-system"));
            assert_eq!(in_force(&root), expected, "{text}");
        }
    }
}

#[test]
fn one_that_does_not_even_tell_its_namespace_shuts_the_mesh() {
    for kind in KINDS {
        for text in all_broken(kind, WITHOUT_NAMESPACE) {
            let snapshot = at_pages(&text);
            let (expected, told) = shut(kind);
            assert_eq!(in_force(&snapshot), expected, "{text}");
            let found = problems(&snapshot);
            let told = format!("{told} the mesh, for its namespace cannot be told");
            assert!(found.len() == 1 && found[0].contains(&told), "{text} {found:?}");
        }
    }
}

#[test]
fn one_that_runs_into_another_object_is_not_lost() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
    for kind in KINDS {
        let policy = GOOD.replace("KIND", kind);
        for text in [service.to_owned() + &policy, policy + service] {
            assert_eq!(in_force(&at_pages(&text)), shut(kind).0, "{text}");
        }
    }
}

#[test]
fn what_speaks_of_kinds_is_none() {
    for text in [
        "resources: [a.yaml]\npatches:\n- target:\n    kind: AuthorizationPolicy\n  path: [\n",
        "templates:\n  mesh:\n    kind: Mesh\n  x: [\n",
    ] {
        assert_eq!(in_force(&at_pages(text)), (true, MtlsMode::Permissive), "{text}");
    }
    let nested = "items: [\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {namespace: shop}\n";
    assert!(!in_force(&at_pages(nested)).0, "an object that is further in");
}

#[test]
fn a_kind_that_is_being_written_takes_nothing_out_of_force() {
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {action: DENY, rules: [{}]}\n";
    let before = at_pages(deny);
    assert!(!in_force(&before).0);
    for kind in ["Aut", "AuthPolicy", "AuthorizationPoli"] {
        let text = deny.replace("AuthorizationPolicy", kind);
        let options = sidecar("shop/pages-0", "");
        let after = compile(&source(&[WORLD, &text]), &options, Some(&before));
        assert!(!in_force(&after).0, "{kind} {:?}", problems(&after));
    }
}

#[test]
fn json_that_breaks_off_is_told_by_its_text() {
    let json = r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
"metadata": {"labels": {"namespace": "other"}, "name": "p", "namespace": "shop"},
"spec": {"targetRefs": [{"kind": "Service", "name": "x", "namespace": "other"}], "rules": [{"#;
    for text in [json.to_owned(), json.replace('\n', ""), json.replace('\n', "\n    ")] {
        let snapshot = at_pages(&text);
        assert!(!in_force(&snapshot).0, "{text}");
        let found = problems(&snapshot);
        assert!(found[0].contains("everything in its namespace is refused"), "{found:?}");
        assert!(in_force(&at_pages(&text.replace("\"shop\"", "\"far\""))).0, "{text}");
    }
}

#[test]
fn one_of_the_security_group_without_kind_counts_as_the_strictest() {
    for (good, bad) in [("kind: AuthorizationPolicy\n", ""), ("kind: A", "kind: [A"), ("kind:", "kidn:")] {
        let text = GOOD.replace("KIND", "AuthorizationPolicy").replacen(good, bad, 1);
        let snapshot = at_pages(&text);
        assert!(!in_force(&snapshot).0, "{text} {:?}", problems(&snapshot));
    }
}

#[test]
fn policies_in_a_list_shut_their_namespaces() {
    let item = |namespace: &str| {
        let text = GOOD.replace("KIND", "AuthorizationPolicy").replace("shop", namespace);
        text.trim_end().replace('\n', "\n  ")
    };
    let list = |items: &[String]| {
        format!(
            "apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n- {}\n",
            items.join("\n- ")
        )
    };
    let typed = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems: [{metadata: {name: p, namespace: shop}}]\n";
    let good = at_pages(&GOOD.replace("KIND", "AuthorizationPolicy"));
    for (text, shut, told) in [
        (list(&[item("shop")]), true, "everything in its namespace is refused"),
        (list(&[item("other"), item("shop")]), true, "everything in its namespace is refused"),
        (typed.to_owned(), true, "everything in its namespace is refused"),
        (list(&[item("other")]), false, "lists of objects are not read"),
        (
            list(&[item("shop").replace("AuthorizationPolicy", "Other")]),
            false,
            "lists of objects are not read",
        ),
        (list(&[item("other")]) + "]", true, "everything in the mesh"),
        (typed.replace("}}]", "}]"), true, "everything in the mesh"),
        (list(&["kind: [".into()]), false, ""),
    ] {
        let snapshot = at_pages(&text);
        let found = problems(&snapshot);
        assert_eq!(in_force(&snapshot).0, !shut, "{text} {found:?}");
        assert!(found.len() == 1 && found[0].contains(told), "{text} {found:?}");
        if shut && !text.contains("other") {
            let after = compile(&source(&[WORLD, &text]), &sidecar("shop/pages-0", ""), Some(&good));
            assert!(in_force(&after).0, "{text}");
            assert!(problems(&after)[0].contains("the last good version"), "{:?}", problems(&after));
        }
    }
}

#[test]
fn what_is_broken_and_no_policy_shuts_nothing() {
    let policy = GOOD.replace("KIND", "AuthorizationPolicy").replace('\n', "\n    ");
    for (text, told) in [
        ("a: [".to_owned(), Some("nothing of it is in force, be it a policy, for its kind cannot be told")),
        ("{{{".to_owned(), Some("nothing of it is in force, be it a policy, for its kind cannot be told")),
        (
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  a: |\n    {policy}\n  b: [\n"
            ),
            None,
        ),
        (route("web", "[{"), None),
        ("apiVersion: apps/v1\nkind: Deployment\nspec: [\n".into(), None),
        ("apiVersion: other.example/v1\nkind: AuthorizationPolicy\nspec: [\n".into(), None),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, labels: 5}\n"
                .into(),
            None,
        ),
    ] {
        let snapshot = at_pages(&text);
        assert_eq!(in_force(&snapshot), (true, MtlsMode::Permissive), "{text}");
        let found = problems(&snapshot);
        assert_eq!(found.len(), 1, "{text} {found:?}");
        assert_eq!(found[0].contains("in force"), told.is_some(), "{found:?}");
        assert!(found[0].contains(told.unwrap_or_default()), "{found:?}");
    }
}

#[test]
fn the_last_good_version_of_a_policy_stays() {
    for kind in KINDS {
        let first = at_pages(&GOOD.replace("KIND", kind));
        for text in all_broken(kind, &[DEFECTS, WITHOUT_NAMESPACE].concat()) {
            let second = compile(&source(&[WORLD, &text]), &sidecar("shop/pages-0", ""), Some(&first));
            assert_eq!(in_force(&second), (true, MtlsMode::Permissive), "{text}");
            let found = problems(&second);
            assert!(found[0].contains("the last good version of the object stays in force"), "{found:?}");
            let two = format!("{}---\n{text}", GOOD.replace("KIND", kind).replace("name: p", "name: q"));
            let more = compile(&source(&[WORLD, &two]), &sidecar("shop/pages-0", ""), Some(&second));
            assert_eq!(in_force(&more), (true, MtlsMode::Permissive), "{text}");
            let new = format!("{}---\n{}", GOOD.replace("KIND", kind), text.replace("name: p", "name: q"));
            let new = compile(&source(&[WORLD, &new]), &sidecar("shop/pages-0", ""), Some(&first));
            assert_eq!(in_force(&new), shut(kind).0, "what never was good has no good version: {text}");
        }
    }
}

#[test]
fn a_request_authentication_that_does_not_tell_where_it_holds_shuts_its_namespace() {
    for targets in [
        "selector: {matchLabels: {app: none}}, targetRefs: [{kind: Service, name: pages}]",
        "targetRefs: [{kind: Pod, name: pages}]",
    ] {
        let text = GOOD
            .replace("KIND", "RequestAuthentication")
            .replace("selector: {matchLabels: {app: none}}", targets);
        let snapshot = at_pages(&text);
        assert!(!in_force(&snapshot).0, "{text}");
        let found = problems(&snapshot);
        assert!(found[0].contains("everything in the namespace is refused until it is mended"), "{found:?}");
        assert!(in_force(&at_pages(&text.replace("namespace: shop", "namespace: other"))).0, "{text}");
    }
}

#[test]
fn a_mesh_that_cannot_be_read_serves_nothing() {
    let mesh = "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec: {strict: true}\n";
    for (good, bad) in
        [("true}", "true"), ("name: m", "name: m, labels: 5"), ("v1alpha1", "v1"), ("name: m", "")]
    {
        let snapshot = at_pages(&mesh.replace(good, bad));
        assert!(snapshot.listeners.is_empty() && snapshot.has_errors(), "{bad}");
    }
}

#[test]
fn an_api_key_policy_that_cannot_be_read_keeps_its_routes_shut() {
    let keys = "apiVersion: towpath.dev/v1alpha1\nkind: ApiKeyPolicy\nmetadata: {name: k, namespace: shop}\nspec: {targetRefs: [{kind: HTTPRoute, name: web}], consumers: []}\n";
    let web = route("web", "[{backendRefs: [{name: pages, port: 9080}]}]");
    let asked = |text: &str| {
        let snapshot = compiled(&[WORLD, &web, text], &gateway());
        !rule(&snapshot, "shop/web#0")["policies"]["apiKeys"].is_null()
    };
    for (good, bad, locks) in [
        ("", "", true),
        ("[]}", "[", true),
        ("namespace: shop}", "namespace: shop, labels: 5}", true),
        ("name: k, namespace: shop}", "name: k, namespace: [shop]}", true),
        ("namespace: shop}", "namespace: other, labels: 5}", false),
    ] {
        assert_eq!(asked(&keys.replacen(good, bad, 1)), locks, "{bad}");
    }
    assert!(!asked(""));
}

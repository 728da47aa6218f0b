//! `RequestAuthentication`: whose tokens are asked for first, and how their keys are fetched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use common::{WORLD, compiled, sidecar, source};
use towpath_config::{Duty, Snapshot, compile};

fn policy(name: &str, namespace: &str, created: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{created}-01-01T00:00:00Z'}}\nspec: {{jwtRules: [{rules}]}}\n---\n"
    )
}

fn at_pages(text: &str) -> Snapshot {
    compiled(&[WORLD, text], &sidecar("shop/pages-0", ""))
}

/// Policy and issuer of every rule, in the order in which they are asked.
fn rules(snapshot: &Snapshot) -> Vec<String> {
    let guard = snapshot.listeners.iter().find_map(|listener| match &listener.duty {
        Duty::Inbound { guard, .. } => Some(guard),
        _ => None,
    });
    let rules = guard.unwrap().authentication.rules().iter();
    rules.map(|rule| format!("{} {}", rule.name, rule.issuer)).collect()
}

#[test]
fn the_issuer_that_sorts_first_is_asked_first() {
    let rule = |issuer: &str| format!("{{issuer: {issuer}, jwks: '{{\"keys\": []}}'}}");
    let older = policy("z", "shop", "2020", &format!("{}, {}", rule("c"), rule("b")));
    let newer = policy("a", "istio-system", "2021", &format!("{}, {}", rule("b"), rule("a")));
    let snapshot = at_pages(&format!("{newer}{older}"));
    assert_eq!(rules(&snapshot), ["istio-system/a a", "shop/z b", "istio-system/a b", "shop/z c"]);
}

#[test]
fn a_new_limit_of_time_holds_and_keeps_the_keys() {
    let text = |timeout: &str| {
        policy("r", "shop", "2020", &format!("{{issuer: i, jwksUri: 'https://i.example/k'{timeout}}}"))
    };
    let (mut last, mut keys) = (None, None);
    for (timeout, seconds) in [("", 5), (", timeout: 2s", 2), (", timeout: 3s", 3), ("", 5)] {
        let source = source(&[WORLD, &text(timeout)]);
        let snapshot = compile(&source, &sidecar("shop/pages-0", ""), last.as_ref());
        let remote = snapshot.remote_jwks();
        assert_eq!((remote.len(), remote[0].timeout), (1, Duration::from_secs(seconds)), "{timeout}");
        let first = keys.get_or_insert_with(|| remote[0].keys.clone());
        first.store(towpath_auth::KeySet::parse(&format!(r#"{{"keys": [{{"kid": "{seconds}", "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#)).unwrap());
        let kept = format!("{:?}", remote[0].keys.snapshot());
        assert_eq!(kept, format!("{{\"{seconds}\"}}"), "the same keys, whoever fetches them");
        last = Some(snapshot);
    }
}

//! `XBackendTrafficPolicy`: what bounds the retries to a Service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;

use common::{WORLD, compiled, condition, gateway, problems, route, rule, source, status};
use serde_json::{Value, json};
use towpath_config::{Duty, Snapshot, compile};
use towpath_gateway_core::Backend;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: plain}}], {spec}}}\n"
    )
}

fn plain() -> String {
    route("web", "[{backendRefs: [{name: plain, port: 80}, {name: pages, port: 9080}]}]")
}

fn budget(snapshot: &Snapshot, place: usize) -> Value {
    rule(snapshot, "shop/web#0")["backends"][place]["retryBudget"].clone()
}

fn backend(snapshot: &Snapshot) -> Arc<Backend> {
    let Duty::Edge { routes, .. } = &snapshot.listeners[0].duty else { panic!("an edge listener") };
    Arc::clone(&routes[0].routes[0].rules[0].backends[0].backend)
}

#[test]
fn the_service_of_a_policy_has_a_budget_and_no_other_has() {
    for (spec, expected) in [
        (
            "retryConstraint: {}",
            json!({"percent": 20, "interval": "10s", "minRetries": 10, "minInterval": "1s"}),
        ),
        (
            "retryConstraint: {budget: {percent: 5, interval: 1m}, minRetryRate: {count: 3, interval: 2s}}",
            json!({"percent": 5, "interval": "60s", "minRetries": 3, "minInterval": "2s"}),
        ),
        ("sessionPersistence: {}", Value::Null),
    ] {
        let snapshot = compiled(&[WORLD, &plain(), &policy("p", spec)], &gateway());
        assert_eq!(budget(&snapshot, 0), expected);
        assert_eq!(budget(&snapshot, 1), Value::Null);
        let said = problems(&snapshot);
        assert_eq!(
            said.iter().any(|problem| problem.contains("sessionPersistence")),
            expected.is_null(),
            "{said:?}"
        );
    }
    let snapshot = compiled(&[WORLD, &plain(), &policy("p", "retryConstraint: {}")], &gateway());
    let conditions = &status(&snapshot, "XBackendTrafficPolicy", "p")["ancestors"][0]["conditions"];
    assert_eq!(condition(conditions, "Accepted"), "True/Accepted");
}

#[test]
fn a_budget_goes_on_counting_while_its_constraint_stays() {
    let texts = |spec: &str| source(&[WORLD, &plain(), &policy("p", spec)]);
    let counted = |snapshot: &Snapshot| {
        let backend = backend(snapshot);
        (0..20).filter(|_| backend.retry_budget().unwrap().retry()).count()
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let first = compile(&texts("retryConstraint: {}"), &gateway(), None);
        assert_eq!(counted(&first), 10);
        let again = compile(&texts("retryConstraint: {}"), &gateway(), Some(&first));
        assert_eq!(counted(&again), 0);
        let other = compile(&texts("retryConstraint: {minRetryRate: {count: 3}}"), &gateway(), Some(&again));
        assert_eq!(counted(&other), 3);
    });
}

#[test]
fn of_two_policies_for_a_service_the_older_holds_and_none_is_for_nothing() {
    let older = policy("b", "retryConstraint: {budget: {percent: 1}}")
        .replace("namespace: shop}", "namespace: shop, creationTimestamp: '2020-01-01T00:00:00Z'}");
    let newer = policy("a", "retryConstraint: {budget: {percent: 2}}");
    let lost = policy("c", "retryConstraint: {}").replace("name: plain", "name: gone");
    let snapshot = compiled(&[WORLD, &plain(), &older, &newer, &lost], &gateway());
    assert_eq!(budget(&snapshot, 0)["percent"], 1);
    let accepted = |name: &str| {
        condition(&status(&snapshot, "XBackendTrafficPolicy", name)["ancestors"][0]["conditions"], "Accepted")
    };
    assert_eq!((accepted("a").as_str(), accepted("b").as_str()), ("False/Conflicted", "True/Accepted"));
    assert!(problems(&snapshot).iter().any(|problem| problem.contains("there is no Service shop/gone")));
}

#[test]
fn what_cannot_be_is_refused_where_it_stands() {
    for (spec, message) in [
        ("retryConstraint: {budget: {percent: 101}}", "a percentage is 0 to 100"),
        ("retryConstraint: {budget: {interval: 500ms}}", "an interval is 1s to 1h"),
        ("retryConstraint: {minRetryRate: {count: 0}}", "the count is 1 to 1000000"),
        ("retryConstraint: {minRetryRate: {interval: 2h}}", "an interval is 1s to 1h"),
        ("retryConstrain: {}", "unknown field `retryConstrain`"),
    ] {
        let snapshot = compiled(&[WORLD, &plain(), &policy("p", spec)], &gateway());
        let said = problems(&snapshot);
        assert!(said.iter().any(|problem| problem.contains(message)), "{spec}: {said:?}");
        assert_eq!(budget(&snapshot, 0), Value::Null);
    }
}

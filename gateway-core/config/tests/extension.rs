//! `HTTPRouteFilter`: what it compiles to, and what becomes of rules whose `extensionRef` leads nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, condition, gateway, in_scenario, problems, route, rule, status};
use serde_json::json;
use towpath_config::{Options, Role, Scenario, Snapshot, compile};

const FILTER: &str =
    "apiVersion: towpath.dev/v1alpha1\nkind: HTTPRouteFilter\nmetadata: {name: f, namespace: shop}\n";
const TO_F: &str = "{type: ExtensionRef, extensionRef: {group: towpath.dev, kind: HTTPRouteFilter, name: f}}";
const PAGES: &str = "{name: pages, port: 9080}";

fn web(filters: &str, backends: &str) -> String {
    route("web", &format!("[{{filters: [{filters}], backendRefs: [{backends}]}}]"))
}

fn with(spec: &str) -> Snapshot {
    compiled(&[WORLD, &format!("{FILTER}spec: {spec}\n"), &web(TO_F, PAGES)], &gateway())
}

fn resolved(snapshot: &Snapshot) -> String {
    condition(&status(snapshot, "HTTPRoute", "web")["parents"][0]["conditions"], "ResolvedRefs")
}

#[test]
fn a_fault_is_a_setting_of_the_rule() {
    let snapshot = with(
        "{fault: {delay: {fixedDelay: 1s500ms, percentage: 0.5}, abort: {httpStatus: 503, percentage: 12.3456}}}",
    );
    assert_eq!((problems(&snapshot), resolved(&snapshot).as_str()), (Vec::new(), "True/ResolvedRefs"));
    let expected = json!({
        "delay": {"fixedDelay": "1.5s", "perMillion": 5_000},
        "abort": {"status": {"httpStatus": 503}, "perMillion": 123_456},
    });
    assert_eq!(rule(&snapshot, "shop/web#0")["policies"]["fault"], expected);
    let snapshot = with("{fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED}}}");
    let expected = json!({"delay": null, "abort": {"status": {"grpcStatus": 8}, "perMillion": 1_000_000}});
    assert_eq!(rule(&snapshot, "shop/web#0")["policies"]["fault"], expected);
}

#[test]
fn a_direct_response_needs_no_backend() {
    let filter = format!("{FILTER}spec: {{directResponse: {{status: 404, body: gone}}}}\n");
    let snapshot = compiled(&[WORLD, &filter, &web(TO_F, "")], &gateway());
    assert_eq!((problems(&snapshot), resolved(&snapshot).as_str()), (Vec::new(), "True/ResolvedRefs"));
    let policies = &rule(&snapshot, "shop/web#0")["policies"];
    assert_eq!(policies["directResponse"], json!({"status": 404, "bodyBytes": 4}));
}

#[test]
fn what_is_wrong_with_a_filter_is_said_and_its_rules_answer_500() {
    for (spec, message) in [
        ("{}", "1.yaml:1:1: HTTPRouteFilter shop/f: it has neither `fault` nor `directResponse`"),
        ("{fault: {}}", "neither `delay` nor `abort`"),
        (
            "{fault: {delay: {fixedDelay: 0s}}}",
            "1.yaml:4:36: HTTPRouteFilter shop/f: a delay is 1ms at least",
        ),
        ("{fault: {delay: {fixedDelay: 1s, percentage: 100.5}}}", "a percentage is 0 to 100"),
        ("{fault: {abort: {percentage: 5}}}", "one of `httpStatus` and `grpcStatus`"),
        ("{fault: {abort: {httpStatus: 500, grpcStatus: OK}}}", "one of `httpStatus` and `grpcStatus`"),
        ("{fault: {abort: {httpStatus: 100}}}", "100 does not end a request"),
        ("{fault: {abort: {grpcStatus: UNAVAILBLE}}}", "did you mean `UNAVAILABLE`?"),
        ("{directResponse: {status: 204, body: x}}", "an answer of status 204 has no body"),
        ("{directResponse: {status: 200, body: x, contentType: \"a\\nb\"}}", "is not a media type"),
        ("{directResponse: {status: 99}}", "99"),
        ("{directRespons: {status: 200}}", "did you mean `directResponse`?"),
    ] {
        let snapshot = with(spec);
        let problems = problems(&snapshot);
        assert!(problems.iter().any(|problem| problem.contains(message)), "{spec}: {problems:?}");
        assert!(
            problems
                .iter()
                .any(|problem| problem
                    .contains("f could not be read: requests that this rule takes end as 500")),
            "{problems:?}"
        );
        assert_eq!(resolved(&snapshot), "False/BackendNotFound", "{spec}");
        assert_eq!(rule(&snapshot, "shop/web#0")["filters"], json!(["unresolved"]), "{spec}");
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_never_left_out_in_silence() {
    let fault = format!("{FILTER}spec: {{fault: {{delay: {{fixedDelay: 1s}}}}}}\n");
    let direct = format!("{FILTER}spec: {{directResponse: {{status: 200}}}}\n");
    let redirect = "{type: RequestRedirect, requestRedirect: {}}";
    let other = TO_F.replace("name: f", "name: g");
    let slip = TO_F.replace("HTTPRouteFilter", "HTTPRouteFiltr");
    let group = TO_F.replace("towpath.dev", "example.com");
    let elsewhere = fault.replace("namespace: shop", "namespace: edge");
    for (filter, filters, backends, reason, message) in [
        (&fault, other.as_str(), PAGES, "BackendNotFound", "there is no HTTPRouteFilter shop/g"),
        (&elsewhere, TO_F, PAGES, "BackendNotFound", "there is no HTTPRouteFilter shop/f"),
        (&fault, slip.as_str(), PAGES, "InvalidKind", "did you mean `HTTPRouteFilter`?"),
        (&fault, group.as_str(), PAGES, "InvalidKind", "of `example.com`"),
        (
            &fault,
            &format!("{TO_F}, {TO_F}"),
            PAGES,
            "IncompatibleFilters",
            "a second `extensionRef` of the rule has a `fault`",
        ),
        (&direct, &format!("{redirect}, {TO_F}"), "", "IncompatibleFilters", "exclude each other"),
    ] {
        let snapshot = compiled(&[WORLD, filter, &web(filters, backends)], &gateway());
        let problems = problems(&snapshot);
        assert!(problems.iter().any(|problem| problem.contains(message)), "{filters}: {problems:?}");
        assert_eq!(resolved(&snapshot), format!("False/{reason}"));
        let rule = rule(&snapshot, "shop/web#0");
        assert!(rule["filters"].as_array().unwrap().contains(&json!("unresolved")), "{filters}: {rule}");
        assert_eq!(rule["policies"]["fault"], json!(null), "a rule that answers 500 does nothing else");
    }
    let of_backend = format!("{{name: pages, port: 9080, filters: [{TO_F}]}}");
    let snapshot = compiled(&[WORLD, &fault, &web("", &of_backend)], &gateway());
    assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false);
    let missing = compiled(&[WORLD, &web("{type: ExtensionRef}", PAGES)], &gateway());
    assert!(problems(&missing).iter().any(|problem| problem.contains("has no `extensionRef`")));
}

#[test]
fn a_filter_that_breaks_stays_as_it_was() {
    let text = |status: &str| format!("{FILTER}spec: {{directResponse: {{status: {status}}}}}\n");
    let before = compiled(&[WORLD, &text("201"), &web(TO_F, PAGES)], &gateway());
    let after =
        compile(&common::source(&[WORLD, &text("wrong"), &web(TO_F, PAGES)]), &gateway(), Some(&before));
    assert!(after.has_errors());
    assert_eq!(rule(&after, "shop/web#0")["policies"]["directResponse"]["status"], 201);
}

#[test]
fn in_front_of_an_ingress_the_ingress_carries_it_out() {
    let filter = format!("{FILTER}spec: {{fault: {{delay: {{fixedDelay: 1s}}}}}}\n");
    let texts = [WORLD, &filter, &web(TO_F, PAGES)];
    let front = compiled(&texts, &in_scenario(Scenario::Ingress, gateway()));
    assert_eq!(rule(&front, "shop/web#0")["policies"]["fault"], json!(null));
    let ingress = Options { has_identity: true, ..Options::new(Role::Ingress) };
    let behind = compiled(&texts, &in_scenario(Scenario::Ingress, ingress));
    assert_eq!(rule(&behind, "shop/web#0")["policies"]["fault"]["delay"]["fixedDelay"], "1s");
}

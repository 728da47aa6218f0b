//! `sessionPersistence` of rules: what it compiles to, and what of it is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, compiled, gateway, in_scenario, problems, route, rule};
use serde_json::json;
use towpath_config::{Options, Role, Scenario};

fn with(session: &str) -> String {
    route(
        "web",
        &format!(
            "[{{sessionPersistence: {session}, backendRefs: [{{name: pages, port: 9080}}, {{name: plain, port: 80}}]}}]"
        ),
    )
}

#[test]
fn sessions_are_a_setting_of_the_rule() {
    let text = with(
        "{sessionName: cart, absoluteTimeout: 1h, idleTimeout: 10m, cookieConfig: {lifetimeType: Permanent}}",
    );
    let snapshot = compiled(&[WORLD, &text], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    let expected = json!({"in": {"cookie": "cart"}, "absoluteTimeout": "3600s", "idleTimeout": "600s", "permanent": true});
    assert_eq!(rule(&snapshot, "shop/web#0")["policies"]["session"], expected);
    let snapshot = compiled(&[WORLD, &with("{type: Header, sessionName: X-Cart}")], &gateway());
    let expected =
        json!({"in": {"header": "x-cart"}, "absoluteTimeout": null, "idleTimeout": null, "permanent": false});
    assert_eq!(rule(&snapshot, "shop/web#0")["policies"]["session"], expected);
}

#[test]
fn a_session_without_a_name_gets_one_of_its_own_that_stays() {
    let name = |route: &str| {
        let text = with("{}").replace("name: web", &format!("name: {route}"));
        let snapshot = compiled(&[WORLD, &text], &gateway());
        rule(&snapshot, &format!("shop/{route}#0"))["policies"]["session"]["in"]["cookie"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(name("web").starts_with("session-"));
    assert_eq!(name("web"), name("web"));
    assert_ne!(name("web"), name("other"));
}

#[test]
fn what_is_wrong_with_a_session_refuses_the_route() {
    for (session, message) in [
        ("{cookieConfig: {lifetimeType: Permanent}}", "needs `absoluteTimeout`"),
        ("{type: Header, cookieConfig: {}}", "`cookieConfig` is for sessions of type Cookie"),
        ("{sessionName: 'a b'}", "`a b` is not the name of a cookie or a header"),
        ("{idleTimeout: 10ms}", "a timeout is 1s at least"),
        ("{absoluteTimeout: 0s}", "a timeout is 1s at least"),
        ("{type: Cooky}", "unknown value `Cooky` (known: Cookie, Header)"),
        ("{sessionNam: a}", "did you mean `sessionName`?"),
    ] {
        let snapshot = compiled(&[WORLD, &with(session)], &gateway());
        let problems = problems(&snapshot);
        assert!(problems.iter().any(|problem| problem.contains(message)), "{session}: {problems:?}");
        assert_eq!(rule(&snapshot, "shop/web#0"), json!(null), "{session}");
    }
}

#[test]
fn whoever_chooses_the_endpoint_keeps_the_session() {
    let text = with("{sessionName: cart}");
    let session = |scenario, options: Options| {
        let snapshot = compiled(&[WORLD, &text], &in_scenario(scenario, options));
        let told =
            problems(&snapshot).iter().any(|problem| problem.contains("a session stays with its backend"));
        (rule(&snapshot, "shop/web#0")["policies"]["session"].is_object(), told)
    };
    let ingress = Options { has_identity: true, ..Options::new(Role::Ingress) };
    assert_eq!(session(Scenario::Ingress, gateway()), (false, false));
    assert_eq!(session(Scenario::Ingress, ingress), (true, false));
    assert_eq!(session(Scenario::InCluster, gateway()), (true, false));
    assert_eq!(session(Scenario::Attached, gateway()), (true, true));
}

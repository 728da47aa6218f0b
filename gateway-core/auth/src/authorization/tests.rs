use proptest::prelude::*;

use super::*;

fn patterns(values: &[&str]) -> Vec<Pattern> {
    values.iter().map(|value| Pattern::new(value)).collect()
}

fn policy(name: &str, action: Action, rules: Vec<AuthorizationRule>) -> AuthorizationPolicy {
    AuthorizationPolicy { name: name.into(), action, rules }
}

fn from(source: Source) -> AuthorizationRule {
    AuthorizationRule { from: vec![source], ..AuthorizationRule::default() }
}

fn to(operation: Operation) -> AuthorizationRule {
    AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() }
}

fn methods(values: &[&str]) -> AuthorizationRule {
    to(Operation { methods: patterns(values), ..Operation::default() })
}

fn request<'a>(principal: Option<&'a SpiffeId>, method: &'a str, host: &'a str, path: &'a str) -> Facts<'a> {
    Facts { principal, port: Some(8080), http: Http::Request(HttpFacts { method, host: Some(host), path }) }
}

fn get() -> Facts<'static> {
    request(None, "GET", "shop.example", "/items")
}

/// Whether an ALLOW policy of this one rule lets pass. The same rule as DENY must decide the opposite.
fn holds(rule: &AuthorizationRule, facts: &Facts<'_>) -> bool {
    let with = |action| AuthorizationPolicies::new(vec![policy("a/p", action, vec![rule.clone()])]);
    let allowed = with(Action::Allow).evaluate(facts).allowed;
    assert_ne!(allowed, with(Action::Deny).evaluate(facts).allowed);
    allowed
}

#[test]
fn deny_comes_before_allow_and_no_match_of_allow_refuses() {
    use Action::{Allow, Deny};
    let all = || vec![AuthorizationRule::default()];
    let (gets, posts) = (|| vec![methods(&["GET"])], || vec![methods(&["POST"])]);
    for (policies, allowed, name, ground) in [
        (vec![], true, None, Ground::NothingForbids),
        (vec![policy("a", Allow, vec![])], false, Some("a"), Ground::NothingAllows),
        (vec![policy("a", Deny, vec![])], true, None, Ground::NothingForbids),
        (vec![policy("a", Allow, all())], true, Some("a"), Ground::Allowed),
        (vec![policy("a", Deny, all())], false, Some("a"), Ground::Denied),
        (vec![policy("a", Deny, posts())], true, None, Ground::NothingForbids),
        (vec![policy("a", Allow, posts())], false, Some("a"), Ground::NothingAllows),
        (vec![policy("a", Allow, all()), policy("d", Deny, gets())], false, Some("d"), Ground::Denied),
        (vec![policy("a", Allow, posts()), policy("b", Allow, gets())], true, Some("b"), Ground::Allowed),
        (vec![policy("a", Allow, vec![]), policy("b", Allow, gets())], true, Some("b"), Ground::Allowed),
        (
            vec![policy("d", Deny, posts()), policy("a", Allow, vec![])],
            false,
            Some("a"),
            Ground::NothingAllows,
        ),
        (
            vec![policy("a", Allow, posts()), policy("b", Allow, vec![])],
            false,
            Some("a,b"),
            Ground::NothingAllows,
        ),
        (vec![policy("a", Allow, [posts(), gets()].concat())], true, Some("a"), Ground::Allowed),
    ] {
        let verdict = AuthorizationPolicies::new(policies.clone()).evaluate(&get());
        let expected = Verdict { allowed, policy: name.map(Into::into), ground };
        assert_eq!(verdict, expected, "{policies:?}");
    }
}

#[test]
fn policies_are_walked_deny_first() {
    let policies = AuthorizationPolicies::new(vec![
        policy("a", Action::Allow, vec![]),
        policy("d", Action::Deny, vec![]),
    ]);
    assert_eq!(policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>(), ["d", "a"]);
    assert!(!policies.is_empty() && AuthorizationPolicies::default().is_empty());
}

#[test]
fn principals_and_namespaces_are_those_of_the_identity() {
    let principals = |values: &[&str]| Source { principals: patterns(values), ..Source::default() };
    let not_principals = |values: &[&str]| Source { not_principals: patterns(values), ..Source::default() };
    let namespaces = |values: &[&str]| Source { namespaces: patterns(values), ..Source::default() };
    let not_namespaces = |values: &[&str]| Source { not_namespaces: patterns(values), ..Source::default() };
    let web = Some("spiffe://td/ns/shop/sa/web");
    for (source, peer, held) in [
        (principals(&["td/ns/shop/sa/web"]), web, true),
        (principals(&["td/ns/shop/sa/Web"]), web, false),
        (principals(&["spiffe://td/ns/shop/sa/web"]), web, false),
        (principals(&["td/ns/shop/*"]), web, true),
        (principals(&["*/sa/web"]), web, true),
        (principals(&["*/sa/web"]), Some("spiffe://td/ns/shop/sa/cobweb"), false),
        (principals(&["x", "*"]), web, true),
        (principals(&["*"]), None, false),
        (not_principals(&["td/ns/shop/sa/web"]), web, false),
        (not_principals(&["td/ns/shop/sa/api"]), web, true),
        (not_principals(&["*"]), None, true),
        (namespaces(&["shop"]), web, true),
        (namespaces(&["shop"]), Some("spiffe://td/ns/workshop/sa/web"), false),
        (namespaces(&["sh*"]), web, true),
        (namespaces(&["*op"]), web, true),
        (namespaces(&["*"]), None, false),
        (namespaces(&["*"]), Some("spiffe://td/vm/one"), false),
        (namespaces(&["shop"]), Some("spiffe://td/cluster/ns/shop/vm/one"), true),
        (namespaces(&["shop"]), Some("spiffe://td/ns/shop"), false),
        (namespaces(&["sa"]), web, false),
        (not_namespaces(&["shop"]), web, false),
        (not_namespaces(&["other"]), web, true),
        (not_namespaces(&["shop"]), None, true),
    ] {
        let id: Option<SpiffeId> = peer.map(|id| id.parse().unwrap());
        let facts = request(id.as_ref(), "GET", "shop.example", "/");
        assert_eq!(holds(&from(source.clone()), &facts), held, "{source:?} {peer:?}");
    }
}

#[test]
fn all_fields_of_a_source_must_hold_and_any_source() {
    let id: SpiffeId = "spiffe://td/ns/shop/sa/web".parse().unwrap();
    let facts = request(Some(&id), "GET", "shop.example", "/");
    let source = |principal, not: &[&str], namespace| Source {
        principals: patterns(&[principal]),
        not_principals: patterns(not),
        namespaces: patterns(&[namespace]),
        ..Source::default()
    };
    let (both, half) = (source("td/*", &[], "shop"), source("td/*", &[], "other"));
    let excluded = source("td/*", &["*/web"], "shop");
    for (from, held) in [
        (vec![both.clone()], true),
        (vec![half.clone()], false),
        (vec![excluded.clone()], false),
        (vec![half, excluded, both], true),
    ] {
        assert_eq!(holds(&AuthorizationRule { from, to: vec![] }, &facts), held);
    }
}

#[test]
fn operations_are_those_of_the_request() {
    type Field = fn(&mut Operation) -> &mut Vec<Pattern>;
    let (hosts, not_hosts): (Field, Field) = (|to| &mut to.hosts, |to| &mut to.not_hosts);
    let (methods, not_methods): (Field, Field) = (|to| &mut to.methods, |to| &mut to.not_methods);
    let (paths, not_paths): (Field, Field) = (|to| &mut to.paths, |to| &mut to.not_paths);
    for (field, value, held) in [
        (methods, "GET", true),
        (methods, "get", false),
        (methods, "G*", true),
        (methods, "*", true),
        (not_methods, "GET", false),
        (not_methods, "POST", true),
        (paths, "/items", true),
        (paths, "/Items", false),
        (paths, "/it*", true),
        (paths, "*ems", true),
        (paths, "/items/*", false),
        (not_paths, "/items", false),
        (not_paths, "/other", true),
        (hosts, "SHOP.example", true),
        (hosts, "*.EXAMPLE", true),
        (hosts, "shop.example:*", false),
        (hosts, "*", true),
        (not_hosts, "Shop.*", false),
        (not_hosts, "other.example", true),
    ] {
        let mut operation = Operation::default();
        field(&mut operation).push(Pattern::new(value));
        assert_eq!(holds(&to(operation.clone()), &get()), held, "{operation:?}");
    }
}

#[test]
fn all_fields_of_an_operation_must_hold_and_any_operation() {
    let operation = |method: &str, path: &str, port| Operation {
        methods: patterns(&[method]),
        paths: patterns(&[path]),
        ports: vec![port],
        ..Operation::default()
    };
    for (to, held) in [
        (vec![operation("GET", "/items", 8080)], true),
        (vec![operation("GET", "/items", 9090)], false),
        (vec![operation("GET", "/other", 8080)], false),
        (vec![operation("POST", "/items", 8080), operation("GET", "/items", 8080)], true),
        (vec![Operation { not_ports: vec![8080], ..Operation::default() }], false),
        (vec![Operation { not_ports: vec![9090], ..Operation::default() }], true),
    ] {
        assert_eq!(holds(&AuthorizationRule { from: vec![], to }, &get()), held);
    }
}

#[test]
fn a_rule_needs_its_source_and_its_operation() {
    let from = vec![Source { not_principals: patterns(&["*"]), ..Source::default() }];
    for (method, held) in [("GET", true), ("POST", false)] {
        let rule = AuthorizationRule { from: from.clone(), ..methods(&[method]) };
        assert_eq!(holds(&rule, &get()), held, "{method}");
    }
}

#[test]
fn a_request_without_host_has_none_of_any() {
    let http = Http::Request(HttpFacts { method: "GET", host: None, path: "/" });
    let facts = Facts { http, ..get() };
    let hosts = Operation { hosts: patterns(&["*"]), ..Operation::default() };
    let not_hosts = Operation { not_hosts: patterns(&["*"]), ..Operation::default() };
    assert!(!holds(&to(hosts), &facts) && holds(&to(not_hosts), &facts));
}

/// Decisions about one rule as ALLOW and as DENY.
fn allowed(rule: &AuthorizationRule, facts: &Facts<'_>) -> (bool, bool) {
    let by =
        |action| AuthorizationPolicies::new(vec![policy("a/p", action, vec![rule.clone()])]).evaluate(facts);
    (by(Action::Allow).allowed, by(Action::Deny).allowed)
}

fn rules_of_two_layers() -> [AuthorizationRule; 5] {
    let port_and_method = |number| Operation { methods: patterns(&["GET"]), ..port(number) };
    [to(port(8080)), to(port(9090)), methods(&["GET"]), to(port_and_method(8080)), to(port_and_method(9090))]
}

fn port(port: u16) -> Operation {
    Operation { ports: vec![port], ..Operation::default() }
}

#[test]
fn without_http_an_allow_rule_that_names_it_is_void_and_a_deny_rule_widens() {
    let tcp = Facts { http: Http::None, ..get() };
    let expected = [(true, false), (false, true), (false, false), (false, false), (false, true)];
    for (rule, expected) in rules_of_two_layers().iter().zip(expected) {
        assert_eq!(allowed(rule, &tcp), expected, "{rule:?}");
    }
    // One operation that names HTTP voids its whole rule, and no other rule.
    let mixed = AuthorizationRule { from: vec![], to: [&methods(&["GET"]).to[..], &[port(8080)]].concat() };
    assert_eq!(allowed(&mixed, &tcp), (false, false));
    let apart = vec![methods(&["GET"]), to(port(8080))];
    assert!(AuthorizationPolicies::new(vec![policy("a", Action::Allow, apart)]).evaluate(&tcp).allowed);
}

#[test]
fn ahead_of_http_only_what_no_request_could_make_pass_is_refused() {
    let ahead = Facts { http: Http::Ahead, ..get() };
    let expected = [(true, false), (false, true), (true, true), (true, true), (false, true)];
    for (rule, expected) in rules_of_two_layers().iter().zip(expected) {
        assert_eq!(allowed(rule, &ahead), expected, "{rule:?}");
    }
}

#[test]
fn an_unknown_port_refuses_by_either_action() {
    let unknown = Facts { port: None, ..get() };
    let not_ports = Operation { not_ports: vec![9090], ..Operation::default() };
    assert_eq!(allowed(&to(port(8080)), &unknown), (false, false));
    assert_eq!(allowed(&to(not_ports), &unknown), (false, false));
    assert_eq!(allowed(&methods(&["GET"]), &unknown), (true, false));
}

fn any_patterns() -> impl Strategy<Value = Vec<Pattern>> {
    let values = prop::sample::select(vec!["*", "a", "b", "a*", "*b"]);
    prop::collection::vec(values.prop_map(Pattern::new), 0..3)
}

fn any_rule() -> impl Strategy<Value = AuthorizationRule> {
    let source = (any_patterns(), any_patterns());
    let operation = (any_patterns(), any_patterns(), any_patterns(), prop::collection::vec(1_u16..3, 0..2));
    (prop::collection::vec(source, 0..2), prop::collection::vec(operation, 0..3)).prop_map(|(from, to)| {
        let source =
            |(principals, not_namespaces)| Source { principals, not_namespaces, ..Source::default() };
        let operation = |(methods, not_hosts, paths, ports)| Operation {
            not_hosts,
            methods,
            paths,
            ports,
            ..Operation::default()
        };
        AuthorizationRule {
            from: from.into_iter().map(source).collect(),
            to: to.into_iter().map(operation).collect(),
        }
    })
}

fn any_policies() -> impl Strategy<Value = AuthorizationPolicies> {
    let action = prop::sample::select(vec![Action::Allow, Action::Deny]);
    let policy = (action, prop::collection::vec(any_rule(), 0..3))
        .prop_map(|(action, rules)| AuthorizationPolicy { name: "a/p".into(), action, rules });
    prop::collection::vec(policy, 0..4).prop_map(AuthorizationPolicies::new)
}

proptest! {
    #[test]
    fn what_is_refused_ahead_of_http_no_request_could_make_pass(
        policies in any_policies(), port in 1_u16..3, words in prop::collection::vec("[ab]{0,2}", 3),
    ) {
        let ahead = Facts { principal: None, port: Some(port), http: Http::Ahead };
        let http = HttpFacts { method: &words[0], host: Some(&words[1]), path: &words[2] };
        let request = Facts { http: Http::Request(http), ..ahead.clone() };
        if policies.evaluate(&request).allowed {
            prop_assert!(policies.evaluate(&ahead).allowed);
        }
    }

    #[test]
    fn the_order_of_policies_never_changes_the_decision(policies in any_policies(), port in 1_u16..3) {
        let facts = Facts { port: Some(port), ..request(None, "a", "b", "ab") };
        let reversed = AuthorizationPolicies::new(policies.iter().cloned().collect::<Vec<_>>().into_iter().rev().collect());
        prop_assert_eq!(policies.evaluate(&facts).allowed, reversed.evaluate(&facts).allowed);
    }

    #[test]
    fn what_is_not_known_never_lets_more_pass(policies in any_policies(), port in 1_u16..3) {
        let unknown = Facts { port: None, ..request(None, "a", "b", "ab") };
        let known = Facts { port: Some(port), ..unknown.clone() };
        if policies.evaluate(&unknown).allowed {
            prop_assert!(policies.evaluate(&known).allowed);
        }
    }
}

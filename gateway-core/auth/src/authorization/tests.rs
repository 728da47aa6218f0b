use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use towpath_gateway_core::{Backend, Claim, SpiffeId, Token};

use super::*;
use crate::ExternalHttp;

fn patterns(values: &[&str]) -> Vec<Pattern> {
    values.iter().map(|value| Pattern::new(value)).collect()
}

fn policy(name: &str, action: Action, rules: Vec<AuthorizationRule>) -> AuthorizationPolicy {
    AuthorizationPolicy::new(name, action, rules)
}

fn from(source: Source) -> AuthorizationRule {
    AuthorizationRule { from: vec![source], ..AuthorizationRule::default() }
}

fn to(operation: Operation) -> AuthorizationRule {
    AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() }
}

fn methods(values: &[&str]) -> AuthorizationRule {
    to(Operation { methods: Values::is(patterns(values)), ..Operation::default() })
}

fn when(condition: Condition) -> AuthorizationRule {
    AuthorizationRule { when: vec![condition], ..AuthorizationRule::default() }
}

static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

fn http<'a>(method: &'a str, host: &'a str, path: &'a str) -> HttpFacts<'a> {
    HttpFacts { method, host: Some(host), path, query: None, headers: &NO_HEADERS, token: None }
}

fn request<'a>(principal: Option<&'a SpiffeId>, method: &'a str, host: &'a str, path: &'a str) -> Facts<'a> {
    let local = Some([127, 0, 0, 1].into());
    Facts {
        principal,
        source_ip: local,
        remote_ip: local,
        destination_ip: local,
        port: Some(8080),
        server_name: None,
        http: Http::Request(http(method, host, path)),
    }
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
        let told = (verdict.allowed, verdict.policy.as_deref(), verdict.ground);
        assert_eq!(told, (allowed, name, ground), "{policies:?}");
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
fn the_rule_that_decides_is_told() {
    let rules = vec![methods(&["POST"]), methods(&["GET"])];
    for (action, rule) in [(Action::Allow, Some(1)), (Action::Deny, Some(1)), (Action::Audit, None)] {
        let verdict = AuthorizationPolicies::new(vec![policy("a", action, rules.clone())]).evaluate(&get());
        assert_eq!(verdict.rule, rule, "{action}");
    }
}

#[test]
fn audits_and_dry_runs_are_told_and_decide_nothing() {
    let all = || vec![AuthorizationRule::default()];
    let dry = |name, action, rules| AuthorizationPolicy { dry_run: true, ..policy(name, action, rules) };
    let (allow, deny) = (Action::Allow, Action::Deny);
    for (policies, allowed, audit, dry_run) in [
        (vec![policy("u", Action::Audit, all())], true, Some("u"), None),
        (vec![policy("u", Action::Audit, vec![])], true, None, None),
        (vec![dry("d", deny, all())], true, None, Some((false, Some("d")))),
        (vec![dry("d", deny, vec![])], true, None, Some((true, None))),
        (vec![dry("a", allow, all()), policy("b", allow, vec![])], false, None, Some((true, Some("a")))),
        (vec![dry("a", allow, vec![])], true, None, Some((false, Some("a")))),
        (vec![dry("d", deny, all()), policy("b", allow, vec![])], false, None, Some((false, Some("d")))),
        (vec![dry("u", Action::Audit, all())], true, None, Some((true, None))),
    ] {
        let verdict = AuthorizationPolicies::new(policies.clone()).evaluate(&get());
        let told = verdict.dry_run.as_ref().map(|told| (told.allowed, told.policy.as_deref()));
        assert_eq!(
            (verdict.allowed, verdict.audit.as_deref(), told),
            (allowed, audit, dry_run),
            "{policies:?}"
        );
    }
}

#[test]
fn custom_policies_that_match_are_to_be_asked_about() {
    let policies = AuthorizationPolicies::new(vec![
        policy("none", Action::Custom, vec![]),
        policy("posts", Action::Custom, vec![methods(&["POST"])]),
        policy("gets", Action::Custom, vec![methods(&["GET"])]),
    ]);
    assert_eq!(policies.custom(&get()).map(|policy| &*policy.name).collect::<Vec<_>>(), ["gets"]);
    assert!(policies.has_custom() && policies.evaluate(&get()).allowed);
    // Without HTTP the method is left out of both, and their provider is not there.
    let tcp = || Facts { http: Http::None, ..get() };
    let verdict = policies.evaluate(&tcp());
    assert_eq!((verdict.allowed, verdict.ground), (false, Ground::NobodyToAsk));
    assert!(policies.evaluate(&Facts { http: Http::Ahead, ..get() }).allowed);
    let grpc = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
    let http = ExternalAuthProtocol::Http(ExternalHttp::default());
    for (protocol, asked) in [(grpc, 1), (http, 0)] {
        let mut gets = policy("gets", Action::Custom, vec![methods(&["GET"])]);
        let backend = Arc::new(Backend::unresolved("auth"));
        gets.provider = Some(Arc::new(ExternalAuth::new("gets", backend, protocol)));
        let policies = AuthorizationPolicies::new(vec![gets]);
        assert_eq!((policies.custom(&tcp()).count(), policies.custom(&get()).count()), (asked, 1));
        assert!(policies.evaluate(&tcp()).allowed, "what its provider says is not decided here");
    }
}

fn pattern(value: &str) -> Vec<Pattern> {
    vec![Pattern::new(value)]
}

#[test]
fn sources_are_those_of_the_peer() {
    let principals = |value: &str| Source { principals: Values::is(pattern(value)), ..Source::default() };
    let not_principals =
        |value: &str| Source { principals: Values::not(pattern(value)), ..Source::default() };
    let namespaces = |value: &str| Source {
        namespaces: Values::is(vec![NamespacePattern::new(value)]),
        ..Source::default()
    };
    let not_namespaces = |value: &str| Source {
        namespaces: Values::not(vec![NamespacePattern::new(value)]),
        ..Source::default()
    };
    let account = |value: &str| vec![ServiceAccount::new(value, "shop")];
    let accounts = |value: &str| Source { service_accounts: Values::is(account(value)), ..Source::default() };
    let not_accounts =
        |value: &str| Source { service_accounts: Values::not(account(value)), ..Source::default() };
    let web = Some("spiffe://td/ns/shop/sa/web");
    for (source, peer, held) in [
        (principals("td/ns/shop/sa/web"), web, true),
        (principals("td/ns/shop/sa/Web"), web, false),
        (principals("spiffe://td/ns/shop/sa/web"), web, false),
        (principals("td/ns/shop/*"), web, true),
        (principals("*/sa/web"), web, true),
        (principals("*/sa/web"), Some("spiffe://td/ns/shop/sa/cobweb"), false),
        (principals("*"), web, true),
        (principals("*"), None, false),
        (not_principals("td/ns/shop/sa/web"), web, false),
        (not_principals("td/ns/shop/sa/api"), web, true),
        (not_principals("*"), None, true),
        (namespaces("shop"), web, true),
        (namespaces("*"), None, false),
        (not_namespaces("shop"), web, false),
        (not_namespaces("other"), web, true),
        (not_namespaces("shop"), None, true),
        (accounts("web"), web, true),
        (accounts("shop/web"), Some("spiffe://other/ns/shop/sa/web"), true),
        (accounts("web"), None, false),
        (not_accounts("web"), web, false),
        (not_accounts("web"), None, true),
    ] {
        let id: Option<SpiffeId> = peer.map(|id| id.parse().unwrap());
        let facts = request(id.as_ref(), "GET", "shop.example", "/");
        assert_eq!(holds(&from(source.clone()), &facts), held, "{source:?} {peer:?}");
    }
}

#[test]
fn addresses_are_those_of_packet_client_and_listener() {
    let facts = Facts {
        source_ip: Some("::ffff:10.0.0.7".parse().unwrap()),
        remote_ip: Some("203.0.113.7".parse().unwrap()),
        destination_ip: Some("2001:db8::1".parse().unwrap()),
        ..get()
    };
    let nets = |value: &str| vec![value.parse().unwrap()];
    let source = |value: &str| {
        let fields = Source { ip_blocks: Values::is(nets(value)), ..Source::default() };
        assert_eq!(
            holds(&from(fields.clone()), &facts),
            holds(&when(Condition::SourceIp(Values::is(nets(value)))), &facts)
        );
        holds(&from(fields), &facts)
    };
    let remote = |value: &str| {
        let fields = Source { remote_ip_blocks: Values::is(nets(value)), ..Source::default() };
        assert_eq!(
            holds(&from(fields.clone()), &facts),
            holds(&when(Condition::RemoteIp(Values::is(nets(value)))), &facts)
        );
        holds(&from(fields), &facts)
    };
    assert!(source("10.0.0.0/8") && source("10.9.9.9/8") && !source("203.0.113.0/24"));
    assert!(remote("203.0.113.7/32") && !remote("10.0.0.0/8"));
    assert!(holds(&when(Condition::DestinationIp(Values::is(nets("2001:db8::/32")))), &facts));
    assert!(!holds(&when(Condition::DestinationIp(Values::not(nets("2001:db8::/32")))), &facts));
}

#[test]
fn all_fields_of_a_source_must_hold_and_any_source() {
    let id: SpiffeId = "spiffe://td/ns/shop/sa/web".parse().unwrap();
    let facts = request(Some(&id), "GET", "shop.example", "/");
    let source = |principal, not: &[&str], namespace| Source {
        principals: Values { is: patterns(&[principal]), not: patterns(not) },
        namespaces: Values::is(vec![NamespacePattern::new(namespace)]),
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
        assert_eq!(holds(&AuthorizationRule { from, ..AuthorizationRule::default() }, &facts), held);
    }
}

#[test]
fn operations_are_those_of_the_request() {
    let hosts = |values| Operation { hosts: values, ..Operation::default() };
    let methods = |values| Operation { methods: values, ..Operation::default() };
    let paths = |values: Values<Pattern>| {
        let of = |list: Vec<Pattern>| list.into_iter().map(PathPattern::Plain).collect();
        Operation { paths: Values { is: of(values.is), not: of(values.not) }, ..Operation::default() }
    };
    let (is, not) = (|value| Values::is(pattern(value)), |value| Values::not(pattern(value)));
    for (operation, held) in [
        (methods(is("GET")), true),
        (methods(is("get")), false),
        (methods(is("G*")), true),
        (methods(is("*")), true),
        (methods(not("GET")), false),
        (methods(not("POST")), true),
        (paths(is("/items")), true),
        (paths(is("/Items")), false),
        (paths(is("/it*")), true),
        (paths(is("*ems")), true),
        (paths(is("/items/*")), false),
        (paths(not("/items")), false),
        (paths(not("/other")), true),
        (hosts(is("SHOP.example")), true),
        (hosts(is("*.EXAMPLE")), true),
        (hosts(is("shop.example:*")), false),
        (hosts(is("*")), true),
        (hosts(not("Shop.*")), false),
        (hosts(not("other.example")), true),
    ] {
        assert_eq!(holds(&to(operation.clone()), &get()), held, "{operation:?}");
    }
}

#[test]
fn all_fields_of_an_operation_must_hold_and_any_operation() {
    let operation = |method: &str, path: &str, port| Operation {
        methods: Values::is(patterns(&[method])),
        paths: Values::is(vec![PathPattern::new(path).unwrap()]),
        ports: Values::is(vec![port]),
        ..Operation::default()
    };
    for (to, held) in [
        (vec![operation("GET", "/items", 8080)], true),
        (vec![operation("GET", "/{*}", 8080)], true),
        (vec![operation("GET", "/items", 9090)], false),
        (vec![operation("GET", "/other", 8080)], false),
        (vec![operation("POST", "/items", 8080), operation("GET", "/items", 8080)], true),
        (vec![Operation { ports: Values::not(vec![8080]), ..Operation::default() }], false),
        (vec![Operation { ports: Values::not(vec![9090]), ..Operation::default() }], true),
    ] {
        assert_eq!(holds(&AuthorizationRule { to, ..AuthorizationRule::default() }, &get()), held);
    }
}

#[test]
fn conditions_look_at_headers_and_claims() {
    let mut headers = HeaderMap::new();
    headers.insert("x-env", HeaderValue::from_static("prod"));
    headers.append("x-twice", HeaderValue::from_static("a"));
    headers.append("x-twice", HeaderValue::from_static("b"));
    headers.insert("x-empty", HeaderValue::from_static(""));
    let text = |text: &str| Claim::Text(text.into());
    let claims = [
        ("iss", text("https://i")),
        ("sub", text("alice")),
        ("aud", Claim::List(vec![text("a1"), text("a2")])),
        ("azp", text("app")),
        ("scope", Claim::Words("read write".into())),
        ("org", Claim::Map([("name".into(), text("acme"))].into())),
    ];
    let token = Token { claims: claims.into_iter().map(|(name, claim)| (name.into(), claim)).collect() };
    let http = HttpFacts {
        headers: &headers,
        token: Some(&token),
        query: Some("a=1"),
        ..http("GET", "shop:80", "/")
    };
    let facts = Facts { server_name: Some("a.b.example"), http: Http::Request(http), ..get() };
    let header = |name: &'static str, values| Condition::Header(HeaderName::from_static(name), values);
    let claim = |path: &[&str], values| {
        Condition::RequestClaim(path.iter().map(|name| (*name).into()).collect(), values)
    };
    let (is, not) = (|value| Values::is(pattern(value)), |value| Values::not(pattern(value)));
    for (condition, held) in [
        (header("x-env", is("prod")), true),
        (header("x-env", is("pr*")), true),
        (header("x-env", not("prod")), false),
        (header("x-env", Values { is: pattern("*"), not: pattern("dev") }), true),
        (header("x-none", is("*")), false),
        (header("x-none", not("*")), true),
        (header("x-twice", is("a")), true),
        (header("x-twice", is("b")), true),
        (header("x-twice", is("a,b")), false),
        (header("x-twice", not("b")), false),
        (header("x-empty", is("*")), true),
        (header("x-empty", not("*")), false),
        (header("x-empty", is("a*")), false),
        (Condition::Method(is("GET")), true),
        (Condition::Method(is("get")), false),
        (Condition::Authority(is("shop:*")), true),
        (Condition::Authority(is("SHOP:80")), false),
        (Condition::Target(is("/?a=1")), true),
        (Condition::Target(is("/")), false),
        (Condition::Target(not("*=1")), false),
        (Condition::RequestAudiences(is("a2")), true),
        (Condition::RequestAudiences(is("a3")), false),
        (Condition::RequestPresenter(is("app")), true),
        (Condition::RequestPrincipal(Values::is(vec![RequestPrincipal::new("https://i/alice")])), true),
        (claim(&["scope"], is("write")), true),
        (claim(&["scope"], is("read write")), false),
        (claim(&["org", "name"], is("acme")), true),
        (claim(&["org", "none"], is("*")), false),
        (Condition::DestinationPort(Values::is(vec![8080])), true),
        (Condition::DestinationPort(Values::not(vec![8080])), false),
        (Condition::ServerName(is("*.example")), true),
        (Condition::ServerName(is("a.b")), false),
        (Condition::SourcePrincipal(is("*")), false),
        (Condition::SourceNamespace(Values::not(vec![NamespacePattern::new("a")])), true),
        (Condition::SourceServiceAccount(Values::is(vec![ServiceAccount::new("a", "b")])), false),
    ] {
        assert_eq!(holds(&when(condition.clone()), &facts), held, "{condition:?}");
    }
    let both = AuthorizationRule {
        when: vec![header("x-env", is("prod")), header("x-none", is("*"))],
        ..AuthorizationRule::default()
    };
    assert!(!holds(&both, &facts));
}

#[test]
fn a_rule_needs_its_source_and_its_operation() {
    let from = vec![Source { principals: Values::not(patterns(&["*"])), ..Source::default() }];
    for (method, held) in [("GET", true), ("POST", false)] {
        let rule = AuthorizationRule { from: from.clone(), ..methods(&[method]) };
        assert_eq!(holds(&rule, &get()), held, "{method}");
    }
}

#[test]
fn a_request_without_host_has_none_of_any() {
    let http = Http::Request(HttpFacts { host: None, ..http("GET", "", "/") });
    let facts = Facts { http, ..get() };
    let hosts = Operation { hosts: Values::is(patterns(&["*"])), ..Operation::default() };
    let not_hosts = Operation { hosts: Values::not(patterns(&["*"])), ..Operation::default() };
    assert!(!holds(&to(hosts), &facts) && holds(&to(not_hosts), &facts));
}

/// Decisions about one rule as ALLOW and as DENY.
fn allowed(rule: &AuthorizationRule, facts: &Facts<'_>) -> (bool, bool) {
    let by =
        |action| AuthorizationPolicies::new(vec![policy("a/p", action, vec![rule.clone()])]).evaluate(facts);
    (by(Action::Allow).allowed, by(Action::Deny).allowed)
}

fn rules_of_two_layers() -> [AuthorizationRule; 5] {
    let port_and_method = |number| Operation { methods: Values::is(patterns(&["GET"])), ..port(number) };
    [to(port(8080)), to(port(9090)), methods(&["GET"]), to(port_and_method(8080)), to(port_and_method(9090))]
}

fn port(port: u16) -> Operation {
    Operation { ports: Values::is(vec![port]), ..Operation::default() }
}

#[test]
fn without_http_an_allow_rule_that_names_it_is_void_and_a_deny_rule_widens() {
    let tcp = Facts { http: Http::None, ..get() };
    let expected = [(true, false), (false, true), (false, false), (false, false), (false, true)];
    for (rule, expected) in rules_of_two_layers().iter().zip(expected) {
        assert_eq!(allowed(rule, &tcp), expected, "{rule:?}");
    }
    // One operation that names HTTP voids its whole rule, and no other rule.
    let mixed = AuthorizationRule {
        to: [&methods(&["GET"]).to[..], &[port(8080)]].concat(),
        ..AuthorizationRule::default()
    };
    assert_eq!(allowed(&mixed, &tcp), (false, false));
    // So do a token and a condition about HTTP.
    let token =
        Source { request_principals: Values::is(vec![RequestPrincipal::new("*")]), ..Source::default() };
    let header = Condition::Header(HeaderName::from_static("x"), Values::not(patterns(&["1"])));
    for rule in [from(token), when(header), when(Condition::RequestAudiences(Values::is(patterns(&["a"]))))] {
        assert_eq!(allowed(&rule, &tcp), (false, false), "{rule:?}");
    }
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
    let not_ports = Operation { ports: Values::not(vec![9090]), ..Operation::default() };
    assert_eq!(allowed(&to(port(8080)), &unknown), (false, false));
    assert_eq!(allowed(&to(not_ports), &unknown), (false, false));
    assert_eq!(allowed(&methods(&["GET"]), &unknown), (true, false));
    let unknown = Facts { source_ip: None, ..get() };
    let anywhere = Source { ip_blocks: Values::is(vec!["0.0.0.0/0".parse().unwrap()]), ..Source::default() };
    assert_eq!(allowed(&from(anywhere), &unknown), (false, false));
}

fn any_patterns() -> impl Strategy<Value = Vec<Pattern>> {
    let values = prop::sample::select(vec!["*", "a", "b", "a*", "*b"]);
    prop::collection::vec(values.prop_map(Pattern::new), 0..3)
}

fn any_values() -> impl Strategy<Value = Values<Pattern>> {
    (any_patterns(), any_patterns()).prop_map(|(is, not)| Values { is, not })
}

fn any_rule() -> impl Strategy<Value = AuthorizationRule> {
    let operation = (any_values(), any_values(), any_patterns(), prop::collection::vec(1_u16..3, 0..2));
    let operation = operation.prop_map(|(methods, hosts, paths, ports)| Operation {
        hosts,
        methods,
        paths: Values::is(paths.into_iter().map(PathPattern::Plain).collect()),
        ports: Values::is(ports),
    });
    let source = any_values().prop_map(|principals| Source { principals, ..Source::default() });
    let condition = any_values().prop_map(|values| Condition::Header(HeaderName::from_static("a"), values));
    let parts = (
        prop::collection::vec(source, 0..2),
        prop::collection::vec(operation, 0..3),
        prop::collection::vec(condition, 0..2),
    );
    parts.prop_map(|(from, to, when)| AuthorizationRule { from, to, when })
}

fn any_policies() -> impl Strategy<Value = AuthorizationPolicies> {
    let action = prop::sample::select(vec![Action::Allow, Action::Deny, Action::Custom, Action::Audit]);
    let policy = (action, prop::collection::vec(any_rule(), 0..3), any::<bool>())
        .prop_map(|(action, rules, dry_run)| AuthorizationPolicy { dry_run, ..policy("a/p", action, rules) });
    prop::collection::vec(policy, 0..4).prop_map(AuthorizationPolicies::new)
}

proptest! {
    #[test]
    fn what_is_refused_ahead_of_http_no_request_could_make_pass(
        policies in any_policies(), port in 1_u16..3, words in prop::collection::vec("[ab]{0,2}", 3),
    ) {
        let http = Http::Request(http(&words[0], &words[1], &words[2]));
        let request = Facts { port: Some(port), http, ..get() };
        let ahead = Facts { http: Http::Ahead, ..request.clone() };
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

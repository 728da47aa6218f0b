//! One table per rule of the specification.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::Regex;
use towpath_gateway_core::Policy;

use super::fixture::{listener, route, rule, rule_of};
use super::{RequestFacts, Routes};
use crate::{HeaderMatch, Listener, PathMatch, QueryMatch, RequestMatch, RuleAction, ValueMatch};

/// What takes `GET host target`, as `route#rule`; `-` for nothing.
fn taken(listeners: &[Listener], host: &str, target: &str, headers: &[(&str, &str)]) -> String {
    by(&Method::GET, listeners, host, target, headers)
}

fn by(method: &Method, listeners: &[Listener], host: &str, target: &str, lines: &[(&str, &str)]) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let facts = RequestFacts { host, path, query, method, headers: &headers };
    let routes = Routes::new(listeners.to_vec());
    routes.decide(&facts).map_or("-".to_owned(), |matched| matched.name.to_string())
}

fn exact(path: &str) -> RequestMatch {
    RequestMatch { path: PathMatch::Exact(path.into()), ..RequestMatch::default() }
}

fn prefix(path: &str) -> RequestMatch {
    RequestMatch { path: PathMatch::Prefix(path.into()), ..RequestMatch::default() }
}

fn expression(path: &str) -> RequestMatch {
    RequestMatch { path: PathMatch::Regex(Regex::new(path).unwrap()), ..RequestMatch::default() }
}

fn header(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch { name: HeaderName::from_static(name), value: ValueMatch::Exact(value.into()) }
}

fn parameter(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) }
}

/// One route on every host, each match a rule of its own, named by its place.
fn rules(matches: Vec<RequestMatch>) -> Vec<Listener> {
    let rules = matches.into_iter().enumerate().map(|(n, m)| rule_of(&n.to_string(), vec![m])).collect();
    vec![listener("*", vec![route("r", &[], rules)])]
}

#[test]
fn the_most_specific_listener_keeps_its_hosts_to_itself() {
    let only = |name: &str, path: &str| vec![route(name, &[], vec![rule("0", &[path])])];
    let listeners = [
        listener("*", only("any", "/")),
        listener("*.example.com", only("wild", "/wild")),
        listener("a.example.com", only("a", "/a")),
    ];
    for (host, path, wanted) in [
        ("a.example.com", "/a", "a#0"),
        ("a.example.com", "/wild", "-"),
        ("b.example.com", "/wild", "wild#0"),
        ("b.c.example.com", "/wild", "wild#0"),
        ("b.example.com", "/a", "-"),
        ("example.com", "/a", "any#0"),
        ("", "/", "any#0"),
    ] {
        assert_eq!(taken(&listeners, host, path, &[]), wanted, "{host}{path}");
    }
}

#[test]
fn listeners_of_one_host_name_count_as_one() {
    let listeners = [
        listener("a", vec![route("first", &[], vec![rule("0", &["/x"])])]),
        listener("a", vec![route("second", &[], vec![rule("0", &["/x/y"])])]),
    ];
    assert_eq!(taken(&listeners, "a", "/x", &[]), "first#0");
    assert_eq!(taken(&listeners, "a", "/x/y", &[]), "second#0");
}

#[test]
fn a_more_specific_host_of_a_route_is_asked_first_and_not_alone() {
    let listeners = [listener(
        "*",
        vec![
            route("any", &[], vec![rule("0", &["/any", "/x/y/z"])]),
            route("short", &["*.com"], vec![rule("0", &["/short", "/x/y"])]),
            route("long", &["*.example.com", "other"], vec![rule("0", &["/long", "/x"])]),
            route("exact", &["a.example.com"], vec![rule("0", &["/exact"])]),
        ],
    )];
    for (host, path, wanted) in [
        ("a.example.com", "/exact", "exact#0"),
        ("a.example.com", "/x/y/z", "long#0"),
        ("a.example.com", "/short", "short#0"),
        ("a.example.com", "/any", "any#0"),
        ("example.com", "/x/y/z", "short#0"),
        ("other", "/x", "long#0"),
        ("a.example.com", "/nothing", "-"),
    ] {
        assert_eq!(taken(&listeners, host, path, &[]), wanted, "{host}{path}");
    }
}

#[test]
fn prefixes_are_whole_segments_and_a_trailing_slash_is_ignored() {
    for (prefix_, path, wanted) in [
        ("/abc", "/abc", true),
        ("/abc", "/abc/", true),
        ("/abc", "/abc/d", true),
        ("/abc", "/abcd", false),
        ("/abc/", "/abc", true),
        ("/abc/", "/abc/d", true),
        ("/abc/", "/abcd", false),
        ("/abc", "/ABC", false),
        ("/", "/", true),
        ("/", "/any/thing", true),
        ("/", "*", true),
        ("/abc", "*", false),
        ("/a/b", "/a", false),
        ("/a/b", "/a//b", false),
    ] {
        let found = taken(&rules(vec![prefix(prefix_)]), "h", path, &[]);
        assert_eq!(found == "r#0", wanted, "{prefix_} {path}");
    }
}

#[test]
fn exact_beats_the_longest_prefix_which_beats_an_expression() {
    let table = rules(vec![
        expression("^/a/.*$"),
        prefix("/a"),
        prefix("/a/b/"),
        exact("/a/b"),
        expression("^/z.*$"),
    ]);
    for (path, wanted) in
        [("/a/b", "r#3"), ("/a/b/", "r#2"), ("/a/b/c", "r#2"), ("/a/c", "r#1"), ("/zz", "r#4"), ("/y", "-")]
    {
        assert_eq!(taken(&table, "h", path, &[]), wanted, "{path}");
    }
}

#[test]
fn a_better_path_whose_conditions_fail_leaves_room_for_the_next() {
    let table = rules(vec![
        RequestMatch { headers: vec![header("v", "2")], ..exact("/a/b") },
        RequestMatch { method: Some(Method::POST), ..prefix("/a/b") },
        expression("^/a/b$"),
        RequestMatch { query: vec![parameter("q", "1")], ..prefix("/a") },
    ]);
    assert_eq!(taken(&table, "h", "/a/b", &[("v", "2")]), "r#0");
    assert_eq!(by(&Method::POST, &table, "h", "/a/b", &[]), "r#1");
    assert_eq!(taken(&table, "h", "/a/b?q=1", &[]), "r#3");
    assert_eq!(taken(&table, "h", "/a/b", &[]), "r#2");
}

#[test]
fn on_one_path_method_then_headers_then_parameters_decide() {
    let table = rules(vec![
        prefix("/"),
        RequestMatch { query: vec![parameter("p", "1"), parameter("q", "1")], ..prefix("/") },
        RequestMatch { headers: vec![header("a", "1")], ..prefix("/") },
        RequestMatch { headers: vec![header("a", "1"), header("b", "1")], ..prefix("/") },
        RequestMatch { headers: vec![header("a", "1")], query: vec![parameter("p", "1")], ..prefix("/") },
        RequestMatch { method: Some(Method::GET), ..prefix("/") },
    ]);
    let (a, ab) = (&[("a", "1")][..], &[("a", "1"), ("b", "1")][..]);
    for (method, target, headers, wanted) in [
        (Method::GET, "/?p=1&q=1", ab, "r#5"),
        (Method::PUT, "/?p=1&q=1", ab, "r#3"),
        (Method::PUT, "/?p=1&q=1", a, "r#4"),
        (Method::PUT, "/", a, "r#2"),
        (Method::PUT, "/?p=1&q=1", &[][..], "r#1"),
        (Method::PUT, "/", &[][..], "r#0"),
    ] {
        assert_eq!(by(&method, &table, "h", target, headers), wanted, "{method} {target} {headers:?}");
    }
}

#[test]
fn between_equals_age_then_name_then_order_decide() {
    let aged = |name: &str, created: i64| {
        let mut route = route(name, &[], vec![rule("0", &["/"]), rule("1", &["/"])]);
        route.created = created;
        route
    };
    let taken = |routes| taken(&[listener("*", routes)], "h", "/", &[]);
    assert_eq!(taken(vec![aged("n/a", 2), aged("n/b", 1)]), "n/b#0");
    assert_eq!(taken(vec![aged("n/b", 1), aged("n/a", 1)]), "n/a#0");
    assert_eq!(taken(vec![aged("n/b", 1), aged("m/c", 1)]), "m/c#0");
}

#[test]
fn of_entries_with_one_name_the_first_counts_alone() {
    let table = rules(vec![
        RequestMatch { headers: vec![header("a", "1"), header("a", "2")], ..prefix("/") },
        RequestMatch { query: vec![parameter("q", "1"), parameter("q", "2")], ..prefix("/") },
    ]);
    assert_eq!(taken(&table, "h", "/", &[("a", "1")]), "r#0");
    assert_eq!(taken(&table, "h", "/", &[("a", "2")]), "-");
    assert_eq!(taken(&table, "h", "/?q=1", &[]), "r#1");
    // The second entry adds no rank either.
    let table = rules(vec![
        RequestMatch { headers: vec![header("b", "1")], ..prefix("/") },
        RequestMatch { headers: vec![header("a", "1"), header("a", "1")], ..prefix("/") },
    ]);
    assert_eq!(taken(&table, "h", "/", &[("a", "1"), ("b", "1")]), "r#0");
}

#[test]
fn repeated_lines_are_one_value_and_of_repeated_parameters_the_first_counts() {
    let table = rules(vec![
        RequestMatch { headers: vec![header("a", "1,2")], ..prefix("/") },
        RequestMatch { query: vec![parameter("q", "x y")], ..prefix("/") },
    ]);
    assert_eq!(taken(&table, "h", "/", &[("a", "1"), ("A", "2")]), "r#0");
    assert_eq!(taken(&table, "h", "/", &[("a", "1")]), "-");
    for (query, wanted) in [("q=x+y", "r#1"), ("q=x%20y&q=z", "r#1"), ("q=z&q=x%20y", "-"), ("Q=x+y", "-")] {
        assert_eq!(taken(&table, "h", &format!("/?{query}"), &[]), wanted, "{query}");
    }
}

#[test]
fn expressions_take_values() {
    let one = Regex::new("^v[12]$").unwrap();
    let table = rules(vec![RequestMatch {
        headers: vec![HeaderMatch { name: HeaderName::from_static("a"), value: ValueMatch::Regex(one) }],
        ..prefix("/")
    }]);
    assert_eq!(taken(&table, "h", "/", &[("a", "v2")]), "r#0");
    assert_eq!(taken(&table, "h", "/", &[("a", "v3")]), "-");
    assert_eq!(taken(&table, "h", "/", &[]), "-");
}

#[test]
fn a_rule_without_matches_takes_every_path() {
    let listeners = [listener("*", vec![route("r", &[], vec![rule_of("0", Vec::new())])])];
    assert_eq!(taken(&listeners, "h", "/any", &[]), "r#0");
}

#[test]
fn settings_and_action_of_the_rule_come_along() {
    #[derive(Debug, PartialEq)]
    struct Limit(u8);
    impl Policy for Limit {}

    let mut rule = rule("0", &["/a/"]);
    rule.policies = towpath_gateway_core::Policies::builder().with(Limit(3)).build();
    let routes = Routes::new(vec![listener("*", vec![route("r", &[], vec![rule])])]);
    let headers = HeaderMap::new();
    let facts = RequestFacts { host: "h", path: "/a", query: "", method: &Method::GET, headers: &headers };
    let matched = routes.decide(&facts).unwrap();
    assert_eq!((&*matched.listener, matched.policies.get::<Limit>()), ("*", Some(&Limit(3))));
    let action = matched.policies.get::<RuleAction>().unwrap();
    assert_eq!((action.prefix.as_deref(), action.rule.port, action.sound), (Some("/a"), 80, true));
}

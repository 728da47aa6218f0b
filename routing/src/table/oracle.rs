//! The specification read aloud: every match of every rule looked at in turn. The table has to agree with it.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;

use super::fixture::{listener, route, rule_of};
use super::{Candidate, Lost, Miss, RequestFacts, Routes};
use crate::{HeaderMatch, Hostname, Listener, PathMatch, QueryMatch, RequestMatch, Route, ValueMatch};

fn naive(listeners: &[Listener], request: &RequestFacts<'_>) -> Option<String> {
    let for_host = |listener: &&Listener| listener.hostname.matches(request.host);
    let specificity = |listener: &Listener| listener.hostname.specificity();
    let best = listeners.iter().filter(for_host).map(specificity).max()?;
    let mut found = Vec::new();
    for listener in listeners.iter().filter(for_host).filter(|l| specificity(l) == best) {
        for route in &listener.routes {
            found.extend(in_route(route, request));
        }
    }
    found.into_iter().min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, name)| name)
}

type Rank<'a> =
    (Reverse<(u8, usize)>, Reverse<(u8, usize)>, Reverse<(bool, usize, usize)>, i64, &'a str, usize, usize);

fn in_route<'a>(route: &'a Route, request: &RequestFacts<'_>) -> Vec<(Rank<'a>, String)> {
    let any = [Hostname::Any];
    let names = if route.hostnames.is_empty() { &any[..] } else { &route.hostnames };
    let Some(host) = names.iter().filter(|n| n.matches(request.host)).map(Hostname::specificity).max() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (order, rule) in route.rules.iter().enumerate() {
        for (place, wanted) in rule.matches.iter().enumerate() {
            let Some(path) = path_rank(&wanted.path, request.path) else { continue };
            let Some(conditions) = conditions_rank(wanted, request) else { continue };
            let rank: Rank<'_> =
                (Reverse(host), Reverse(path), Reverse(conditions), route.created, &route.name, order, place);
            found.push((rank, rule.name.to_string()));
        }
    }
    found
}

/// The first reason why a match does not get a request, in the order of [`Lost`]; nothing if it would take it.
fn reason(
    listeners: &[Listener],
    (listener, route, wanted): (&Listener, &Route, &RequestMatch),
    request: &RequestFacts<'_>,
) -> Option<String> {
    let for_host = |listener: &&Listener| listener.hostname.matches(request.host);
    let best = listeners.iter().filter(for_host).map(|l| l.hostname.specificity()).max();
    if !listener.hostname.matches(request.host) {
        return Some("ListenerHostname".into());
    }
    if Some(listener.hostname.specificity()) != best {
        return Some("ListenerIsolation".into());
    }
    if !route.hostnames.is_empty() && !route.hostnames.iter().any(|name| name.matches(request.host)) {
        return Some("Hostname".into());
    }
    if path_rank(&wanted.path, request.path).is_none() {
        return Some("Path".into());
    }
    if wanted.method.as_ref().is_some_and(|method| method != request.method) {
        return Some("Method".into());
    }
    let only = |header: &[HeaderMatch], query: &[QueryMatch]| RequestMatch {
        headers: header.to_vec(),
        query: query.to_vec(),
        ..RequestMatch::default()
    };
    let headers = first_by(&wanted.headers, |header| header.name.to_string());
    let header =
        headers.iter().find(|h| conditions_rank(&only(std::slice::from_ref(h), &[]), request).is_none());
    if let Some(header) = header {
        return Some(format!("Header {header}"));
    }
    let query = first_by(&wanted.query, |parameter| parameter.name.to_string());
    let parameter =
        query.iter().find(|q| conditions_rank(&only(&[], std::slice::from_ref(q)), request).is_none());
    parameter.map(|parameter| format!("QueryParam {parameter}"))
}

/// Of entries with one name the first.
fn first_by<T: Clone>(all: &[T], name: impl Fn(&T) -> String) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    all.iter().filter(|one| seen.insert(name(one))).cloned().collect()
}

/// Why the smaller rank comes first.
fn precedence(winner: &Rank<'_>, other: &Rank<'_>) -> &'static str {
    let (Reverse((method, headers, _)), Reverse((its_method, its_headers, _))) = (winner.2, other.2);
    match () {
        () if winner.0 != other.0 => "MoreSpecificHostname",
        () if winner.1 != other.1 => "MoreSpecificPath",
        () if method != its_method => "MoreSpecificMethod",
        () if headers != its_headers => "MoreHeaders",
        () if winner.2 != other.2 => "MoreQueryParams",
        () if winner.3 != other.3 => "OlderRoute",
        () if winner.4 != other.4 => "RouteName",
        () if winner.5 != other.5 => "EarlierRule",
        () => "EarlierMatch",
    }
}

/// Each match with what the specification says of it: by rule and place, `Winner` or the reason why not.
fn said(listeners: &[Listener], request: &RequestFacts<'_>) -> Vec<(String, usize, String)> {
    let mut found: Vec<(String, usize, Result<Rank<'_>, String>)> = Vec::new();
    for listener in listeners {
        for route in &listener.routes {
            for (order, rule) in route.rules.iter().enumerate() {
                for (place, wanted) in rule.matches.iter().enumerate() {
                    let lost = reason(listeners, (listener, route, wanted), request);
                    let rank = lost.map_or_else(|| Ok(rank(route, (order, place), wanted, request)), Err);
                    found.push((rule.name.to_string(), place, rank));
                }
            }
        }
    }
    let winner = found.iter().filter_map(|(.., rank)| rank.as_ref().ok()).min().copied();
    let mut met = false;
    let said = found.into_iter().map(|(rule, place, rank)| {
        let word = match (rank, winner) {
            (Err(lost), _) => lost,
            // Of equals the first that was attached.
            (Ok(rank), Some(winner)) if rank == winner && !met => {
                met = true;
                "Winner".into()
            }
            (Ok(rank), winner) => precedence(&winner.unwrap(), &rank).into(),
        };
        (rule, place, word)
    });
    said.collect()
}

fn rank<'a>(
    route: &'a Route,
    (order, place): (usize, usize),
    wanted: &RequestMatch,
    request: &RequestFacts<'_>,
) -> Rank<'a> {
    let any = [Hostname::Any];
    let names = if route.hostnames.is_empty() { &any[..] } else { &route.hostnames };
    let host = names.iter().filter(|n| n.matches(request.host)).map(Hostname::specificity).max().unwrap();
    let path = path_rank(&wanted.path, request.path).unwrap();
    let conditions = conditions_rank(wanted, request).unwrap();
    (Reverse(host), Reverse(path), Reverse(conditions), route.created, &route.name, order, place)
}

fn path_rank(wanted: &PathMatch, path: &str) -> Option<(u8, usize)> {
    match wanted {
        PathMatch::Exact(exact) => (**exact == *path).then_some((2, 0)),
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            let rest = path.strip_prefix(prefix)?;
            (prefix.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some((1, prefix.len()))
        }
        PathMatch::Regex(regex) => regex.is_match(path).then_some((0, 0)),
    }
}

fn conditions_rank(wanted: &RequestMatch, request: &RequestFacts<'_>) -> Option<(bool, usize, usize)> {
    let mut headers: Vec<&HeaderMatch> = Vec::new();
    for header in &wanted.headers {
        if !headers.iter().any(|known| known.name == header.name) {
            headers.push(header);
        }
    }
    let mut query: Vec<&QueryMatch> = Vec::new();
    for parameter in &wanted.query {
        if !query.iter().any(|known| known.name == parameter.name) {
            query.push(parameter);
        }
    }
    let line = |name: &HeaderName| {
        let lines: Vec<_> = request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
        (!lines.is_empty()).then(|| lines.join(","))
    };
    let parameter = |name: &str| {
        let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
        let plain = |text: &str| text.replace('+', " ").replace("%31", "1");
        pairs
            .map(|(key, value)| (plain(key), plain(value)))
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    };
    let holds = wanted.method.as_ref().is_none_or(|method| method == request.method)
        && headers.iter().all(|h| line(&h.name).is_some_and(|value| is(&h.value, &value)))
        && query.iter().all(|q| parameter(&q.name).is_some_and(|value| is(&q.value, &value)));
    holds.then_some((wanted.method.is_some(), headers.len(), query.len()))
}

fn is(wanted: &ValueMatch, value: &str) -> bool {
    match wanted {
        ValueMatch::Exact(text) => **text == *value,
        ValueMatch::Regex(regex) => regex.is_match(value),
    }
}

fn paths() -> impl Strategy<Value = PathMatch> {
    let prefix = |path: &str| PathMatch::Prefix(path.into());
    prop_oneof![
        4 => Just(prefix("/")),
        2 => select(vec!["/a", "/a/", "/a/b", "/a/b/c", "/b"]).prop_map(prefix),
        1 => select(vec!["/", "/a", "/a/", "/a/b"]).prop_map(|path| PathMatch::Exact(path.into())),
        1 => select(vec!["^/a.*$", "^/[ab]/b$"]).prop_map(|path| PathMatch::Regex(Regex::new(path).unwrap())),
    ]
}

fn values() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        3 => select(vec!["1", "2", "1,2", "x y"]).prop_map(|text| ValueMatch::Exact(text.into())),
        1 => Just(ValueMatch::Regex(Regex::new("^1.*$").unwrap())),
    ]
}

fn matches() -> impl Strategy<Value = RequestMatch> {
    let method = proptest::option::weighted(0.2, select(vec![Method::GET, Method::PUT]));
    let headers = vec((select(vec!["h", "i"]), values()), 0..3);
    let query = vec((select(vec!["p", "q"]), values()), 0..3);
    (paths(), method, headers, query).prop_map(|(path, method, headers, query)| RequestMatch {
        path,
        method,
        headers: headers
            .into_iter()
            .map(|(name, value)| HeaderMatch { name: HeaderName::from_static(name), value })
            .collect(),
        query: query.into_iter().map(|(name, value)| QueryMatch { name: name.into(), value }).collect(),
    })
}

const HOSTNAMES: [&str; 6] = ["*", "a", "*.a", "x.a", "*.x.a", "b"];

/// Listeners in which every rule has a name of its own.
fn tables() -> impl Strategy<Value = Vec<Listener>> {
    let rules = vec(vec(matches(), 1..5), 0..5);
    let one = (select(vec!["n/a", "n/b", "m/c"]), 0_i64..2, vec(select(&HOSTNAMES[..]), 0..3), rules);
    vec((select(&HOSTNAMES[..]), vec(one, 0..4)), 0..4).prop_map(|listeners| {
        let mut number = 0;
        let mut made = Vec::new();
        for (hostname, routes) in listeners {
            let mut attached = Vec::new();
            for (name, created, hostnames, rules) in routes {
                let named = rules.into_iter().map(|matches| {
                    number += 1;
                    rule_of(&number.to_string(), matches)
                });
                attached.push(Route { created, ..route(name, &hostnames, named.collect()) });
            }
            made.push(listener(hostname, attached));
        }
        made
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_table_decides_as_the_specification(
        listeners in tables(),
        requests in vec((
            select(vec!["a", "x.a", "y.a", "z.x.a", "b", ""]),
            select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c/d", "/ab", "/b/b", "*"]),
            select(vec!["", "p=1", "q=1&p=2", "p=1&p=2", "p=x+y", "q=%31", "p=2&q=1"]),
            select(vec![Method::GET, Method::PUT]),
            vec((select(vec!["h", "i"]), select(vec!["1", "2"])), 0..4),
        ), 12),
    ) {
        let routes = Routes::new(listeners.clone());
        for (host, path, query, method, lines) in &requests {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let facts = RequestFacts { host, path, query, method, headers: &headers };
            let found = routes.decide(&facts).map(|matched| matched.name.to_string());
            prop_assert_eq!(&found, &naive(&listeners, &facts), "{} {} {} {:?}", host, path, query, lines);

            let explained = routes.explain(&facts);
            let winner = explained.winner.map(|winner| winner.matched().name.to_string());
            prop_assert_eq!(&winner, &found);
            let name = |candidate: Candidate<'_>| (candidate.matched().name.to_string(), candidate.place());
            let lost = explained.lost.iter().map(|(candidate, lost)| {
                let word = match lost {
                    Lost::Condition(Miss::Header(header)) => format!("{} {header}", lost.reason()),
                    Lost::Condition(Miss::Query(parameter)) => format!("{} {parameter}", lost.reason()),
                    _ => lost.reason().to_owned(),
                };
                (name(*candidate), word)
            });
            let mut every: Vec<_> =
                explained.winner.into_iter().map(|winner| (name(winner), "Winner".to_owned())).chain(lost).collect();
            let mut wanted: Vec<_> =
                said(&listeners, &facts).into_iter().map(|(rule, place, word)| ((rule, place), word)).collect();
            every.sort();
            wanted.sort();
            prop_assert_eq!(every, wanted, "{} {} {} {:?}", host, path, query, lines);
        }
    }
}

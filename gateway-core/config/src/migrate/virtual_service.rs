//! A `VirtualService` as `HTTPRoute`s.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::action::{self, Action};
use super::cursor::Cursor;
use super::destination::Destinations;
use super::flows;
use super::input::{Input, Object, service};
use super::matches::{self, Scoped};
use super::order::{Alternative, Form, PathRewrite, arrange, without_negations};
use super::report::Report;
use super::strings::Strings;
use crate::ObjectName;

/// Lengths that a route may have (Gateway API, `HTTPRouteSpec`).
const MAX_RULES: usize = 16;
const MAX_MATCHES_OF_RULE: usize = 64;
const MAX_MATCHES: usize = 128;
const MAX_HOSTNAMES: usize = 16;
const MAX_PARENTS: usize = 32;

/// The rule of requests that no rule takes, where they have to be named.
const NOWHERE: usize = usize::MAX;

/// What Istio calls all sidecars among gateways.
pub(super) const MESH: &str = "mesh";

struct Rule<'a> {
    at: Cursor<'a>,
    name: Option<String>,
    action: Action<'a>,
    alternatives: Vec<Scoped>,
}

/// Where routes are attached, and for which hosts.
struct Place {
    suffix: String,
    parents: Vec<Value>,
    hostnames: Vec<String>,
    /// The gateway as the object names it.
    gateway: String,
}

/// The objects that a `VirtualService` becomes.
pub(super) fn migrate(
    object: &Object,
    input: &Input,
    destinations: &Destinations<'_>,
    report: &Report,
) -> Vec<Value> {
    let Some(spec) = Cursor::spec(object, report) else { return Vec::new() };
    let fields = spec.fields();
    if let Some(field) = fields.take("exportTo")
        && field.texts().iter().any(|(text, _)| *text != "*")
    {
        field.changed("routes hold wherever what they are attached to is used");
    }
    let hosts = fields.take("hosts");
    let gateways = fields.take("gateways");
    let rules: Vec<_> = fields
        .take("http")
        .iter()
        .flat_map(Cursor::items)
        .enumerate()
        .map(|(at, rule)| read_rule(rule, at, destinations))
        .collect();
    let places = places(object, input, hosts.as_ref(), gateways.as_ref());
    if hosts.as_ref().is_none_or(|hosts| hosts.items().is_empty()) {
        spec.lost(
            "no hosts: the rules are for another VirtualService to delegate to, and are not carried over",
        );
        return Vec::new();
    }
    if places.iter().any(|place| place.gateway == MESH) {
        for section in ["tcp", "tls"].into_iter().filter_map(|section| fields.peek(section)) {
            section
                .changed(format!("routes of layer 4 are of gateways: sidecars (`{MESH}`) do not have them"));
        }
    }
    let edge = places.iter().filter(|place| place.gateway != MESH);
    let parents: Vec<_> = edge
        .flat_map(|place| place.parents.iter().map(|parent| (place.gateway.clone(), parent.clone())))
        .collect();
    let mut objects = flows::migrate(object, &fields, &parents, destinations);
    if rules.is_empty() {
        return objects;
    }
    let mut nowhere = false;
    for place in places {
        let arranged = arranged(&rules, &place.gateway);
        nowhere |= arranged.iter().any(|one| one.rule == NOWHERE);
        objects.extend(write(object, &rules, &arranged, &place));
    }
    for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.action.extension.is_empty()) {
        let name = format!("{}-{at}", object.name.name);
        objects.push(filter(object, &name, Value::Object(rule.action.extension.clone())));
    }
    if nowhere {
        let name = format!("{}-nowhere", object.name.name);
        objects.push(filter(object, &name, json!({"directResponse": {"status": 404}})));
    }
    objects
}

fn filter(object: &Object, name: &str, spec: Value) -> Value {
    let mut value = json!({
        "apiVersion": "towpath.dev/v1alpha1",
        "kind": "HTTPRouteFilter",
        "metadata": {"name": name, "namespace": &*object.name.namespace},
    });
    crate::json::set(&mut value, "spec", spec);
    value
}

fn read_rule<'a>(rule: Cursor<'a>, at: usize, destinations: &Destinations<'_>) -> Rule<'a> {
    let fields = rule.fields();
    let name = fields.take("name").and_then(|name| {
        let text = name.text()?;
        let label = text.len() <= 63
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !label {
            name.lost("is not the name of a rule (RFC 1123 label)");
        }
        label.then(|| text.to_owned())
    });
    let mut alternatives = matches::read(fields.take("match"), at);
    if fields.refuse("delegate", "the rules of the other VirtualService are not put in: its requests go on") {
        alternatives.clear();
        return Rule { at: rule.clone(), name, action: Action::default(), alternatives };
    }
    let action = action::read(&rule, &fields, destinations);
    if let Some((uri, field)) = &action.uri {
        for (_, one) in &mut alternatives {
            matches::rewrite(one, uri, field);
        }
    }
    drop(fields);
    Rule { at: rule, name, action, alternatives }
}

/// The alternatives of a gateway, so that the most specific is the first in Istio's order. What cannot be kept is reported.
fn arranged(rules: &[Rule<'_>], gateway: &str) -> Vec<Alternative> {
    let here = |(gateways, alternative): &Scoped| {
        let scoped = gateways.as_ref().is_none_or(|list| list.iter().any(|name| name == gateway));
        scoped.then(|| alternative.clone())
    };
    let list: Vec<_> = rules.iter().flat_map(|rule| rule.alternatives.iter().filter_map(here)).collect();
    let (list, lost) = without_negations(list, NOWHERE);
    for alternative in lost {
        if let Some(rule) = rules.get(alternative.rule) {
            rule.at.lost("`withoutHeaders` of a match cannot be written beside the rules after it: the match is left out");
        }
    }
    let (list, reversed) = arrange(list);
    for pair in reversed {
        if let Some(rule) = rules.get(pair.first) {
            let other = rules.get(pair.second).map_or("a rule", |other| &other.at.path);
            rule.at.changed(format!(
                "requests that `{other}` takes as well go there: its match is the more specific"
            ));
        }
    }
    list
}

/// What routes are attached to: one place for the gateways, and one for each Service of the mesh.
fn places(
    object: &Object,
    input: &Input,
    hosts: Option<&Cursor<'_>>,
    gateways: Option<&Cursor<'_>>,
) -> Vec<Place> {
    let hosts = hosts.map(Cursor::texts).unwrap_or_default();
    let own = &object.name.namespace;
    let gateways = match gateways.filter(|list| !list.items().is_empty()) {
        Some(list) => list.texts().into_iter().map(|(name, field)| (name.to_owned(), Some(field))).collect(),
        None => vec![(MESH.to_owned(), None)],
    };
    let mut places = Vec::new();
    for (gateway, field) in gateways {
        if gateway == MESH {
            places.extend(services(own, &hosts));
            continue;
        }
        let (namespace, name) = gateway.split_once('/').unwrap_or((own, &gateway));
        let wanted = ObjectName { namespace: namespace.into(), name: name.into() };
        if let (false, Some(field)) = (input.gateways.contains(&wanted), &field) {
            field.note(format!(
                "{wanted} has to be a Gateway of the Gateway API: Istio's own is not carried over"
            ));
        }
        let mut parent = json!({ "name": name });
        if namespace != &**own {
            crate::json::set(&mut parent, "namespace", namespace.into());
        }
        let hostnames = hostnames(own, &hosts);
        let suffix = format!("-{name}");
        let gateway = wanted.to_string();
        if places.iter().any(|place: &Place| place.gateway == gateway) {
            continue;
        }
        places.push(Place { suffix, parents: vec![parent], hostnames, gateway });
    }
    // One place needs no name of its own.
    if let [only] = places.as_mut_slice() {
        only.suffix.clear();
    }
    places
}

fn services(own: &Arc<str>, hosts: &[(&str, Cursor<'_>)]) -> Vec<Place> {
    let mut parents = Vec::new();
    for (host, field) in hosts {
        let Some(service) = service(host, own) else {
            field.lost("is not a Service of this cluster: routes of the mesh are attached to Services");
            continue;
        };
        let mut parent = json!({"group": "", "kind": "Service", "name": &*service.name});
        if service.namespace != *own {
            field.changed(
                "a route from another namespace holds for callers in its own alone (GAMMA, consumer route)",
            );
            crate::json::set(&mut parent, "namespace", (&*service.namespace).into());
        }
        // Of two names for one Service one is enough.
        if !parents.contains(&parent) {
            parents.push(parent);
        }
    }
    let several = parents.len() > MAX_PARENTS;
    let place = |(number, parents): (usize, &[Value])| Place {
        suffix: if several { format!("-{MESH}-{number}") } else { format!("-{MESH}") },
        parents: parents.to_vec(),
        hostnames: Vec::new(),
        gateway: MESH.to_owned(),
    };
    parents.chunks(MAX_PARENTS).enumerate().map(place).collect()
}

/// Host names of clients; a short name stands for the Service's whole one.
fn hostnames(own: &Arc<str>, hosts: &[(&str, Cursor<'_>)]) -> Vec<String> {
    if hosts.iter().any(|(host, _)| *host == "*") {
        return Vec::new();
    }
    let whole = |(host, _): &(&str, Cursor<'_>)| {
        if host.contains('.') { (*host).to_owned() } else { format!("{host}.{own}.svc.cluster.local") }
    };
    hosts.iter().map(whole).collect()
}

/// The routes of a place. Alternatives that follow each other and do the same are one rule; a list that is too long for one
/// route goes on in another, which comes after it by its name.
fn write(object: &Object, rules: &[Rule<'_>], alternatives: &[Alternative], place: &Place) -> Vec<Value> {
    let mut written: Vec<(Vec<Value>, usize)> = vec![(Vec::new(), 0)];
    let mut names = BTreeSet::new();
    for run in alternatives.chunk_by(|a, b| a.rule == b.rule && a.rewrite == b.rewrite) {
        // A prefix is replaced beside one match alone (Gateway API, `HTTPRouteRule`).
        let anchored = run.first().is_some_and(|one| matches!(one.rewrite, Some(PathRewrite::Prefix(_))));
        for part in run.chunks(if anchored { 1 } else { MAX_MATCHES_OF_RULE }) {
            let Some(first) = part.first() else { continue };
            let full = written
                .last()
                .is_none_or(|(list, matches)| list.len() == MAX_RULES || matches + part.len() > MAX_MATCHES);
            if full {
                written.push((Vec::new(), 0));
            }
            let mut rule = rule_of(object, rules, first);
            let name = rules.get(first.rule).and_then(|rule| rule.name.clone());
            if let Some(name) = name.filter(|name| names.insert(name.clone())) {
                crate::json::set(&mut rule, "name", name.into());
            }
            let anything =
                part.len() == 1 && first.condition == super::condition::Condition::any() && !first.demoted;
            if !anything {
                crate::json::set(&mut rule, "matches", part.iter().map(matched).collect());
            }
            if let Some((list, matches)) = written.last_mut() {
                list.push(rule);
                *matches += part.len();
            }
        }
    }
    let hostnames: Vec<&[String]> =
        if place.hostnames.is_empty() { vec![&[]] } else { place.hostnames.chunks(MAX_HOSTNAMES).collect() };
    let (routes, sets) = (written.len(), hostnames.len());
    let mut objects = Vec::new();
    for (set, hostnames) in hostnames.into_iter().enumerate() {
        for (number, (rules, _)) in written.iter().filter(|(rules, _)| !rules.is_empty()).enumerate() {
            let mut name = format!("{}{}", object.name.name, place.suffix);
            if sets > 1 {
                name = format!("{name}-{set}");
            }
            if routes > 1 {
                name = format!("{name}-{number:03}");
            }
            let mut spec = Map::new();
            spec.insert("parentRefs".into(), place.parents.clone().into());
            if !hostnames.is_empty() {
                spec.insert("hostnames".into(), hostnames.to_vec().into());
            }
            spec.insert("rules".into(), rules.clone().into());
            objects.push(json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": name, "namespace": &*object.name.namespace},
                "spec": spec,
            }));
        }
    }
    objects
}

fn extension_filter(name: &str) -> Value {
    let reference = json!({"group": "towpath.dev", "kind": "HTTPRouteFilter", "name": name});
    json!({"type": "ExtensionRef", "extensionRef": reference})
}

/// A rule without its matches.
fn rule_of(object: &Object, rules: &[Rule<'_>], alternative: &Alternative) -> Value {
    let Some(rule) = rules.get(alternative.rule) else {
        return json!({"filters": [extension_filter(&format!("{}-nowhere", object.name.name))]});
    };
    let action = &rule.action;
    let mut value = Map::new();
    let mut filters = action.filters.clone();
    let path = alternative.rewrite.as_ref().map(|rewrite| match rewrite {
        PathRewrite::Full(path) => json!({"type": "ReplaceFullPath", "replaceFullPath": path}),
        PathRewrite::Prefix(path) => json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path}),
    });
    if path.is_some() || action.host.is_some() {
        let mut rewrite = Map::new();
        rewrite.extend(action.host.clone().map(|host| ("hostname".to_owned(), host.into())));
        rewrite.extend(path.map(|path| ("path".to_owned(), path)));
        filters.push(json!({"type": "URLRewrite", "urlRewrite": rewrite}));
    }
    if !action.extension.is_empty() {
        filters.push(extension_filter(&format!("{}-{}", object.name.name, alternative.rule)));
    }
    if !filters.is_empty() {
        value.insert("filters".into(), filters.into());
    }
    if !action.backends.is_empty() {
        value.insert("backendRefs".into(), action.backends.clone().into());
    }
    if !action.timeouts.is_empty() {
        value.insert("timeouts".into(), action.timeouts.clone().into());
    }
    if let Some(retry) = &action.retry {
        value.insert("retry".into(), retry.clone());
    }
    value.into()
}

fn matched(alternative: &Alternative) -> Value {
    let condition = &alternative.condition;
    let mut value = Map::new();
    let path = match (alternative.form(), &condition.path) {
        (Form::Exact, Strings::Exact { text, .. }) => json!({"type": "Exact", "value": text}),
        (Form::Prefix(_), Strings::Element(text)) => json!({"type": "PathPrefix", "value": text}),
        (Form::Prefix(_), _) => json!({"type": "PathPrefix", "value": "/"}),
        (_, set) => json!({"type": "RegularExpression", "value": set.expression()}),
    };
    value.insert("path".into(), path);
    if let Some(method) = &condition.method {
        value.insert("method".into(), method.as_str().into());
    }
    let named = |(name, set): (&String, &Strings)| match set {
        // A value has one character at least.
        Strings::Exact { text, fold: false } if !text.is_empty() => json!({"name": name, "value": text}),
        Strings::Exact { text, .. } if text.is_empty() => {
            json!({"type": "RegularExpression", "name": name, "value": "^$"})
        }
        other => json!({"type": "RegularExpression", "name": name, "value": other.expression()}),
    };
    if !condition.headers.is_empty() {
        value.insert("headers".into(), condition.headers.iter().map(named).collect());
    }
    if !condition.query.is_empty() {
        value.insert("queryParams".into(), condition.query.iter().map(named).collect());
    }
    value.into()
}

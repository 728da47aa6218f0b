//! What can still be told of a document that cannot be read: enough to keep shut what it may have kept shut.

use crate::ObjectName;
use crate::document::Document;
use crate::kinds::Kind;
use crate::objects::{Identity, KINDS};
use crate::suggest::distance;
use crate::written::{Entry, Text};

/// Kinds that keep something shut, or say how, the strictest first: to serve without one that was written opens it.
const GUARDS: [&str; 5] =
    ["AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication", "Mesh", "ApiKeyPolicy"];

/// The group whose kinds are guards, all of them.
const SECURITY: &str = "security.istio.io";

/// What a document shows of itself.
pub(crate) enum Shown {
    /// A kind that keeps something shut.
    Guard(Lost),
    /// Another kind.
    Other,
    /// Nobody can tell.
    Nothing,
}

/// A guard that cannot be read.
pub(crate) struct Lost {
    pub(crate) kind: &'static str,
    pub(crate) name: ObjectName,
    /// Whether that is its name beyond doubt.
    pub(crate) is_named: bool,
}

/// Group and version; one without version has the group alone.
pub(crate) fn group_and_version(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some(parts) => parts,
        None if text.contains('.') => (text, ""),
        None => ("", text),
    }
}

/// Whether a kind is written for another: a letter is wrong at most, in whatever case.
pub(crate) fn is_slip(written: &str, meant: &str) -> bool {
    distance(&written.to_lowercase(), &meant.to_lowercase()) <= 1
}

/// What a document of a known kind is, if it keeps something shut.
pub(crate) fn by_metadata(identity: &Identity, document: &Document<'_>) -> Option<Lost> {
    let kind = Some(identity.kind).filter(|kind| GUARDS.contains(kind))?;
    let Ok(value) = document.read::<serde_json::Value>() else {
        return Some(lost(kind, identity.namespaced, written_metadata(document.text)));
    };
    Some(by_value(kind, identity.namespaced, &value))
}

/// The guards in a list; `items` is the kind of those that do not tell theirs.
pub(crate) fn in_list(items: Option<Kind>, document: &Document<'_>) -> Vec<Lost> {
    let value: serde_json::Value = document.read().unwrap_or_default();
    let objects = value.get("items").and_then(serde_json::Value::as_array).into_iter().flatten();
    let found = objects.filter_map(|object| {
        let text = |field: &str| object.get(field).and_then(serde_json::Value::as_str);
        let told = text("kind").and_then(|kind| {
            let group = text("apiVersion").map_or("", |version| group_and_version(version).0);
            KINDS.iter().find(|(g, k, _)| (*g, *k) == (group, kind)).copied()
        });
        let (_, kind, namespaced) = told.or(items).filter(|(_, kind, _)| GUARDS.contains(kind))?;
        Some(Lost { is_named: false, ..by_value(kind, namespaced, object) })
    });
    found.collect()
}

fn by_value(kind: &'static str, namespaced: bool, value: &serde_json::Value) -> Lost {
    let metadata = value.get("metadata").and_then(serde_json::Value::as_object);
    let namespace = match metadata.map(|metadata| metadata.get("namespace")) {
        Some(None | Some(serde_json::Value::Null)) => {
            let mut keys = metadata.into_iter().flat_map(serde_json::Map::keys);
            let is_slip = |key: &String| distance(&key.to_lowercase(), "namespace") <= 2;
            (!keys.any(is_slip) || metadata.is_some_and(|m| m.contains_key("namespace"))).then_some("default")
        }
        Some(Some(namespace)) => {
            let named = namespace.as_str().map(|name| if name.is_empty() { "default" } else { name });
            named.filter(|name| is_name(name))
        }
        None => None,
    };
    let name = metadata.and_then(|metadata| metadata.get("name")?.as_str());
    let is_named = name.is_some() && (namespace.is_some() || !namespaced);
    Lost { is_named, ..lost(kind, namespaced, (namespace, name)) }
}

/// What a document is by its text, if nothing else can be told.
pub(crate) fn by_text(document: &Document<'_>) -> Shown {
    let text = Text::of(document.text);
    let mut kinds: Vec<_> = text.values("kind", |entry| text.is_top(entry));
    let is_list = kinds.iter().any(|kind| kind.ends_with("List"));
    let groups = |wanted: &dyn Fn(&Entry<'_>) -> bool| -> Vec<_> {
        let versions = text.values("apiVersion", wanted).into_iter();
        versions.map(|version| group_and_version(version).0).collect()
    };
    let is_guarded =
        |group: &&str| KINDS.iter().any(|(g, kind, _)| GUARDS.contains(kind) && distance(g, group) <= 2);
    // A kind further in is one of an object if a group stands beside it: many a text has something to say about kinds.
    if is_list || (kinds.is_empty() && groups(&|_| true).iter().any(is_guarded)) {
        kinds.extend(text.values("kind", |_| true));
    }
    // Of several objects that run into each other any may be the guard.
    let groups = groups(&|entry| text.is_top(entry));
    let is_near = |wanted: &str| groups.iter().any(|group| distance(group, wanted) <= 2);
    let is_of = |wanted: &str| is_list || groups.is_empty() || is_near(wanted);
    let is_written = |kind: &str| kinds.iter().any(|written| is_slip(written.trim_end_matches("List"), kind));
    let mut guards = GUARDS.iter().filter_map(|guard| KINDS.iter().find(|(_, kind, _)| kind == guard));
    let guard = guards.find(|(group, kind, _)| is_of(group) && is_written(kind));
    // One of this group that does not tell its kind counts as the strictest.
    let is_security = kinds.is_empty() && is_near(SECURITY);
    // Those of a list are of whatever namespaces.
    let metadata = || if is_list { (None, None) } else { written_metadata(document.text) };
    match guard {
        Some((_, kind, namespaced)) => Shown::Guard(lost(kind, *namespaced, metadata())),
        None if is_security => Shown::Guard(lost("AuthorizationPolicy", true, metadata())),
        None if kinds.is_empty() && groups.is_empty() => Shown::Nothing,
        None => Shown::Other,
    }
}

fn lost(kind: &'static str, namespaced: bool, (namespace, name): (Option<&str>, Option<&str>)) -> Lost {
    let namespace = namespace.filter(|_| namespaced).unwrap_or_default().into();
    let name = name.unwrap_or("(without name)").into();
    Lost { kind, name: ObjectName { namespace, name }, is_named: false }
}

/// `namespace` and `name` as they are written below `metadata`.
fn written_metadata(text: &str) -> (Option<&str>, Option<&str>) {
    let text = Text::of(text);
    let children = text.children("metadata");
    let only = |key: &str| {
        let mut values = children.iter().filter(|entry| entry.key == key).map(|entry| entry.value);
        let first = values.next().filter(|value| is_name(value))?;
        values.all(|other| other == first).then_some(first)
    };
    (only("namespace"), only("name"))
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !text.is_empty() && text.bytes().all(allowed)
}

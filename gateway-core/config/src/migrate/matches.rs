//! `http[].match`: what a rule asks of a request, as alternatives.

use super::condition::Condition;
use super::cursor::Cursor;
use super::order::{Alternative, PathRewrite};
use super::strings::Strings;
use super::virtual_service::MESH;
use crate::matches::check_path;

/// Alternatives with the gateways that each is for; `None`: for all.
pub(super) type Scoped = (Option<Vec<String>>, Alternative);

/// The alternatives of a rule. One that cannot be written is left out: it must not take what it did not take before.
pub(super) fn read(block: Option<Cursor<'_>>, rule: usize) -> Vec<Scoped> {
    let Some(block) = block.filter(|block| !block.items().is_empty()) else {
        return vec![(None, Alternative::any(rule))];
    };
    block.items().iter().flat_map(|request| one(request, rule)).collect()
}

/// A gateway by its whole name: without a namespace it is in the object's own.
pub(super) fn gateway(name: &str, own: &str) -> String {
    if name == MESH || name.contains('/') { name.to_owned() } else { format!("{own}/{name}") }
}

/// Methods that a match may name (Gateway API, `HTTPMethod`).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

const NOT_ASKED: &str =
    "routes do not ask for it: the match is left out, and its requests go on to the rules after it";

fn one(request: &Cursor<'_>, rule: usize) -> Vec<Scoped> {
    let fields = request.fields();
    let mut whole = true;
    for name in ["scheme", "authority", "port", "sourceLabels", "sourceNamespace"] {
        whole &= !fields.refuse(name, NOT_ASKED);
    }
    fields.skip("name", "names of matches are for statistics");
    fields.skip("statPrefix", "metrics are by the names of routes and rules");
    let fold = fields.take("ignoreUriCase").and_then(|field| field.boolean()).unwrap_or(false);
    let mut condition = Condition::any();
    if let Some(uri) = fields.take("uri") {
        match strings(&uri, fold) {
            // Every path begins so.
            Some(Strings::Prefix { text, .. }) if text.is_empty() || text == "/" => {}
            Some(path) => condition.path = path,
            None => whole = false,
        }
    }
    let methods = match fields.take("method") {
        None => vec![None],
        Some(field) => match methods(&field) {
            Some(methods) => methods.into_iter().map(Some).collect(),
            None => Vec::new(),
        },
    };
    for (name, field) in fields.take("headers").iter().flat_map(Cursor::entries) {
        match header(name, &field) {
            Header::Asked(value) => drop(condition.headers.insert(name.to_ascii_lowercase(), value)),
            Header::Ignored => {}
            Header::Unwritable => whole = false,
        }
    }
    for (name, field) in fields.take("queryParams").iter().flat_map(Cursor::entries) {
        match value(&field) {
            Some(value) => drop(condition.query.insert(name.to_owned(), value)),
            None => whole = false,
        }
    }
    let mut without = Vec::new();
    for (name, field) in fields.take("withoutHeaders").iter().flat_map(Cursor::entries) {
        match header(name, &field) {
            Header::Asked(value) => without.push((name.to_ascii_lowercase(), value)),
            Header::Ignored => {}
            Header::Unwritable => whole = false,
        }
    }
    let gateways = fields.take("gateways").map(|list| {
        list.texts().into_iter().map(|(text, field)| gateway(text, &field.object().name.namespace)).collect()
    });
    if !whole {
        return Vec::new();
    }
    let alternative = |method| {
        let condition = Condition { method, ..condition.clone() };
        (gateways.clone(), Alternative { condition, without: without.clone(), ..Alternative::any(rule) })
    };
    methods.into_iter().map(alternative).collect()
}

/// A `StringMatch`; an error is reported.
fn strings(field: &Cursor<'_>, fold: bool) -> Option<Strings> {
    let fields = field.fields();
    let text = |name: &str| fields.take(name).and_then(|cursor| Some((cursor.text()?.to_owned(), cursor)));
    match (text("exact"), text("prefix"), text("regex")) {
        (Some((text, _)), None, None) => Some(Strings::Exact { text, fold }),
        (None, Some((text, _)), None) => Some(Strings::Prefix { text, fold }),
        (None, None, Some((text, cursor))) => match Strings::pattern(&text) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                cursor.lost(format!("{why}: the match is left out"));
                None
            }
        },
        _ => {
            field.lost("has not one of `exact`, `prefix` and `regex`: the match is left out");
            None
        }
    }
}

/// The same of a header or parameter, where nothing at all asks for its presence.
fn value(field: &Cursor<'_>) -> Option<Strings> {
    if field.is_blank() { Some(Strings::Any) } else { strings(field, false) }
}

/// What is asked of a header.
enum Header {
    Asked(Strings),
    /// Istio does not ask either.
    Ignored,
    /// It cannot be written, which is reported.
    Unwritable,
}

fn header(name: &str, field: &Cursor<'_>) -> Header {
    if matches!(name, "uri" | "scheme" | "method" | "authority") {
        field.note("Istio ignores this name among headers");
        return Header::Ignored;
    }
    if name.parse::<http::HeaderName>().is_err() {
        field.lost("is not the name of a header: the match is left out");
        return Header::Unwritable;
    }
    value(field).map_or(Header::Unwritable, Header::Asked)
}

/// Methods by name; an expression is read if it is a list of names.
fn methods(field: &Cursor<'_>) -> Option<Vec<String>> {
    let names: Vec<String> = match strings(field, false)? {
        Strings::Exact { text, .. } => vec![text],
        Strings::Pattern { text, .. } => {
            let bare = text.trim_start_matches('^').trim_end_matches('$');
            let bare = bare.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(bare);
            bare.split('|').map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    if names.is_empty() || !names.iter().all(|name| METHODS.contains(&name.as_str())) {
        field.lost("is not a method that routes can name, or a list of them: the match is left out");
        return None;
    }
    Some(names)
}

/// Gives an alternative the rewrite of its rule's path.
pub(super) fn rewrite(alternative: &mut Alternative, uri: &str, field: &Cursor<'_>) {
    let rooted = uri.starts_with('/') && !uri.contains(['?', '#']);
    if !rooted {
        field.lost(format!("`{uri}` is not a path: the path stays as it is"));
        return;
    }
    let prefix = match &alternative.condition.path {
        Strings::Exact { .. } => {
            alternative.rewrite = Some(PathRewrite::Full(uri.to_owned()));
            return;
        }
        Strings::Prefix { text, fold: false } => text.clone(),
        Strings::Any => "/".to_owned(),
        Strings::Element(_) | Strings::Prefix { .. } | Strings::Pattern { .. } => {
            field.lost(
                "the part of the path that an expression took cannot be replaced: the path stays as it is",
            );
            return;
        }
    };
    let bare = prefix.trim_end_matches('/');
    let slashes = prefix.ends_with('/') == uri.ends_with('/');
    if !slashes {
        field.changed(format!(
            "Istio replaces characters and a route replaces segments: `{prefix}x` became `{uri}x` and becomes \
             `{}/x`",
            uri.trim_end_matches('/')
        ));
    }
    if prefix == "/" && uri == "/" {
        return;
    }
    if !bare.is_empty() && check_path(bare).is_err() {
        field.lost(format!("`{bare}` is no prefix that a route can replace: the path stays as it is"));
        return;
    }
    if !bare.is_empty() {
        field.changed(if prefix.ends_with('/') {
            format!("the path `{bare}` is taken as well")
        } else {
            format!("paths such as `{bare}x` are no longer taken: a prefix is whole segments")
        });
        alternative.condition.path = Strings::Element(bare.to_owned());
    }
    alternative.rewrite = Some(PathRewrite::Prefix(uri.to_owned()));
}

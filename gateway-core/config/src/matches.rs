//! Matches of routes: from what is written to what the route table compares.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_saphyr::Location;
use towpath_routing::{HeaderMatch, PathMatch, QueryMatch, RequestMatch, ValueMatch};

use crate::document::Defect;
use crate::resources::Text;
use crate::resources::route::{GrpcMatch, GrpcMethod, HeaderSpec, HttpMatch, PathKind, PathSpec, ValueKind};

/// Longest path (Gateway API, `HTTPPathMatch.value`). Prefixes are a tree as deep as they have segments.
const MAX_PATH: usize = 1024;

/// Longest expression that is read, in bytes (Gateway API, `HTTPPathMatch.value`).
const MAX_EXPRESSION: usize = 1024;

/// A compiled expression may take this many bytes.
const MAX_PROGRAM: usize = 1 << 20;

/// A kind of match.
pub(crate) trait Match {
    /// The match as the route table has it. What is wrong with it is added to `found`.
    fn compile(&self, found: &mut Vec<Defect>) -> RequestMatch;

    /// Whether the path is compared as a prefix.
    fn is_prefix(&self) -> bool;
}

impl Match for HttpMatch {
    fn compile(&self, found: &mut Vec<Defect>) -> RequestMatch {
        RequestMatch {
            path: self.path.as_ref().map_or_else(any_path, |path| compile_path(path, found)),
            method: self.method.as_ref().map(|method| method.0.clone()),
            headers: headers(&self.headers, found),
            query: self
                .query_params
                .iter()
                .filter_map(|query| {
                    let value = value(query.kind, &query.value, found)?;
                    Some(QueryMatch { name: query.name.as_str().into(), value })
                })
                .collect(),
        }
    }

    fn is_prefix(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.kind == PathKind::PathPrefix)
    }
}

impl Match for GrpcMatch {
    fn compile(&self, found: &mut Vec<Defect>) -> RequestMatch {
        let path = self
            .method
            .as_ref()
            .map_or_else(any_path, |method| grpc_path(&method.value, method.referenced, found));
        RequestMatch { path, headers: headers(&self.headers, found), ..RequestMatch::default() }
    }

    fn is_prefix(&self) -> bool {
        false
    }
}

fn any_path() -> PathMatch {
    PathMatch::Prefix("/".into())
}

fn compile_path(path: &PathSpec, found: &mut Vec<Defect>) -> PathMatch {
    let Some(text) = &path.value else {
        return any_path();
    };
    if path.kind == PathKind::RegularExpression {
        return expression(&text.value, text.referenced, found).map_or_else(any_path, PathMatch::Regex);
    }
    if let Err(message) = check_path(&text.value) {
        found.push(Defect::new(text.referenced, message));
    }
    match path.kind {
        PathKind::Exact => PathMatch::Exact(text.value.as_str().into()),
        _ => PathMatch::Prefix(text.value.as_str().into()),
    }
}

/// The rules that the Gateway API sets for exact paths and prefixes: they are in normal form.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if path.len() > MAX_PATH {
        return Err(format!("a path passes {MAX_PATH} bytes"));
    }
    if !path.starts_with('/') {
        return Err(format!("path `{path}` does not begin with `/`"));
    }
    let forbidden = ["//", "/./", "/../", "%2f", "%2F", "#"].into_iter().find(|part| path.contains(part));
    let forbidden = forbidden.or_else(|| ["/..", "/."].into_iter().find(|end| path.ends_with(end)));
    forbidden.map_or(Ok(()), |part| {
        Err(format!("path `{path}` has `{part}`: it can never match a normalized path"))
    })
}

fn grpc_path(method: &GrpcMethod, location: Location, found: &mut Vec<Defect>) -> PathMatch {
    let (service, name) = (method.service.as_deref(), method.method.as_deref());
    let text = match (method.kind, service, name) {
        (_, None, None) => {
            found.push(Defect::new(location, "a method match names a service, a method or both"));
            return any_path();
        }
        (ValueKind::Exact, Some(service), Some(name)) => {
            return PathMatch::Exact(format!("/{service}/{name}").into());
        }
        (ValueKind::Exact, Some(service), None) => return PathMatch::Prefix(format!("/{service}").into()),
        (ValueKind::Exact, None, Some(name)) => format!("/[^/]+/{}", regex::escape(name)),
        (ValueKind::RegularExpression, service, name) => {
            format!("/(?:{})/(?:{})", service.unwrap_or("[^/]+"), name.unwrap_or("[^/]+"))
        }
    };
    expression(&text, location, found).map_or_else(any_path, PathMatch::Regex)
}

fn headers(specs: &[HeaderSpec], found: &mut Vec<Defect>) -> Vec<HeaderMatch> {
    let compile = |spec: &HeaderSpec| {
        Some(HeaderMatch { name: spec.name.0.clone(), value: value(spec.kind, &spec.value, found)? })
    };
    specs.iter().filter_map(compile).collect()
}

fn value(kind: ValueKind, text: &Text, found: &mut Vec<Defect>) -> Option<ValueMatch> {
    match kind {
        ValueKind::Exact => Some(ValueMatch::Exact(Arc::from(text.value.as_str()))),
        ValueKind::RegularExpression => {
            expression(&text.value, text.referenced, found).map(ValueMatch::Regex)
        }
    }
}

fn expression(text: &str, location: Location, found: &mut Vec<Defect>) -> Option<Regex> {
    whole(text).map_err(|message| found.push(Defect::new(location, message))).ok()
}

/// An expression over the whole text; an error says what is wrong with it.
pub(crate) fn whole(text: &str) -> Result<Regex, String> {
    if text.len() > MAX_EXPRESSION {
        return Err(format!("the expression passes {MAX_EXPRESSION} bytes"));
    }
    // The expression is read alone first: `a)(b` must not become valid through the brackets put around it.
    let alone = RegexBuilder::new(text).size_limit(MAX_PROGRAM).build();
    let whole =
        alone.and_then(|_| RegexBuilder::new(&format!("^(?:{text})$")).size_limit(MAX_PROGRAM).build());
    whole.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{text}` is not a regular expression: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled<M: Match + serde::de::DeserializeOwned>(text: &str) -> Result<RequestMatch, String> {
        let mut found = Vec::new();
        let request = serde_saphyr::from_str::<M>(text).unwrap().compile(&mut found);
        found.pop().map_or(Ok(request), |defect| Err(defect.message))
    }

    #[test]
    fn expressions_hold_for_the_whole_text() {
        let request = compiled::<HttpMatch>("path: {type: RegularExpression, value: '/a|/b.*'}").unwrap();
        let PathMatch::Regex(regex) = request.path else { panic!("{request:?}") };
        for (path, expected) in [("/a", true), ("/b/c", true), ("/ax", false), ("x/a", false)] {
            assert_eq!(regex.is_match(path), expected, "{path}");
        }
    }

    #[test]
    fn refuses_what_cannot_match() {
        for (text, message) in [
            ("path: {type: RegularExpression, value: 'a)(b'}", "not a regular expression"),
            ("path: {type: RegularExpression, value: '(x{1000}){1000}'}", "not a regular expression"),
            ("path: {value: a}", "does not begin with `/`"),
            ("path: {type: Exact, value: /a//b}", "`//`"),
            ("path: {type: Exact, value: /a/..}", "`/..`"),
            ("headers: [{name: a, type: RegularExpression, value: '['}]", "not a regular expression"),
            ("queryParams: [{name: a, type: RegularExpression, value: '['}]", "not a regular expression"),
        ] {
            let error = compiled::<HttpMatch>(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn grpc_methods_are_paths() {
        let path = |text: &str| match compiled::<GrpcMatch>(text).unwrap().path {
            PathMatch::Exact(path) => format!("= {path}"),
            PathMatch::Prefix(path) => format!("^ {path}"),
            PathMatch::Regex(regex) => format!("~ {}", regex.as_str()),
        };
        assert_eq!(path("method: {service: a.B, method: C}"), "= /a.B/C");
        assert_eq!(path("method: {service: a.B}"), "^ /a.B");
        assert_eq!(path("method: {method: C.D}"), r"~ ^(?:/[^/]+/C\.D)$");
        assert_eq!(path("method: {type: RegularExpression, service: 'a|b'}"), "~ ^(?:/(?:a|b)/(?:[^/]+))$");
        assert_eq!(path("{}"), "^ /");
    }
}

//! Filters of rules and backends: from what is written to what the filter layer carries out.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_saphyr::Location;
use towpath_routing::{Cors, Filters, HeaderModifier, Names, OriginPattern, PathRewrite, Redirect, Rewrite};

use crate::document::Defect;
use crate::external_auth;
use crate::resources::Text;
use crate::resources::route::{
    CorsSpec, FilterSpec, HeaderLine, HeaderModifierSpec, MirrorSpec, PathModifier, PathModifierKind,
    RedirectSpec, RewriteSpec, SchemeSpec,
};
use crate::suggest::nearest;

/// The types that are carried out.
const TYPES: [&str; 8] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
    "CORS",
    "ExternalAuth",
    "ExtensionRef",
];

/// Filters as they are carried out, and what cannot be.
#[derive(Default)]
pub(crate) struct Compiled {
    pub(crate) filters: Filters,
    pub(crate) cors: Option<Cors>,
    /// Filters that are not carried out: the rule answers 500 rather than serve without them.
    pub(crate) unsupported: Vec<Defect>,
}

/// Compiles the filters of a rule. `prefixed`: every match of the rule compares a path prefix, so that it can be
/// replaced. What is wrong with a filter by itself is added to `found`.
pub(crate) fn compile(specs: &[FilterSpec], prefixed: bool, found: &mut Vec<Defect>) -> Compiled {
    let mut compiled = Compiled::default();
    let mut seen: Vec<&str> = Vec::new();
    for spec in specs {
        let kind = spec.kind.value.as_str();
        if !TYPES.contains(&kind) {
            compiled.filters.unresolved = true;
            compiled.unsupported.push(unsupported(&spec.kind));
            continue;
        }
        // Only these may be there more than once (Gateway API, `HTTPRouteFilter`).
        if seen.contains(&kind) && !matches!(kind, "RequestMirror" | "ExtensionRef") {
            found.push(Defect::new(spec.kind.referenced, format!("filter {kind} is there twice")));
        }
        seen.push(kind);
        carry_out(spec, prefixed, &mut compiled, found);
    }
    if let (true, Some(spec)) =
        (compiled.filters.redirect.is_some() && compiled.filters.rewrite.is_some(), specs.first())
    {
        found.push(Defect::new(spec.kind.referenced, "URLRewrite and RequestRedirect exclude each other"));
    }
    compiled
}

fn unsupported(kind: &Text) -> Defect {
    let word = kind.value.as_str();
    let message = format!("unknown filter `{word}`: requests that this rule takes end as 500");
    let defect = Defect::new(kind.referenced, message);
    match nearest(word, TYPES) {
        Some(meant) => defect.suggest(format!("did you mean `{meant}`?")),
        None => defect,
    }
}

fn carry_out(spec: &FilterSpec, prefixed: bool, compiled: &mut Compiled, found: &mut Vec<Defect>) {
    let filters = &mut compiled.filters;
    let at = spec.kind.referenced;
    let missing = |field: &str| Defect::new(at, format!("filter {} has no `{field}`", spec.kind.value));
    match spec.kind.value.as_str() {
        "RequestHeaderModifier" => match &spec.request_header_modifier {
            Some(spec) => filters.request_headers = modifier(spec, at, found),
            None => found.push(missing("requestHeaderModifier")),
        },
        "ResponseHeaderModifier" => match &spec.response_header_modifier {
            Some(spec) => filters.response_headers = modifier(spec, at, found),
            None => found.push(missing("responseHeaderModifier")),
        },
        "RequestRedirect" => match &spec.request_redirect {
            Some(spec) => filters.redirect = Some(redirect(spec, prefixed, found)),
            None => found.push(missing("requestRedirect")),
        },
        // Its backend is resolved with those of the rule.
        "RequestMirror" => match &spec.request_mirror {
            Some(mirror) => check_share(mirror, at, found),
            None => found.push(missing("requestMirror")),
        },
        "ExternalAuth" => match &spec.external_auth {
            Some(spec) => external_auth::check(spec, at, found),
            None => found.push(missing("externalAuth")),
        },
        // What it names is found with the backends, too.
        "ExtensionRef" if spec.extension_ref.is_none() => found.push(missing("extensionRef")),
        "ExtensionRef" => {}
        "CORS" => match &spec.cors {
            Some(spec) => compiled.cors = Some(cors(spec, found)),
            None => found.push(missing("cors")),
        },
        _ => match &spec.url_rewrite {
            Some(spec) => filters.rewrite = Some(rewrite(spec, prefixed, found)),
            None => found.push(missing("urlRewrite")),
        },
    }
}

/// Of how many requests a mirror gets how many.
pub(crate) fn share(spec: &MirrorSpec) -> (u32, u32) {
    match (&spec.percent, spec.fraction) {
        (Some(percent), _) => (percent.value, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, None) => (1, 1),
    }
}

fn check_share(spec: &MirrorSpec, at: Location, found: &mut Vec<Defect>) {
    if spec.percent.is_some() && spec.fraction.is_some() {
        found.push(Defect::new(at, "a mirror has `percent` or `fraction`, not both"));
    }
    let (numerator, denominator) = share(spec);
    if denominator == 0 || numerator > denominator {
        found.push(Defect::new(at, format!("{numerator} of {denominator} is no share of the requests")));
    }
}

/// How long browsers keep the answer to a preflight where nothing is said (Gateway API, `HTTPCORSFilter.maxAge`).
const MAX_AGE: u32 = 5;

fn cors(spec: &CorsSpec, found: &mut Vec<Defect>) -> Cors {
    let mut origins = Vec::new();
    for origin in &spec.allow_origins {
        match OriginPattern::new(&origin.value) {
            Some(pattern) => origins.push(pattern),
            None => found.push(
                Defect::new(origin.referenced, format!("`{}` is not an origin", origin.value)).suggest(
                    "write `scheme://host[:port]`, with `*.` before the host for all below it, or `*`",
                ),
            ),
        }
    }
    Cors {
        origins,
        methods: names(&spec.allow_methods, found),
        headers: names(&spec.allow_headers, found),
        expose: names(&spec.expose_headers, found),
        credentials: spec.allow_credentials,
        max_age: Duration::from_secs(u64::from(spec.max_age.unwrap_or(MAX_AGE))),
    }
}

fn names(list: &[Text], found: &mut Vec<Defect>) -> Names {
    if list.iter().any(|name| name.value == "*") {
        return Names::Any;
    }
    // Methods are tokens as the names of headers are, but keep their case.
    for name in list.iter().filter(|name| HeaderName::from_bytes(name.value.as_bytes()).is_err()) {
        found.push(Defect::new(name.referenced, format!("`{}` is not a token", name.value)));
    }
    let joined: Vec<_> = list.iter().map(|name| name.value.as_str()).collect();
    match HeaderValue::from_str(&joined.join(", ")) {
        Ok(value) if !list.is_empty() => Names::Listed(value),
        _ => Names::None,
    }
}

fn modifier(spec: &HeaderModifierSpec, at: Location, found: &mut Vec<Defect>) -> HeaderModifier {
    let pair = |line: &HeaderLine| (line.name.0.clone(), line.value.0.clone());
    let names: Vec<&HeaderName> = spec.set.iter().chain(&spec.add).map(|line| &line.name.0).collect();
    let framing =
        |name: &&HeaderName| ["content-length", "transfer-encoding", "connection"].contains(&name.as_str());
    if let Some(name) = names.into_iter().chain(spec.remove.iter().map(|name| &name.0)).find(framing) {
        found.push(Defect::new(at, format!("`{name}` frames the message: it cannot be changed by a filter")));
    }
    HeaderModifier {
        set: spec.set.iter().map(pair).collect(),
        add: spec.add.iter().map(pair).collect(),
        remove: spec.remove.iter().map(|name| name.0.clone()).collect(),
    }
}

fn redirect(spec: &RedirectSpec, prefixed: bool, found: &mut Vec<Defect>) -> Redirect {
    let status = spec.status_code.as_ref().map_or(StatusCode::FOUND, |status| status.value.0);
    if let (Some(given), false) = (&spec.status_code, matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308))
    {
        found.push(Defect::new(
            given.referenced,
            format!("{} does not redirect: 301, 302, 303, 307 and 308 do", status.as_u16()),
        ));
    }
    Redirect {
        scheme: spec.scheme.map(|scheme| match scheme {
            SchemeSpec::Http => "http".into(),
            SchemeSpec::Https => "https".into(),
        }),
        host: spec.hostname.as_ref().map(|host| host.0.clone()),
        port: spec.port,
        path: spec.path.as_ref().and_then(|path| path_rewrite(path, prefixed, found)),
        status,
    }
}

fn rewrite(spec: &RewriteSpec, prefixed: bool, found: &mut Vec<Defect>) -> Rewrite {
    Rewrite {
        host: spec.hostname.as_ref().map(|host| host.0.clone()),
        path: spec.path.as_ref().and_then(|path| path_rewrite(path, prefixed, found)),
    }
}

fn path_rewrite(spec: &PathModifier, prefixed: bool, found: &mut Vec<Defect>) -> Option<PathRewrite> {
    let at = spec.kind.referenced;
    let (value, other, field) = match spec.kind.value {
        PathModifierKind::ReplaceFullPath => {
            (&spec.replace_full_path, &spec.replace_prefix_match, "replaceFullPath")
        }
        PathModifierKind::ReplacePrefixMatch => {
            (&spec.replace_prefix_match, &spec.replace_full_path, "replacePrefixMatch")
        }
    };
    let Some(value) = value.as_deref().filter(|_| other.is_none()) else {
        found.push(Defect::new(at, format!("this type needs `{field}` and nothing else")));
        return None;
    };
    if value.bytes().any(|b| b.is_ascii_control() || matches!(b, b' ' | b'?' | b'#')) {
        found.push(Defect::new(at, format!("`{value}` is not a path")));
    }
    match spec.kind.value {
        PathModifierKind::ReplaceFullPath => Some(PathRewrite::Full(value.into())),
        PathModifierKind::ReplacePrefixMatch => {
            if !prefixed {
                let message = "ReplacePrefixMatch needs a rule whose matches are all of type PathPrefix";
                found.push(Defect::new(at, message));
            }
            Some(PathRewrite::Prefix(value.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str, prefixed: bool) -> (Compiled, Vec<String>) {
        let specs: Vec<FilterSpec> = serde_saphyr::from_str(text).unwrap();
        let mut found = Vec::new();
        let compiled = compile(&specs, prefixed, &mut found);
        (compiled, found.into_iter().map(|defect| defect.message).collect())
    }

    #[test]
    fn a_filter_that_is_not_served_is_never_left_out_in_silence() {
        for (kind, suggestion) in [
            ("ExternalAut", Some("did you mean `ExternalAuth`?")),
            ("UrlRewrit", Some("did you mean `URLRewrite`?")),
            ("Other", None),
        ] {
            let (compiled, found) = compiled(&format!("[{{type: {kind}}}]"), true);
            assert!(compiled.filters.unresolved && found.is_empty(), "{kind}");
            assert_eq!(compiled.unsupported[0].suggestion.as_deref(), suggestion, "{kind}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_filter() {
        for (text, message) in [
            ("[{type: URLRewrite}]", "has no `urlRewrite`"),
            ("[{type: RequestRedirect, requestRedirect: {statusCode: 200}}]", "200 does not redirect"),
            (
                "[{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /}}}]",
                "needs `replaceFullPath`",
            ),
            (
                "[{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
                "PathPrefix",
            ),
            (
                "[{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}}}]",
                "is not a path",
            ),
            (
                "[{type: RequestHeaderModifier, requestHeaderModifier: {remove: [content-length]}}]",
                "`content-length` frames the message",
            ),
            ("[{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]", "is there twice"),
            (
                "[{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]",
                "exclude each other",
            ),
        ] {
            let (_, found) = compiled(text, false);
            assert!(found.iter().any(|found| found.contains(message)), "{text}: {found:?}");
        }
    }

    #[test]
    fn the_default_redirect_is_302() {
        let (compiled, found) =
            compiled("[{type: RequestRedirect, requestRedirect: {scheme: https}}]", false);
        let redirect = compiled.filters.redirect.unwrap();
        assert_eq!(
            (redirect.status, redirect.scheme.as_deref(), found.len()),
            (StatusCode::FOUND, Some("https"), 0)
        );
    }
}

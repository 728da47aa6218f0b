//! Routes as data: what configuration hands to the table. Every reference is resolved, every expression compiled.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;
use towpath_gateway_core::{Backend, Policies, RouteName};

use crate::Hostname;
use crate::filter::Draw;

/// A listener of a Gateway with the routes attached to it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// `namespace/gateway/listener`, for logs.
    pub name: Arc<str>,
    /// Hosts it is for.
    pub hostname: Hostname,
    /// The port that the resource names (not the one a port map puts in its place): redirects use it.
    pub port: u16,
    /// Whether clients speak TLS to it: redirects that keep the scheme use it.
    pub https: bool,
    /// Routes attached, their host names already narrowed to this listener's.
    pub routes: Vec<Route>,
}

/// One route resource, as far as it concerns one listener.
#[derive(Debug, Clone)]
pub struct Route {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// When the object was made, in seconds since the epoch: of equal rules the oldest wins.
    pub created: i64,
    /// Hosts it is for; empty means [`Hostname::Any`].
    pub hostnames: Vec<Hostname>,
    /// Rules in the resource's order.
    pub rules: Vec<Rule>,
}

/// One rule: any of its matches takes a request.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Name for logs and metrics.
    pub name: RouteName,
    /// Alternatives; empty means the match of every path.
    pub matches: Vec<RequestMatch>,
    /// What is done to requests and responses.
    pub filters: Filters,
    /// Where requests go. Empty with no redirect: 500 (Gateway API, `backendRefs`).
    pub backends: Vec<WeightedBackend>,
    /// Settings of layers for this rule.
    pub policies: Policies,
}

/// What a request must be like; every part given has to hold.
#[derive(Debug, Clone)]
pub struct RequestMatch {
    /// Path.
    pub path: PathMatch,
    /// Method; `None` takes all.
    pub method: Option<Method>,
    /// Headers. Of entries with the same name only the first counts.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters. Of entries with the same name only the first counts.
    pub query: Vec<QueryMatch>,
}

impl Default for RequestMatch {
    fn default() -> Self {
        Self { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new() }
    }
}

/// How a path is compared. Case counts.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Whole segments at the front: `/abc` takes `/abc` and `/abc/d`, not `/abcd`; a trailing slash is ignored.
    Prefix(Arc<str>),
    /// A regular expression over the whole path (anchored by whoever compiles it).
    Regex(Regex),
}

/// How a value is compared.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// Byte by byte.
    Exact(Arc<str>),
    /// A regular expression over the whole value (anchored by whoever compiles it).
    Regex(Regex),
}

/// A header that must be there. Repeated lines are joined with `,` first (RFC 9110 section 5.2).
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    /// Name.
    pub name: HeaderName,
    /// Value.
    pub value: ValueMatch,
}

/// A query parameter that must be there. Of repeated parameters the first counts.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    /// Name, case counts.
    pub name: Arc<str>,
    /// Value.
    pub value: ValueMatch,
}

/// What a rule does besides choosing a backend.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Changes to request headers.
    pub request_headers: HeaderModifier,
    /// Changes to response headers.
    pub response_headers: HeaderModifier,
    /// Another host or path for the backend.
    pub rewrite: Option<Rewrite>,
    /// An answer that sends the client elsewhere.
    pub redirect: Option<Redirect>,
    /// Where copies of requests go.
    pub mirrors: Vec<Mirror>,
    /// A filter that could not be resolved: requests end as 500 and are never served without it.
    pub unresolved: bool,
}

/// A backend that gets copies of a share of the requests; its answers are thrown away.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where.
    pub backend: Arc<Backend>,
    /// Of so many requests…
    pub denominator: u32,
    /// …so many are copied.
    pub numerator: u32,
}

impl Mirror {
    /// Every request is copied.
    pub fn all(backend: Arc<Backend>) -> Self {
        Self { backend, denominator: 1, numerator: 1 }
    }

    pub(crate) fn takes(&self, draw: &impl Draw) -> bool {
        match (self.numerator, u64::from(self.denominator)) {
            (0, _) | (_, 0) => false,
            (numerator, denominator) if u64::from(numerator) >= denominator => true,
            (numerator, denominator) => draw.below(denominator) < u64::from(numerator),
        }
    }
}

/// Changes to headers, carried out in the order set, add, remove.
#[derive(Debug, Clone, Default)]
pub struct HeaderModifier {
    /// Replaces all lines of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a line.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Drops all lines of the name.
    pub remove: Vec<HeaderName>,
}

/// Another host or path.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// `Host` towards the backend.
    pub host: Option<Arc<str>>,
    /// Path towards the backend.
    pub path: Option<PathRewrite>,
}

/// A changed path. The query is kept.
#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// The whole path.
    Full(Arc<str>),
    /// The prefix that matched, by the specification's table for joining slashes.
    Prefix(Arc<str>),
}

/// Sends the client elsewhere. What is `None` is kept as in the request.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// Host.
    pub host: Option<Arc<str>>,
    /// Port; `None`: the well-known port of a changed scheme, else the listener's.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// A backend with its share of the rule's requests.
#[derive(Debug, Clone)]
pub struct WeightedBackend {
    /// Where.
    pub backend: Arc<Backend>,
    /// Share; 0 takes none.
    pub weight: u32,
    /// Changes to request headers for this backend.
    pub request_headers: HeaderModifier,
    /// Changes to response headers from this backend.
    pub response_headers: HeaderModifier,
    /// Another host or path for this backend, in place of the rule's where both say one.
    pub rewrite: Option<Rewrite>,
    /// An answer that sends the client elsewhere, for this backend's share of the requests.
    pub redirect: Option<Redirect>,
}

impl Listener {
    /// A plaintext listener for every host.
    pub fn http(name: impl Into<Arc<str>>, port: u16, routes: Vec<Route>) -> Self {
        Self { name: name.into(), hostname: Hostname::Any, port, https: false, routes }
    }
}

impl Route {
    /// A route for every host with these rules.
    pub fn new(name: impl Into<Arc<str>>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), created: 0, hostnames: Vec::new(), rules }
    }
}

impl Rule {
    /// A rule without filters and policies that sends what matches to `backends`. No match takes every path.
    pub fn new(name: RouteName, matches: Vec<RequestMatch>, backends: Vec<WeightedBackend>) -> Self {
        Self { name, matches, filters: Filters::default(), backends, policies: Policies::default() }
    }
}

impl RequestMatch {
    /// Takes every request whose path begins with these segments.
    pub fn prefix(prefix: impl Into<Arc<str>>) -> Self {
        Self { path: PathMatch::Prefix(prefix.into()), ..Self::default() }
    }
}

impl WeightedBackend {
    /// A backend with its share and no filters of its own.
    pub fn new(backend: Arc<Backend>, weight: u32) -> Self {
        let (request_headers, response_headers) = Default::default();
        Self { backend, weight, request_headers, response_headers, rewrite: None, redirect: None }
    }
}

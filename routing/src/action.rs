//! What a rule does with the requests it takes, worked out when configuration is applied.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use towpath_gateway_core::Policy;

use crate::filter::Split;
use crate::session;
use crate::{Filters, Listener, PathMatch, PathRewrite, Rewrite, Rule, WeightedBackend};

/// The action of a rule as [`FilterLayer`](crate::FilterLayer) finds it among the route's settings. Tables make it;
/// a clone shares everything.
#[derive(Debug, Clone)]
pub struct RuleAction {
    pub(crate) rule: Arc<RuleParts>,
    /// Prefix that the match entry names, without trailing slash; `None` if it names no prefix.
    pub(crate) prefix: Option<Arc<str>>,
    /// Path that every request of the match entry is below, for cookies.
    pub(crate) scope: Arc<str>,
    /// Whether every filter can be carried out for this match entry.
    pub(crate) sound: bool,
}

impl Policy for RuleAction {}

#[derive(Debug)]
pub(crate) struct RuleParts {
    pub(crate) filters: Filters,
    pub(crate) split: Split,
    /// The rewritten host in the forms that requests need.
    pub(crate) host: Option<HostForms>,
    /// The same for each backend that has one of its own.
    pub(crate) own_hosts: Vec<Option<HostForms>>,
    /// Port of the listener.
    pub(crate) port: u16,
    /// Whether the listener's clients speak TLS.
    pub(crate) https: bool,
}

/// A host as header and as a part of a URI.
pub(crate) type HostForms = (HeaderValue, Authority);

impl RuleAction {
    pub(crate) fn of(rule: &Rule, listener: &Listener) -> Self {
        let wanted = |rewrite: &Option<Rewrite>| rewrite.as_ref().and_then(|rewrite| rewrite.host.clone());
        let host = wanted(&rule.filters.rewrite).and_then(|host| host_forms(&host));
        let own = rule.backends.iter().map(|backend| wanted(&backend.rewrite));
        let own_hosts: Vec<_> = own.map(|host| host.and_then(|host| host_forms(&host))).collect();
        let sound = !rule.filters.unresolved
            && host.is_some() == wanted(&rule.filters.rewrite).is_some()
            && rule
                .backends
                .iter()
                .zip(&own_hosts)
                .all(|(b, own)| own.is_some() == wanted(&b.rewrite).is_some());
        let rule = RuleParts {
            filters: rule.filters.clone(),
            split: Split::over(rule.backends.clone()),
            host,
            own_hosts,
            port: listener.port,
            https: listener.https,
        };
        Self { rule: Arc::new(rule), prefix: None, scope: "/".into(), sound }
    }

    /// The action for one match entry of the rule.
    pub(crate) fn under(mut self, path: &PathMatch) -> Self {
        if let PathMatch::Prefix(prefix) = path {
            self.prefix = Some(prefix.strip_suffix('/').unwrap_or(prefix).into());
        }
        self.scope = session::scope(path);
        let filters = &self.rule.filters;
        let rewrite = filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        let redirect = filters.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        let own = self.backends().iter().flat_map(|backend| {
            let rewrite = backend.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
            [rewrite, backend.redirect.as_ref().and_then(|redirect| redirect.path.as_ref())]
        });
        let sound = [rewrite, redirect].into_iter().chain(own).flatten().all(|path| self.can(path));
        self.sound &= sound;
        self
    }

    // A prefix can be replaced only where a prefix matched (Gateway API, `HTTPPathModifier`), and what replaces it
    // must be a path: a query in it would push the request's own away.
    fn can(&self, path: &PathRewrite) -> bool {
        let (text, fits) = match path {
            PathRewrite::Full(text) => (text, true),
            PathRewrite::Prefix(text) => (text, self.prefix.is_some()),
        };
        let rooted = ["/", text.strip_prefix('/').unwrap_or(text)].concat();
        let whole = |target: PathAndQuery| target.path() == rooted;
        fits && PathAndQuery::try_from(rooted.as_str()).is_ok_and(whole)
    }

    /// The rule's filters.
    pub fn filters(&self) -> &Filters {
        &self.rule.filters
    }

    /// The rule's backends, those of weight 0 too.
    pub fn backends(&self) -> &[WeightedBackend] {
        self.rule.split.backends()
    }
}

fn host_forms(host: &str) -> Option<(HeaderValue, Authority)> {
    Some((HeaderValue::from_str(host).ok()?, Authority::try_from(host).ok()?))
}

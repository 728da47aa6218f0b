//! The table of one socket: every rule of every listener on it, indexed when configuration is applied.

mod bucket;
mod entry;
mod explain;
#[cfg(test)]
pub(crate) mod fixture;
mod hosts;
mod map;
#[cfg(test)]
mod oracle;
mod paths;
mod prefixes;
#[cfg(test)]
mod tests;
mod values;
mod watch;

use std::ops::ControlFlow;
use std::sync::Arc;

use http::{HeaderMap, Method};
use towpath_gateway_core::{Policies, RouteName};

use crate::{Hostname, Listener, RequestMatch, Route, Rule, RuleAction};
use entry::{Entry, Position};
pub use entry::{Miss, Precedence};
pub use explain::{Candidate, Explanation, Lost};
pub(crate) use hosts::ByHost;
use paths::Paths;
use watch::{First, Watch};

/// The routes that are served on one socket. Several listeners may share it; the default table takes nothing.
///
/// Precedence (Gateway API, `HTTPRouteRule.matches` and `Listener.hostname`):
/// 1. The listener with the most specific host name that stands for the request's host; the others are not asked,
///    even if it has no rule for the request (listener isolation). Listeners of one host name count as one.
/// 2. Among its routes, host names from the most to the least specific: exact, then wildcards by length, then any.
///    A less specific name is asked only if nothing under the more specific one takes the request.
/// 3. Exact path, then the longest prefix, then regular expressions. The specification leaves the place of the last
///    to implementations; here a literal path always beats an expression.
/// 4. A match on the method, then the larger number of header matches, then of query matches (of entries with one
///    name only the first is counted).
/// 5. The oldest route, then `namespace/name` in alphabetical order, then the order of rules, then of matches.
///
/// A question costs hash look-ups by host labels and path segments. It grows with the number of rules only where they
/// share host and path and differ in nothing but expressions, or are all expressions over the path.
#[derive(Debug, Default)]
pub struct Routes {
    listeners: ByHost<ByHost<Paths>>,
}

/// What the table looks at.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Host in lower case, without port; empty if the request names none.
    pub host: &'a str,
    /// Normalized path.
    pub path: &'a str,
    /// Query without the question mark; empty if there is none.
    pub query: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Header lines.
    pub headers: &'a HeaderMap,
}

/// The rule that took a request.
#[derive(Debug, Clone)]
pub struct Matched {
    /// Name for logs and metrics.
    pub name: RouteName,
    /// Settings of the rule, its [`RuleAction`] among them.
    pub policies: Policies,
    /// `namespace/gateway/listener` that the rule is attached to.
    pub listener: Arc<str>,
}

impl Routes {
    /// Builds the index.
    pub fn new(listeners: Vec<Listener>) -> Self {
        let mut table = Self::default();
        for listener in &listeners {
            let hosts = table.listeners.at(&listener.hostname);
            for route in &listener.routes {
                attach(hosts, listener, route);
            }
        }
        table.listeners.each(|hosts| hosts.each(Paths::seal));
        table
    }

    /// The rule that takes a request, if one does.
    pub fn decide(&self, facts: &RequestFacts<'_>) -> Option<&Matched> {
        let mut first = First::default();
        // It breaks off where it finds one.
        let _ = self.search(facts, &mut first);
        first.0.map(|entry| &entry.matched)
    }

    /// Goes through the rules that take a request, in order of precedence.
    fn search<'t>(&'t self, facts: &RequestFacts<'_>, watch: &mut impl Watch<'t>) -> ControlFlow<()> {
        match self.listeners.most_specific(facts.host) {
            Some(hosts) => hosts.matching(facts.host).try_for_each(|paths| paths.search(facts, watch)),
            None => ControlFlow::Continue(()),
        }
    }

    /// Whether a connection made for `server_name` may carry requests for `host`: not if another listener is for that
    /// host (Gateway API, `Listener.hostname` on connection coalescing; RFC 9110 section 15.5.20). A host that no
    /// listener is for is no listener's secret and ends as not found.
    pub(crate) fn same_listener(&self, server_name: &str, host: &str) -> bool {
        match (self.listeners.most_specific(server_name), self.listeners.most_specific(host)) {
            (Some(by_name), Some(by_host)) => std::ptr::eq(by_name, by_host),
            _ => true,
        }
    }
}

fn attach(hosts: &mut ByHost<Paths>, listener: &Listener, route: &Route) {
    let mut names = route.hostnames.clone();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push(Hostname::Any);
    }
    for (order, rule) in route.rules.iter().enumerate() {
        for (path, entry) in entries(listener, route, rule, order) {
            for name in &names {
                hosts.at(name).insert(&path, &entry);
            }
        }
    }
}

fn entries(
    listener: &Listener,
    route: &Route,
    rule: &Rule,
    order: usize,
) -> Vec<(crate::PathMatch, Arc<Entry>)> {
    let everything = [RequestMatch::default()];
    let matches = if rule.matches.is_empty() { &everything } else { rule.matches.as_slice() };
    let action = RuleAction::of(rule, listener);
    let one = |(place, wanted): (usize, &RequestMatch)| {
        let action = action.clone().under(&wanted.path);
        let matched = Matched {
            name: rule.name.clone(),
            policies: rule.policies.merged(&Policies::builder().with(action).build()),
            listener: Arc::clone(&listener.name),
        };
        let position = Position { created: route.created, name: Arc::clone(&route.name), rule: order, place };
        (wanted.path.clone(), Arc::new(Entry::new(wanted, position, matched)))
    };
    matches.iter().enumerate().map(one).collect()
}

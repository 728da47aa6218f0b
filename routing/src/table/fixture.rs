//! Short forms of settings, for tests.

use towpath_gateway_core::{Policies, RouteName};

use crate::{Filters, Listener, PathMatch, RequestMatch, Route, Rule};

/// A listener on port 80 for a host name.
pub(crate) fn listener(hostname: &str, routes: Vec<Route>) -> Listener {
    Listener { name: hostname.into(), hostname: hostname.parse().unwrap(), port: 80, https: false, routes }
}

/// A route for host names; its rules are named after it.
pub(crate) fn route(name: &str, hostnames: &[&str], mut rules: Vec<Rule>) -> Route {
    for rule in &mut rules {
        rule.name.route = name.into();
    }
    let hostnames = hostnames.iter().map(|h| h.parse().unwrap()).collect();
    Route { name: name.into(), created: 0, hostnames, rules }
}

/// A rule over prefixes.
pub(crate) fn rule(name: &str, prefixes: &[&str]) -> Rule {
    let prefix =
        |prefix: &&str| RequestMatch { path: PathMatch::Prefix((*prefix).into()), ..RequestMatch::default() };
    rule_of(name, prefixes.iter().map(prefix).collect())
}

/// A rule over matches.
pub(crate) fn rule_of(name: &str, matches: Vec<RequestMatch>) -> Rule {
    Rule {
        name: RouteName::new("", name),
        matches,
        filters: Filters::default(),
        backends: Vec::new(),
        policies: Policies::default(),
    }
}

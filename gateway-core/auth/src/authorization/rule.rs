//! Whether one rule of a policy holds for given facts.

use towpath_gateway_core::SpiffeId;

use super::{Action, AuthorizationRule, Facts, Http, HttpFacts, Operation, Pattern, Source};

impl AuthorizationRule {
    /// Whether the rule holds. What cannot be told is taken such that the request is refused; what cannot be told
    /// *yet* such that it goes on to where it can.
    pub(super) fn holds(&self, action: Action, facts: &Facts<'_>) -> bool {
        let any = |list: &[Operation]| list.is_empty() || list.iter().any(|to| to.holds(action, facts));
        !self.void(action, facts)
            && (self.from.is_empty() || self.from.iter().any(|from| from.holds(facts.principal)))
            && any(&self.to)
    }

    /// On a connection that carries no HTTP an ALLOW rule that names HTTP anywhere is void as a whole (Istio security
    /// reference, "TCP workloads").
    fn void(&self, action: Action, facts: &Facts<'_>) -> bool {
        action == Action::Allow
            && matches!(facts.http, Http::None)
            && self.to.iter().any(Operation::names_http)
    }
}

impl Source {
    fn holds(&self, principal: Option<&SpiffeId>) -> bool {
        let principals = |list: &[Pattern]| {
            principal.is_some_and(|id| list.iter().any(|pattern| pattern.matches(id.principal())))
        };
        let namespaces = |list: &[Pattern]| {
            principal
                .is_some_and(|id| namespaces(id).any(|name| list.iter().any(|pattern| pattern.matches(name))))
        };
        (self.principals.is_empty() || principals(&self.principals))
            && !principals(&self.not_principals)
            && (self.namespaces.is_empty() || namespaces(&self.namespaces))
            && !namespaces(&self.not_namespaces)
    }
}

/// Istio looks for `/ns/<namespace>/` anywhere in the identity, so that forms other than its own have one too.
fn namespaces(id: &SpiffeId) -> impl Iterator<Item = &str> {
    let segments = || id.path().split('/').skip(1);
    let pairs = segments().zip(segments().skip(1));
    let followed = segments().skip(2);
    pairs.zip(followed).filter_map(|((key, name), _)| (key == "ns").then_some(name))
}

impl Operation {
    fn holds(&self, action: Action, facts: &Facts<'_>) -> bool {
        self.port_holds(action, facts.port) && self.http_holds(action, &facts.http)
    }

    fn names_http(&self) -> bool {
        let fields =
            [&self.hosts, &self.not_hosts, &self.methods, &self.not_methods, &self.paths, &self.not_paths];
        fields.into_iter().any(|field| !field.is_empty())
    }

    fn port_holds(&self, action: Action, port: Option<u16>) -> bool {
        let Some(port) = port else {
            return action == Action::Deny || (self.ports.is_empty() && self.not_ports.is_empty());
        };
        (self.ports.is_empty() || self.ports.contains(&port)) && !self.not_ports.contains(&port)
    }

    fn http_holds(&self, action: Action, http: &Http<'_>) -> bool {
        match http {
            _ if !self.names_http() => true,
            Http::Request(request) => self.request_holds(request),
            // A DENY rule widens to what is left of it; an ALLOW rule is void.
            Http::None => action == Action::Deny,
            // Some request may pass, and none is refused for certain.
            Http::Ahead => action == Action::Allow,
        }
    }

    fn request_holds(&self, request: &HttpFacts<'_>) -> bool {
        let any = |list: &[Pattern], value: &str| list.iter().any(|pattern| pattern.matches(value));
        let host = |list: &[Pattern]| {
            request.host.is_some_and(|host| list.iter().any(|pattern| pattern.matches_ignoring_case(host)))
        };
        (self.hosts.is_empty() || host(&self.hosts))
            && !host(&self.not_hosts)
            && (self.methods.is_empty() || any(&self.methods, request.method))
            && !any(&self.not_methods, request.method)
            && (self.paths.is_empty() || any(&self.paths, request.path))
            && !any(&self.not_paths, request.path)
    }
}

//! Whether one rule of a policy holds for given facts.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use super::{
    Action, AuthorizationRule, Condition, Facts, Http, HttpFacts, Operation, Pattern, Source, Values,
};

impl AuthorizationRule {
    /// Whether the rule holds. What cannot be told is taken such that the request is refused; what cannot be told
    /// *yet* such that it goes on to where it can.
    pub(super) fn holds(&self, action: Action, facts: &Facts<'_>) -> bool {
        let look = Look { action, facts };
        !self.void(action, facts)
            && (self.from.is_empty() || self.from.iter().any(|from| look.source(from)))
            && (self.to.is_empty() || self.to.iter().any(|to| look.operation(to)))
            && self.when.iter().all(|condition| look.condition(condition))
    }

    /// On a connection that carries no HTTP an ALLOW rule that names HTTP anywhere is void as a whole (Istio security
    /// reference, "TCP workloads").
    fn void(&self, action: Action, facts: &Facts<'_>) -> bool {
        action == Action::Allow
            && matches!(facts.http, Http::None)
            && (self.from.iter().any(|from| !from.request_principals.is_empty())
                || self.to.iter().any(Operation::names_http)
                || self.when.iter().any(Condition::names_http))
    }
}

impl Operation {
    fn names_http(&self) -> bool {
        !(self.hosts.is_empty() && self.methods.is_empty() && self.paths.is_empty())
    }
}

impl Condition {
    fn names_http(&self) -> bool {
        matches!(
            self,
            Self::Header(..)
                | Self::Method(_)
                | Self::Authority(_)
                | Self::Target(_)
                | Self::RequestPrincipal(_)
                | Self::RequestAudiences(_)
                | Self::RequestPresenter(_)
                | Self::RequestClaim(..)
        )
    }
}

impl<T> Values<T> {
    pub(super) fn hold(&self, takes: impl Fn(&T) -> bool) -> bool {
        (self.is.is_empty() || self.is.iter().any(&takes)) && !self.not.iter().any(&takes)
    }
}

/// Looks at facts for a rule of a policy with this action.
#[derive(Clone, Copy)]
struct Look<'a> {
    action: Action,
    facts: &'a Facts<'a>,
}

impl Look<'_> {
    fn source(self, source: &Source) -> bool {
        let id = self.facts.principal;
        source.principals.hold(|pattern| id.is_some_and(|id| pattern.matches(id.principal())))
            && source.namespaces.hold(|pattern| id.is_some_and(|id| pattern.matches(id)))
            && source.service_accounts.hold(|account| id.is_some_and(|id| account.matches(id)))
            && self.address(&source.ip_blocks, self.facts.source_ip)
            && self.address(&source.remote_ip_blocks, self.facts.remote_ip)
            && self.request(&source.request_principals, |request, principal| {
                request.token.is_some_and(|token| principal.matches(token))
            })
    }

    fn operation(self, to: &Operation) -> bool {
        self.known(&to.ports, self.facts.port, |wanted, port| *wanted == port)
            && self.request(&to.methods, |request, pattern| pattern.matches(request.method))
            && self.request(&to.paths, |request, pattern| pattern.matches(request.path))
            && self.request(&to.hosts, |request, pattern| {
                request.host.is_some_and(|host| pattern.matches_ignoring_case(host))
            })
    }

    fn condition(self, condition: &Condition) -> bool {
        let facts = self.facts;
        let id = facts.principal;
        match condition {
            Condition::Header(name, values) => self.header(name, values),
            Condition::Method(values) => {
                self.request(values, |request, pattern| present(pattern) || pattern.matches(request.method))
            }
            Condition::Authority(values) => self.request(values, |request, pattern| {
                request.host.is_some_and(|host| present(pattern) || pattern.matches(host))
            }),
            Condition::Target(values) => {
                let Http::Request(request) = &facts.http else { return self.without_request(values) };
                let target = match request.query {
                    None => Cow::Borrowed(request.path),
                    Some(query) => Cow::Owned(format!("{}?{query}", request.path)),
                };
                values.hold(|pattern| present(pattern) || pattern.matches(&target))
            }
            Condition::SourceIp(values) => self.address(values, facts.source_ip),
            Condition::RemoteIp(values) => self.address(values, facts.remote_ip),
            Condition::DestinationIp(values) => self.address(values, facts.destination_ip),
            Condition::DestinationPort(values) => {
                self.known(values, facts.port, |wanted, port| *wanted == port)
            }
            Condition::SourceNamespace(values) => {
                values.hold(|pattern| id.is_some_and(|id| pattern.matches(id)))
            }
            Condition::SourcePrincipal(values) => {
                values.hold(|pattern| id.is_some_and(|id| pattern.matches(id.principal())))
            }
            Condition::SourceServiceAccount(values) => {
                values.hold(|account| id.is_some_and(|id| account.matches(id)))
            }
            Condition::ServerName(values) => {
                values.hold(|pattern| facts.server_name.is_some_and(|name| pattern.matches(name)))
            }
            Condition::RequestPrincipal(values) => self.request(values, |request, principal| {
                request.token.is_some_and(|token| principal.matches(token))
            }),
            Condition::RequestAudiences(values) => self.claim(&["aud"], values),
            Condition::RequestPresenter(values) => self.claim(&["azp"], values),
            Condition::RequestClaim(path, values) => self.claim(path, values),
        }
    }

    fn claim<N: AsRef<str>>(self, path: &[N], values: &Values<Pattern>) -> bool {
        self.request(values, |request, pattern| {
            let claim = request.token.and_then(|token| token.claim(path));
            claim.is_some_and(|claim| claim.any_text(|text| pattern.matches(text)))
        })
    }

    fn header(self, name: &HeaderName, values: &Values<Pattern>) -> bool {
        let Http::Request(request) = &self.facts.http else { return self.without_request(values) };
        // Each line is a value of its own: joined, a line beside it would hide one that is named (Envoy, from 1.37 on).
        values.hold(|pattern| {
            let mut lines = request.headers.get_all(name).iter();
            lines.any(|line| present(pattern) || pattern.matches(&String::from_utf8_lossy(line.as_bytes())))
        })
    }

    fn address(self, values: &Values<IpNet>, address: Option<IpAddr>) -> bool {
        self.known(values, address, |net, address| net.contains(&address.to_canonical()))
    }

    /// A field about a fact that may be unknown.
    fn known<T, F: Copy>(self, values: &Values<T>, fact: Option<F>, takes: impl Fn(&T, F) -> bool) -> bool {
        match fact {
            Some(fact) => values.hold(|value| takes(value, fact)),
            None => values.is_empty() || self.action != Action::Allow,
        }
    }

    /// A field about HTTP.
    fn request<T>(self, values: &Values<T>, takes: impl Fn(&HttpFacts<'_>, &T) -> bool) -> bool {
        match &self.facts.http {
            Http::Request(request) => values.hold(|value| takes(request, value)),
            _ => self.without_request(values),
        }
    }

    fn without_request<T>(self, values: &Values<T>) -> bool {
        values.is_empty()
            || match self.facts.http {
                // Some request may pass, and none is refused for certain.
                Http::Ahead => self.action == Action::Allow,
                // A DENY rule widens to what is left of it; an ALLOW rule is void.
                _ => self.action != Action::Allow,
            }
    }
}

/// Whether a header is all that is asked for: an empty one is there, too (Envoy, `HeaderMatcher.present_match`).
fn present(pattern: &Pattern) -> bool {
    *pattern == Pattern::Present
}

//! Istio authorization policies as data, and their evaluation: facts in, verdict out.

mod pattern;
mod rule;

use std::sync::Arc;

use towpath_gateway_core::SpiffeId;

pub use pattern::Pattern;

/// The policies in force for one workload. The evaluation is pure: no clock, no I/O.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationPolicies {
    deny: Vec<AuthorizationPolicy>,
    allow: Vec<AuthorizationPolicy>,
    /// Who is named when no ALLOW policy matches: all of them, for any could have let the request pass.
    unmatched: Option<Arc<str>>,
}

impl AuthorizationPolicies {
    /// Policies that select the workload, in any order.
    pub fn new(policies: Vec<AuthorizationPolicy>) -> Self {
        let (deny, allow): (Vec<_>, Vec<_>) =
            policies.into_iter().partition(|policy| policy.action == Action::Deny);
        let names: Vec<&str> = allow.iter().map(|policy| &*policy.name).collect();
        let unmatched = (!names.is_empty()).then(|| names.join(",").into());
        Self { deny, allow, unmatched }
    }

    /// Whether no policy is in force at all.
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty()
    }

    /// The policies in the order of their evaluation: DENY before ALLOW.
    pub fn iter(&self) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.deny.iter().chain(&self.allow)
    }

    /// Decides (Istio security reference, "Authorization policy precedence"): any DENY policy that matches refuses;
    /// else without ALLOW policies everything passes; else any ALLOW policy that matches lets pass.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        let matching = |list: &[AuthorizationPolicy]| {
            list.iter().find(|policy| policy.matches(facts)).map(|policy| Arc::clone(&policy.name))
        };
        if let Some(name) = matching(&self.deny) {
            return Verdict::new(false, Some(name), Ground::Denied);
        }
        if self.allow.is_empty() {
            return Verdict::new(true, None, Ground::NothingForbids);
        }
        match matching(&self.allow) {
            Some(name) => Verdict::new(true, Some(name), Ground::Allowed),
            None => Verdict::new(false, self.unmatched.clone(), Ground::NothingAllows),
        }
    }
}

/// What is known about a request or a connection that wants to pass.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Identity that the peer proved; `None` on plaintext.
    pub principal: Option<&'a SpiffeId>,
    /// Port that was asked for. While it is not known, ALLOW rules that name ports do not hold and DENY rules do.
    pub port: Option<u16>,
    /// The HTTP side.
    pub http: Http<'a>,
}

/// The HTTP side of what wants to pass.
#[derive(Debug, Clone)]
pub enum Http<'a> {
    /// A request.
    Request(HttpFacts<'a>),
    /// A connection that carries something else: ALLOW rules that name HTTP are void, DENY rules widen to what is
    /// left of them.
    None,
    /// A connection that requests will come on. Refused is only what no request could make pass; every request is
    /// still to be evaluated by itself.
    Ahead,
}

/// The facts of a request.
#[derive(Debug, Clone, Copy)]
pub struct HttpFacts<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// Host with port, as sent; `None` if the request names none.
    pub host: Option<&'a str>,
    /// Normalized path without query.
    pub path: &'a str,
}

/// What the policies decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may pass.
    pub allowed: bool,
    /// `namespace/name` of the policy that decided; where no ALLOW policy matches, the names of all of them, joined by
    /// `,`. `None` if no policy is concerned.
    pub policy: Option<Arc<str>>,
    /// Why.
    pub ground: Ground,
}

impl Verdict {
    fn new(allowed: bool, policy: Option<Arc<str>>, ground: Ground) -> Self {
        Self { allowed, policy, ground }
    }
}

/// Why a verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ground {
    /// A DENY policy matches.
    Denied,
    /// An ALLOW policy matches.
    Allowed,
    /// There are ALLOW policies and none matches.
    NothingAllows,
    /// No DENY policy matches, and there is no ALLOW policy.
    NothingForbids,
}

impl Ground {
    /// The sentence for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "a DENY policy matches",
            Self::Allowed => "an ALLOW policy matches",
            Self::NothingAllows => "no ALLOW policy matches",
            Self::NothingForbids => "no DENY policy matches, and there is no ALLOW policy",
        }
    }
}

/// One `AuthorizationPolicy`. Without rules it never matches; a rule without parts matches always.
#[derive(Debug, Clone)]
pub struct AuthorizationPolicy {
    /// `namespace/name`, for log and metric.
    pub name: Arc<str>,
    /// What a match means.
    pub action: Action,
    /// Alternatives.
    pub rules: Vec<AuthorizationRule>,
}

impl AuthorizationPolicy {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.rules.iter().any(|rule| rule.holds(self.action, facts))
    }
}

/// What a match of a policy means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The request may pass. A workload with ALLOW policies refuses what none of them matches.
    Allow,
    /// The request is refused, whatever else allows it.
    Deny,
}

/// A rule holds if any source and any operation hold; an empty list holds always.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationRule {
    /// `from`.
    pub from: Vec<Source>,
    /// `to`.
    pub to: Vec<Operation>,
}

/// Who sends. All fields given must hold; of a field's values, any.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Peer identity without `spiffe://`.
    pub principals: Vec<Pattern>,
    /// None of these peer identities; a plaintext peer passes.
    pub not_principals: Vec<Pattern>,
    /// Namespace of the peer's identity.
    pub namespaces: Vec<Pattern>,
    /// None of these namespaces; a plaintext peer passes.
    pub not_namespaces: Vec<Pattern>,
}

/// What is asked. All fields given must hold; of a field's values, any.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    /// Host with port, compared without case.
    pub hosts: Vec<Pattern>,
    /// None of these hosts.
    pub not_hosts: Vec<Pattern>,
    /// Method; case counts.
    pub methods: Vec<Pattern>,
    /// None of these methods.
    pub not_methods: Vec<Pattern>,
    /// Normalized path without query; case counts.
    pub paths: Vec<Pattern>,
    /// None of these paths.
    pub not_paths: Vec<Pattern>,
    /// Local port.
    pub ports: Vec<u16>,
    /// None of these ports.
    pub not_ports: Vec<u16>,
}

#[cfg(test)]
mod tests;

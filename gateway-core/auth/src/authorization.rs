//! Istio authorization policies as data, and their evaluation: facts in, verdict out.

mod contradiction;
mod facts;
mod identity;
mod needs;
mod pattern;
mod rule;
mod template;

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;
use towpath_gateway_core::{Connection, Decision, DryRun};

pub use facts::{Facts, Http, HttpFacts};
pub use identity::{NamespacePattern, RequestPrincipal, ServiceAccount};
pub use needs::Needs;
pub use pattern::Pattern;
pub use template::{InvalidTemplate, PathTemplate};

use crate::request_facts::of_connection;
use crate::{ExternalAuth, ExternalAuthProtocol};

/// The policies in force for one workload. The evaluation is pure: no clock, no I/O.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationPolicies {
    custom: Vec<AuthorizationPolicy>,
    deny: Vec<AuthorizationPolicy>,
    allow: Vec<AuthorizationPolicy>,
    audit: Vec<AuthorizationPolicy>,
    /// Who is named when no ALLOW policy matches: all of them, for any could have let the request pass.
    unmatched: Option<Arc<str>>,
    /// What would be in force without dry-runs; `None` if there are none.
    dry_run: Option<Box<AuthorizationPolicies>>,
}

impl AuthorizationPolicies {
    /// Policies that select the workload, in any order.
    pub fn new(policies: Vec<AuthorizationPolicy>) -> Self {
        let dry_run = policies.iter().any(|policy| policy.dry_run).then(|| {
            let decides =
                |policy: &&AuthorizationPolicy| matches!(policy.action, Action::Allow | Action::Deny);
            Box::new(Self::sorted(policies.iter().filter(decides).cloned().collect()))
        });
        let enforced = policies.into_iter().filter(|policy| !policy.dry_run).collect();
        Self { dry_run, ..Self::sorted(enforced) }
    }

    fn sorted(policies: Vec<AuthorizationPolicy>) -> Self {
        let mut sorted = Self::default();
        for policy in policies {
            match policy.action {
                Action::Custom => sorted.custom.push(policy),
                Action::Deny => sorted.deny.push(policy),
                Action::Allow => sorted.allow.push(policy),
                Action::Audit => sorted.audit.push(policy),
            }
        }
        let names: Vec<&str> = sorted.allow.iter().map(|policy| &*policy.name).collect();
        sorted.unmatched = (!names.is_empty()).then(|| names.join(",").into());
        sorted
    }

    /// Whether no policy is in force at all, not even to be told of.
    pub fn is_empty(&self) -> bool {
        self.dry_run.is_none() && self.iter().next().is_none()
    }

    /// Whether an external authorizer may have to be asked.
    pub fn has_custom(&self) -> bool {
        !self.custom.is_empty()
    }

    /// The policies in force, in the order of their evaluation: CUSTOM, DENY, ALLOW, AUDIT.
    pub fn iter(&self) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.custom.iter().chain(&self.deny).chain(&self.allow).chain(&self.audit)
    }

    /// The CUSTOM policies that match. What each one's provider says comes before all else; if every one of them allows,
    /// [`evaluate`](Self::evaluate) decides. Of what carries no HTTP a provider that speaks HTTP knows nothing: such
    /// policies are left out there, as Istio does.
    pub fn custom<'p>(&'p self, facts: &Facts<'_>) -> impl Iterator<Item = &'p AuthorizationPolicy> {
        self.custom.iter().filter(|policy| policy.concerns(facts) && policy.matching(facts).is_some())
    }

    /// Every policy in force with the rule that matches, in the order of their evaluation.
    pub fn matches<'p>(
        &'p self,
        facts: &Facts<'_>,
    ) -> impl Iterator<Item = (&'p AuthorizationPolicy, Option<usize>)> {
        self.iter().map(|policy| (policy, policy.matching(facts)))
    }

    /// Decides (Istio security reference, "Authorization policy precedence"): any DENY policy that matches refuses;
    /// else without ALLOW policies everything passes; else any ALLOW policy that matches lets pass. CUSTOM policies are
    /// asked about before; on what carries no HTTP, one that matches refuses here if its provider is not there.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        let mut verdict = self.decide(facts);
        if !matches!(facts.http, Http::Ahead) {
            let audited = self.audit.iter().find(|policy| policy.matching(facts).is_some());
            verdict.audit = audited.map(|policy| Arc::clone(&policy.name));
            verdict.dry_run = self.dry_run.as_ref().map(|policies| {
                let Verdict { allowed, policy, .. } = policies.decide(facts);
                DryRun { allowed, policy }
            });
        }
        verdict
    }

    /// Decides about a connection before anything comes on it: `http` says whether requests will. `port` is the one that
    /// policies name.
    pub fn evaluate_connection(&self, connection: &Connection, port: u16, http: Http<'_>) -> Verdict {
        self.evaluate(&of_connection(connection, Some(port), http))
    }

    fn decide(&self, facts: &Facts<'_>) -> Verdict {
        let first = |list: &[AuthorizationPolicy]| {
            let (policy, rule) = list.iter().find_map(|policy| Some((policy, policy.matching(facts)?)))?;
            Some((Arc::clone(&policy.name), rule))
        };
        if matches!(facts.http, Http::None)
            && let Some((policy, rule)) = self.custom.iter().find_map(|policy| {
                let nobody = policy.provider.is_none();
                Some((policy, policy.matching(facts).filter(|_| nobody)?))
            })
        {
            return Verdict::of(false, Some((Arc::clone(&policy.name), rule)), Ground::NobodyToAsk);
        }
        if let Some(found) = first(&self.deny) {
            return Verdict::of(false, Some(found), Ground::Denied);
        }
        if self.allow.is_empty() {
            return Verdict::of(true, None, Ground::NothingForbids);
        }
        match first(&self.allow) {
            Some(found) => Verdict::of(true, Some(found), Ground::Allowed),
            None => {
                Verdict { policy: self.unmatched.clone(), ..Verdict::of(false, None, Ground::NothingAllows) }
            }
        }
    }
}

/// What the policies decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may pass.
    pub allowed: bool,
    /// `namespace/name` of the policy that decided; where no ALLOW policy matches, the names of all of them, joined by
    /// `,`. `None` if no policy is concerned.
    pub policy: Option<Arc<str>>,
    /// The rule of the policy that matched, counted from 0.
    pub rule: Option<usize>,
    /// Why.
    pub ground: Ground,
    /// The first AUDIT policy that matches.
    pub audit: Option<Arc<str>>,
    /// What would have been decided if policies in dry-run were in force; `None` if there are none.
    pub dry_run: Option<DryRun>,
}

impl Verdict {
    /// The end of a connection by what the provider of a CUSTOM policy says, or by its silence.
    pub(crate) fn unallowed(policy: &Arc<str>, ground: Ground) -> Self {
        Self { policy: Some(Arc::clone(policy)), ..Self::of(false, None, ground) }
    }

    fn of(allowed: bool, found: Option<(Arc<str>, usize)>, ground: Ground) -> Self {
        let (policy, rule) = found.unzip();
        Self { allowed, policy, rule, ground, audit: None, dry_run: None }
    }
}

/// What is kept of it.
impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        let Verdict { allowed, policy, rule, ground, audit, dry_run } = verdict;
        Self { allowed, policy, rule, why: ground.as_str(), audit, dry_run }
    }
}

/// Why a verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ground {
    /// A CUSTOM policy matches, and its provider is not there.
    NobodyToAsk,
    /// The provider of a CUSTOM policy that matches refuses the connection.
    AuthorizerRefuses,
    /// The provider of a CUSTOM policy that matches gave no answer about the connection.
    AuthorizerFailed,
    /// A CUSTOM policy matches a connection that lived before, and its provider was not asked.
    NotAsked,
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
            Self::NobodyToAsk => "a CUSTOM policy matches, and its provider is not there",
            Self::AuthorizerRefuses => "the external authorizer refuses",
            Self::AuthorizerFailed => "the external authorizer could not be asked",
            Self::NotAsked => "a CUSTOM policy matches that its authorizer was not asked for yet",
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
    /// Told of and not enforced (annotation `istio.io/dry-run`).
    pub dry_run: bool,
    /// Who is asked about what a CUSTOM policy matches. `None`: nobody is there, and it is refused.
    pub provider: Option<Arc<ExternalAuth>>,
}

impl AuthorizationPolicy {
    /// A policy that is enforced, and asks nobody.
    pub fn new(name: impl Into<Arc<str>>, action: Action, rules: Vec<AuthorizationRule>) -> Self {
        Self { name: name.into(), action, rules, dry_run: false, provider: None }
    }

    /// Whether a CUSTOM policy has a say about such a thing.
    fn concerns(&self, facts: &Facts<'_>) -> bool {
        let speaks_http =
            |provider: &Arc<ExternalAuth>| matches!(provider.protocol, ExternalAuthProtocol::Http { .. });
        !(matches!(facts.http, Http::None) && self.provider.as_ref().is_some_and(speaks_http))
    }

    /// The first rule that matches.
    fn matching(&self, facts: &Facts<'_>) -> Option<usize> {
        self.rules.iter().position(|rule| rule.holds(self.action, facts))
    }
}

/// What a match of a policy means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The request may pass. A workload with ALLOW policies refuses what none of them matches.
    Allow,
    /// The request is refused, whatever else allows it.
    Deny,
    /// An external authorizer is asked first; what it refuses is refused.
    Custom,
    /// The request is told of, and nothing else.
    Audit,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Custom => "CUSTOM",
            Self::Audit => "AUDIT",
        })
    }
}

/// A rule holds if any source and any operation hold, where there are some, and every condition.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationRule {
    /// `from`.
    pub from: Vec<Source>,
    /// `to`.
    pub to: Vec<Operation>,
    /// `when`.
    pub when: Vec<Condition>,
}

/// The values of a field and of its `not` form. What is absent has none of any: it is taken by the `not` form alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<T> {
    /// Any of these; empty: all.
    pub is: Vec<T>,
    /// None of these.
    pub not: Vec<T>,
}

impl<T> Values<T> {
    /// Any of these.
    pub fn is(values: Vec<T>) -> Self {
        Self { is: values, not: Vec::new() }
    }

    /// None of these.
    pub fn not(values: Vec<T>) -> Self {
        Self { is: Vec::new(), not: values }
    }

    /// Whether everything is taken.
    pub fn is_empty(&self) -> bool {
        self.is.is_empty() && self.not.is_empty()
    }
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { is: Vec::new(), not: Vec::new() }
    }
}

/// Who sends. All fields given must hold; of a field's values, any.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Peer identity without `spiffe://`.
    pub principals: Values<Pattern>,
    /// Namespace of the peer's identity.
    pub namespaces: Values<NamespacePattern>,
    /// Service account of the peer's identity.
    pub service_accounts: Values<ServiceAccount>,
    /// Issuer and subject of the request's token.
    pub request_principals: Values<RequestPrincipal>,
    /// Address that packets come from.
    pub ip_blocks: Values<IpNet>,
    /// Address of the client, as trusted proxies tell it.
    pub remote_ip_blocks: Values<IpNet>,
}

/// What is asked. All fields given must hold; of a field's values, any.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    /// Host with port, compared without case.
    pub hosts: Values<Pattern>,
    /// Method; case counts.
    pub methods: Values<Pattern>,
    /// Normalized path without query; case counts.
    pub paths: Values<PathPattern>,
    /// Local port.
    pub ports: Values<u16>,
}

/// A path of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// A plain value, with `*` at one end or not.
    Plain(Pattern),
    /// One with `{*}` or `{**}`.
    Template(PathTemplate),
}

impl PathPattern {
    /// Reads a policy's value.
    pub fn new(value: &str) -> Result<Self, InvalidTemplate> {
        if PathTemplate::is_meant(value) {
            value.parse().map(Self::Template)
        } else {
            Ok(Self::Plain(Pattern::new(value)))
        }
    }

    /// Whether a path without query is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Plain(pattern) => pattern.matches(path),
            Self::Template(template) => template.matches(path),
        }
    }
}

/// One entry of `when`.
#[derive(Debug, Clone)]
pub enum Condition {
    /// `request.headers[NAME]`. Each line of a header is a value of its own.
    Header(HeaderName, Values<Pattern>),
    /// `request.headers[:method]`, case counts.
    Method(Values<Pattern>),
    /// `request.headers[:authority]` or `[host]`: host with port, and here case counts.
    Authority(Values<Pattern>),
    /// `request.headers[:path]`: the normalized path with its query.
    Target(Values<Pattern>),
    /// `source.ip`.
    SourceIp(Values<IpNet>),
    /// `remote.ip`.
    RemoteIp(Values<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Values<NamespacePattern>),
    /// `source.principal`.
    SourcePrincipal(Values<Pattern>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<ServiceAccount>),
    /// `request.auth.principal`.
    RequestPrincipal(Values<RequestPrincipal>),
    /// `request.auth.audiences`: claim `aud`.
    RequestAudiences(Values<Pattern>),
    /// `request.auth.presenter`: claim `azp`.
    RequestPresenter(Values<Pattern>),
    /// `request.auth.claims[NAME][NAME]`.
    RequestClaim(Vec<Box<str>>, Values<Pattern>),
    /// `destination.ip`.
    DestinationIp(Values<IpNet>),
    /// `destination.port`.
    DestinationPort(Values<u16>),
    /// `connection.sni`.
    ServerName(Values<Pattern>),
}

#[cfg(test)]
mod tests;

//! Istio authorization policies as data.

use std::sync::Arc;

/// The policies in force for one workload. The evaluation is pure: facts in, verdict out.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationPolicies {
    pub(crate) policies: Vec<AuthorizationPolicy>,
}

impl AuthorizationPolicies {
    /// Policies that select the workload, in any order.
    pub fn new(policies: Vec<AuthorizationPolicy>) -> Self {
        Self { policies }
    }

    /// Whether no policy is in force at all.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
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

/// A value of a policy: `*` is a wildcard as the whole value (present and not empty), as first or as last character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with (the policy's value ended in `*`).
    Prefix(Arc<str>),
    /// Ends with (the policy's value began with `*`).
    Suffix(Arc<str>),
    /// Present and not empty.
    Present,
}

impl Pattern {
    /// Reads a policy's value. A leading `*` wins over a trailing one.
    pub fn new(value: &str) -> Self {
        match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
            ("*", _, _) => Self::Present,
            (_, Some(suffix), _) => Self::Suffix(suffix.into()),
            (_, None, Some(prefix)) => Self::Prefix(prefix.into()),
            (exact, None, None) => Self::Exact(exact.into()),
        }
    }

    /// Whether `value` is meant.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Present => !value.is_empty(),
        }
    }
}

//! Traffic to backends: `sessionPersistence` of rules, and `XBackendTrafficPolicy` of gateway.networking.x-k8s.io.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::Text;
use super::leaf::Span;
use super::towpath::TargetRef;

/// Gateway API, `SessionPersistence` (GEP-1619).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SessionSpec {
    pub(crate) session_name: Option<Text>,
    pub(crate) absolute_timeout: Option<Spanned<Span>>,
    pub(crate) idle_timeout: Option<Spanned<Span>>,
    #[serde(rename = "type", default)]
    pub(crate) kind: SessionKind,
    pub(crate) cookie_config: Option<Spanned<CookieSpec>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum SessionKind {
    #[default]
    Cookie,
    Header,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CookieSpec {
    #[serde(default)]
    pub(crate) lifetime_type: Lifetime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum Lifetime {
    #[default]
    Session,
    Permanent,
}

/// Gateway API, `XBackendTrafficPolicySpec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BackendTrafficPolicySpec {
    pub(crate) target_refs: Vec<TargetRef>,
    pub(crate) retry_constraint: Option<RetryConstraintSpec>,
    pub(crate) session_persistence: Option<Spanned<IgnoredAny>>,
}

/// Gateway API, `RetryConstraint` (GEP-3388).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RetryConstraintSpec {
    pub(crate) budget: Option<BudgetSpec>,
    pub(crate) min_retry_rate: Option<RateSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BudgetSpec {
    pub(crate) percent: Option<Spanned<u32>>,
    pub(crate) interval: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RateSpec {
    pub(crate) count: Option<Spanned<u32>>,
    pub(crate) interval: Option<Spanned<Span>>,
}

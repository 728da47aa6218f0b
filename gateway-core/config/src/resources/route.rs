//! `HTTPRoute` and `GRPCRoute` of gateway.networking.k8s.io.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::Text;
use super::filter::{ExtensionRef, ExternalAuthSpec};
use super::leaf::{FieldName, FieldValue, Host, PreciseHost, Span, Status, Verb};
use super::traffic::SessionSpec;

/// What HTTP and gRPC routes have in common; they differ in their matches.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RouteSpec<M> {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<Spanned<Host>>,
    pub(crate) rules: Option<Vec<RuleSpec<M>>>,
    #[serde(rename = "useDefaultGateways")]
    pub(crate) _use_default_gateways: Option<IgnoredAny>,
}

/// `TLSRoute`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TlsRouteSpec {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<Spanned<Host>>,
    pub(crate) rules: Vec<FlowRuleSpec>,
    #[serde(rename = "useDefaultGateways")]
    pub(crate) _use_default_gateways: Option<IgnoredAny>,
}

/// `TCPRoute` and `UDPRoute`, which have nothing to match by.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PortRouteSpec {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    pub(crate) rules: Vec<FlowRuleSpec>,
    #[serde(rename = "useDefaultGateways")]
    pub(crate) _use_default_gateways: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FlowRuleSpec {
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
}

/// What the routes of layer 4 have in common.
pub(crate) trait FlowSpec {
    fn parent_refs(&self) -> &[ParentRef];
    fn hostnames(&self) -> &[Spanned<Host>];
    fn rules(&self) -> &[FlowRuleSpec];
}

impl FlowSpec for TlsRouteSpec {
    fn parent_refs(&self) -> &[ParentRef] {
        &self.parent_refs
    }

    fn hostnames(&self) -> &[Spanned<Host>] {
        &self.hostnames
    }

    fn rules(&self) -> &[FlowRuleSpec] {
        &self.rules
    }
}

impl FlowSpec for PortRouteSpec {
    fn parent_refs(&self) -> &[ParentRef] {
        &self.parent_refs
    }

    fn hostnames(&self) -> &[Spanned<Host>] {
        &[]
    }

    fn rules(&self) -> &[FlowRuleSpec] {
        &self.rules
    }
}

pub(crate) type HttpRouteSpec = RouteSpec<HttpMatch>;
pub(crate) type GrpcRouteSpec = RouteSpec<GrpcMatch>;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ParentRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Text,
    pub(crate) section_name: Option<String>,
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RuleSpec<M> {
    pub(crate) name: Option<String>,
    #[serde(default = "Vec::new")]
    pub(crate) matches: Vec<M>,
    #[serde(default)]
    pub(crate) filters: Vec<FilterSpec>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
    pub(crate) timeouts: Option<TimeoutsSpec>,
    pub(crate) retry: Option<RetrySpec>,
    pub(crate) session_persistence: Option<Spanned<SessionSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HttpMatch {
    pub(crate) path: Option<PathSpec>,
    #[serde(default)]
    pub(crate) headers: Vec<HeaderSpec>,
    #[serde(default)]
    pub(crate) query_params: Vec<QuerySpec>,
    pub(crate) method: Option<Verb>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PathSpec {
    #[serde(rename = "type", default)]
    pub(crate) kind: PathKind,
    pub(crate) value: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum PathKind {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum ValueKind {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HeaderSpec {
    #[serde(rename = "type", default)]
    pub(crate) kind: ValueKind,
    pub(crate) name: FieldName,
    pub(crate) value: Text,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct QuerySpec {
    #[serde(rename = "type", default)]
    pub(crate) kind: ValueKind,
    pub(crate) name: String,
    pub(crate) value: Text,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrpcMatch {
    pub(crate) method: Option<Spanned<GrpcMethod>>,
    #[serde(default)]
    pub(crate) headers: Vec<HeaderSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrpcMethod {
    #[serde(rename = "type", default)]
    pub(crate) kind: ValueKind,
    pub(crate) service: Option<String>,
    pub(crate) method: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FilterSpec {
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    pub(crate) request_header_modifier: Option<HeaderModifierSpec>,
    pub(crate) response_header_modifier: Option<HeaderModifierSpec>,
    pub(crate) request_redirect: Option<RedirectSpec>,
    pub(crate) url_rewrite: Option<RewriteSpec>,
    pub(crate) request_mirror: Option<MirrorSpec>,
    pub(crate) cors: Option<CorsSpec>,
    pub(crate) external_auth: Option<ExternalAuthSpec>,
    pub(crate) extension_ref: Option<ExtensionRef>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MirrorSpec {
    pub(crate) backend_ref: BackendRef,
    pub(crate) percent: Option<Spanned<u32>>,
    pub(crate) fraction: Option<FractionSpec>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FractionSpec {
    pub(crate) numerator: u32,
    pub(crate) denominator: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CorsSpec {
    #[serde(default)]
    pub(crate) allow_origins: Vec<Text>,
    #[serde(default)]
    pub(crate) allow_credentials: bool,
    #[serde(default)]
    pub(crate) allow_methods: Vec<Text>,
    #[serde(default)]
    pub(crate) allow_headers: Vec<Text>,
    #[serde(default)]
    pub(crate) expose_headers: Vec<Text>,
    /// Seconds.
    pub(crate) max_age: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HeaderModifierSpec {
    #[serde(default)]
    pub(crate) set: Vec<HeaderLine>,
    #[serde(default)]
    pub(crate) add: Vec<HeaderLine>,
    #[serde(default)]
    pub(crate) remove: Vec<FieldName>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HeaderLine {
    pub(crate) name: FieldName,
    pub(crate) value: FieldValue,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RedirectSpec {
    pub(crate) scheme: Option<SchemeSpec>,
    pub(crate) hostname: Option<PreciseHost>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<PathModifier>,
    pub(crate) status_code: Option<Spanned<Status>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SchemeSpec {
    Http,
    Https,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RewriteSpec {
    pub(crate) hostname: Option<PreciseHost>,
    pub(crate) path: Option<PathModifier>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PathModifier {
    #[serde(rename = "type")]
    pub(crate) kind: Spanned<PathModifierKind>,
    pub(crate) replace_full_path: Option<String>,
    pub(crate) replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum PathModifierKind {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BackendRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) weight: Option<u32>,
    #[serde(default)]
    pub(crate) filters: Vec<FilterSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TimeoutsSpec {
    pub(crate) request: Option<Span>,
    pub(crate) backend_request: Option<Spanned<Span>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RetrySpec {
    #[serde(default)]
    pub(crate) codes: Vec<Status>,
    pub(crate) attempts: Option<u32>,
    pub(crate) backoff: Option<Span>,
}

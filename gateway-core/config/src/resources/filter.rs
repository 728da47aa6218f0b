//! `HTTPRouteFilter` of towpath.dev/v1alpha1: what `extensionRef` filters of routes lead to.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Text;
use super::leaf::{Span, Status};

/// What a rule does beyond the filters of the Gateway API. With both fields, the fault comes first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HttpRouteFilterSpec {
    pub(crate) direct_response: Option<DirectResponseSpec>,
    pub(crate) fault: Option<FaultSpec>,
}

/// Istio, `HTTPDirectResponse`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DirectResponseSpec {
    pub(crate) status: Spanned<Status>,
    pub(crate) body: Option<Text>,
    /// `text/plain` if a body has none.
    pub(crate) content_type: Option<Text>,
}

/// Istio, `HTTPFaultInjection`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FaultSpec {
    pub(crate) delay: Option<DelaySpec>,
    pub(crate) abort: Option<AbortSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DelaySpec {
    pub(crate) fixed_delay: Spanned<Span>,
    /// 0 to 100, in steps of 0.0001; 100 if it is not there.
    pub(crate) percentage: Option<Spanned<f64>>,
}

/// One of the two kinds of status.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AbortSpec {
    pub(crate) http_status: Option<Spanned<Status>>,
    /// The name of a gRPC status, for instance `UNAVAILABLE`.
    pub(crate) grpc_status: Option<Text>,
    pub(crate) percentage: Option<Spanned<f64>>,
}

/// What an `extensionRef` names, in the route's own namespace.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtensionRef {
    pub(crate) group: String,
    pub(crate) kind: Text,
    pub(crate) name: Text,
}

//! Filters of routes: `HTTPRouteFilter` of towpath.dev/v1alpha1, to which `extensionRef` leads, and `externalAuth`.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Text;
use super::leaf::{FieldName, Span, Status};
use super::route::BackendRef;

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

/// Gateway API, `HTTPExternalAuthFilter` (GEP-1494).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExternalAuthSpec {
    pub(crate) protocol: Spanned<AuthProtocol>,
    pub(crate) backend_ref: BackendRef,
    pub(crate) grpc: Option<GrpcAuthSpec>,
    pub(crate) http: Option<HttpAuthSpec>,
    pub(crate) forward_body: Option<ForwardBodySpec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum AuthProtocol {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "GRPC")]
    Grpc,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrpcAuthSpec {
    #[serde(default)]
    pub(crate) allowed_headers: Vec<FieldName>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HttpAuthSpec {
    pub(crate) path: Option<Text>,
    #[serde(default)]
    pub(crate) allowed_headers: Vec<FieldName>,
    #[serde(default)]
    pub(crate) allowed_response_headers: Vec<FieldName>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ForwardBodySpec {
    #[serde(default)]
    pub(crate) max_size: u16,
}

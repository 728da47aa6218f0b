//! Towpath's own kinds, group `towpath.dev/v1alpha1`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::Text;
use super::gateway::ObjectRef;
use super::leaf::{FieldName, FieldPattern, Span};
use crate::{ObjectName, OutboundTrafficPolicy, Scenario};

/// What is mesh-wide. At most one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MeshSpec {
    pub(crate) scenario: Option<ScenarioWord>,
    pub(crate) trust_domain: Option<Text>,
    #[serde(default)]
    pub(crate) trust_domain_aliases: Vec<Text>,
    pub(crate) root_namespace: Option<String>,
    pub(crate) ingress: Option<IngressSpec>,
    pub(crate) path_normalization: Option<PathNormalizationSpec>,
    pub(crate) gateway_topology: Option<GatewayTopologySpec>,
    #[serde(default)]
    pub(crate) extension_providers: Vec<ExtensionProviderSpec>,
    pub(crate) remote_jwks: Option<RemoteJwksSpec>,
    #[serde(rename = "meshMTLS")]
    pub(crate) mesh_mtls: Option<MeshMtlsSpec>,
    #[serde(default)]
    pub(crate) federation: Vec<FederationSpec>,
    pub(crate) outbound_traffic_policy: Option<OutboundTrafficPolicySpec>,
    #[serde(default)]
    pub(crate) strict: bool,
    #[serde(default)]
    pub(crate) default_deny: bool,
}

/// Istio, `MeshConfig.TLSConfig`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MeshMtlsSpec {
    pub(crate) min_protocol_version: Option<TlsProtocolSpec>,
}

/// Istio, `MeshConfig.TLSConfig.TLSProtocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum TlsProtocolSpec {
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    Tls12,
    #[serde(rename = "TLSV1_3")]
    Tls13,
}

/// A foreign trust domain, and who vouches for its identities.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FederationSpec {
    pub(crate) trust_domain: Text,
    pub(crate) ca_certificate_refs: Vec<ObjectRef>,
}

/// Istio, `MeshConfig.OutboundTrafficPolicy`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OutboundTrafficPolicySpec {
    pub(crate) mode: OutboundTrafficPolicy,
}

/// How keys of issuers are fetched.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RemoteJwksSpec {
    #[serde(default)]
    pub(crate) allow_private_addresses: bool,
}

/// Istio, `MeshConfig.ProxyPathNormalization`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PathNormalizationSpec {
    pub(crate) normalization: NormalizationSpec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum NormalizationSpec {
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// Istio, `Topology`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GatewayTopologySpec {
    #[serde(default)]
    pub(crate) num_trusted_proxies: u8,
}

/// An external authorizer that CUSTOM policies name (Istio, `MeshConfig.ExtensionProvider`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtensionProviderSpec {
    pub(crate) name: Text,
    pub(crate) envoy_ext_authz_http: Option<ExtAuthzHttpSpec>,
    pub(crate) envoy_ext_authz_grpc: Option<ExtAuthzGrpcSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtAuthzHttpSpec {
    pub(crate) service: Text,
    pub(crate) port: u16,
    pub(crate) timeout: Option<Span>,
    pub(crate) path_prefix: Option<Text>,
    #[serde(default)]
    pub(crate) fail_open: bool,
    #[serde(default)]
    pub(crate) clear_route_cache: bool,
    pub(crate) status_on_error: Option<Text>,
    /// What `include_request_headers_in_check` was called before.
    #[serde(default)]
    pub(crate) include_headers_in_check: Vec<FieldPattern>,
    #[serde(default)]
    pub(crate) include_request_headers_in_check: Vec<FieldPattern>,
    #[serde(default)]
    pub(crate) include_additional_headers_in_check: BTreeMap<String, Text>,
    pub(crate) include_request_body_in_check: Option<RequestBodySpec>,
    #[serde(default)]
    pub(crate) headers_to_upstream_on_allow: Vec<FieldPattern>,
    #[serde(default)]
    pub(crate) headers_to_downstream_on_allow: Vec<FieldPattern>,
    #[serde(default)]
    pub(crate) headers_to_downstream_on_deny: Vec<FieldPattern>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtAuthzGrpcSpec {
    pub(crate) service: Text,
    pub(crate) port: u16,
    pub(crate) timeout: Option<Span>,
    #[serde(default)]
    pub(crate) fail_open: bool,
    #[serde(default)]
    pub(crate) clear_route_cache: bool,
    pub(crate) status_on_error: Option<Text>,
    pub(crate) include_request_body_in_check: Option<RequestBodySpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RequestBodySpec {
    pub(crate) max_request_bytes: u32,
    #[serde(default)]
    pub(crate) allow_partial_message: bool,
    #[serde(default)]
    pub(crate) pack_as_bytes: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ScenarioWord(pub(crate) Scenario);

impl<'de> Deserialize<'de> for ScenarioWord {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IngressSpec {
    pub(crate) service: ServiceName,
}

#[derive(Debug)]
pub(crate) struct ServiceName(pub(crate) ObjectName);

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a policy is attached to, in the policy's own namespace.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TargetRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
    pub(crate) name: Text,
    pub(crate) section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ApiKeyPolicySpec {
    pub(crate) target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub(crate) locations: Vec<LocationSpec>,
    pub(crate) hide_credential: Option<bool>,
    pub(crate) consumers: Option<Vec<Text>>,
}

/// The targets of a policy that is broken elsewhere.
#[derive(Debug, Deserialize)]
pub(crate) struct TargetsOnly {
    pub(crate) spec: TargetsSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetsSpec {
    pub(crate) target_refs: Vec<TargetRef>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum LocationSpec {
    Header(FieldName),
    Query(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConsumerSpec {
    #[serde(default)]
    pub(crate) api_keys: Vec<ApiKeySpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ApiKeySpec {
    pub(crate) sha256: Option<Spanned<DigestText>>,
    /// A plain key: accepted here so that it can be refused with advice.
    #[serde(alias = "value", alias = "plain")]
    pub(crate) key: Option<Spanned<IgnoredAny>>,
}

/// 64 hexadecimal digits. The text is kept unread, for it may be a key that was put there by mistake.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct DigestText(pub(crate) String);

impl fmt::Debug for DigestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestText(..)")
    }
}

impl DigestText {
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        if self.0.len() != 64 || !self.0.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.0.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(digest)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RateLimitPolicySpec {
    pub(crate) target_refs: Vec<TargetRef>,
    pub(crate) requests: NonZeroU32,
    pub(crate) period: Spanned<Span>,
    pub(crate) burst: Option<NonZeroU32>,
    #[serde(default)]
    pub(crate) key: KeySpec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum KeySpec {
    #[default]
    Consumer,
    Address,
}

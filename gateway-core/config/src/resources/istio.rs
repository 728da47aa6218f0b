//! `PeerAuthentication`, `RequestAuthentication`, `AuthorizationPolicy` and `WorkloadEntry` of Istio.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::Text;
use super::leaf::{FieldName, Span};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WorkloadSelector {
    #[serde(default)]
    pub(crate) match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PeerAuthenticationSpec {
    pub(crate) selector: Option<WorkloadSelector>,
    pub(crate) mtls: Option<MtlsSpec>,
    #[serde(default, deserialize_with = "by_port")]
    pub(crate) port_level_mtls: BTreeMap<u16, MtlsSpec>,
}

/// Reads keys as the numbers that they are, however they are written.
fn by_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u16, MtlsSpec>, D::Error> {
    struct Ports;

    impl<'de> Visitor<'de> for Ports {
        type Value = BTreeMap<u16, MtlsSpec>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ports, each with its mode")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut ports = BTreeMap::new();
            while let Some(written) = map.next_key::<String>()? {
                let is_number = written.bytes().all(|b| b.is_ascii_digit());
                let port = written.parse().ok().filter(|_| is_number);
                let port = port
                    .ok_or_else(|| A::Error::custom(format!("`{written}` in portLevelMtls is not a port")))?;
                if ports.insert(port, map.next_value()?).is_some() {
                    return Err(A::Error::custom(format!("port {port} is in portLevelMtls twice")));
                }
            }
            Ok(ports)
        }
    }

    deserializer.deserialize_map(Ports)
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MtlsSpec {
    #[serde(default)]
    pub(crate) mode: ModeSpec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ModeSpec {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AuthorizationPolicySpec {
    pub(crate) selector: Option<WorkloadSelector>,
    pub(crate) target_ref: Option<PolicyTargetRef>,
    #[serde(default)]
    pub(crate) target_refs: Vec<PolicyTargetRef>,
    #[serde(default)]
    pub(crate) rules: Vec<Spanned<RuleSpec>>,
    pub(crate) action: Option<Spanned<ActionSpec>>,
    pub(crate) provider: Option<ProviderRef>,
}

/// What a policy is attached to (Istio, `PolicyTargetReference`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PolicyTargetRef {
    #[serde(default)]
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderRef {
    pub(crate) name: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ActionSpec {
    Allow,
    Deny,
    Audit,
    Custom,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RuleSpec {
    pub(crate) from: Option<Vec<FromSpec>>,
    pub(crate) to: Option<Vec<ToSpec>>,
    pub(crate) when: Option<Vec<ConditionSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FromSpec {
    pub(crate) source: SourceSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToSpec {
    pub(crate) operation: OperationSpec,
}

pub(crate) type Values = Option<Vec<Text>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SourceSpec {
    pub(crate) principals: Values,
    pub(crate) not_principals: Values,
    pub(crate) request_principals: Values,
    pub(crate) not_request_principals: Values,
    pub(crate) namespaces: Values,
    pub(crate) not_namespaces: Values,
    pub(crate) service_accounts: Values,
    pub(crate) not_service_accounts: Values,
    pub(crate) ip_blocks: Values,
    pub(crate) not_ip_blocks: Values,
    pub(crate) remote_ip_blocks: Values,
    pub(crate) not_remote_ip_blocks: Values,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OperationSpec {
    pub(crate) hosts: Values,
    pub(crate) not_hosts: Values,
    pub(crate) ports: Values,
    pub(crate) not_ports: Values,
    pub(crate) methods: Values,
    pub(crate) not_methods: Values,
    pub(crate) paths: Values,
    pub(crate) not_paths: Values,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConditionSpec {
    pub(crate) key: Text,
    pub(crate) values: Values,
    pub(crate) not_values: Values,
}

impl SourceSpec {
    /// Whether no field has a value.
    pub(crate) fn is_empty(&self) -> bool {
        are_blank(&[
            &self.principals,
            &self.not_principals,
            &self.request_principals,
            &self.not_request_principals,
            &self.namespaces,
            &self.not_namespaces,
            &self.service_accounts,
            &self.not_service_accounts,
            &self.ip_blocks,
            &self.not_ip_blocks,
            &self.remote_ip_blocks,
            &self.not_remote_ip_blocks,
        ])
    }
}

impl OperationSpec {
    /// Whether no field has a value.
    pub(crate) fn is_empty(&self) -> bool {
        are_blank(&[
            &self.hosts,
            &self.not_hosts,
            &self.ports,
            &self.not_ports,
            &self.methods,
            &self.not_methods,
            &self.paths,
            &self.not_paths,
        ])
    }
}

fn are_blank(fields: &[&Values]) -> bool {
    fields.iter().all(|values| values.as_deref().is_none_or(<[_]>::is_empty))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RequestAuthenticationSpec {
    pub(crate) selector: Option<WorkloadSelector>,
    pub(crate) target_ref: Option<PolicyTargetRef>,
    #[serde(default)]
    pub(crate) target_refs: Vec<PolicyTargetRef>,
    #[serde(default)]
    pub(crate) jwt_rules: Vec<JwtRuleSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JwtRuleSpec {
    pub(crate) issuer: Text,
    #[serde(default)]
    pub(crate) audiences: Vec<String>,
    #[serde(alias = "jwks_uri")]
    pub(crate) jwks_uri: Option<Text>,
    pub(crate) jwks: Option<Text>,
    #[serde(default)]
    pub(crate) from_headers: Vec<JwtHeaderSpec>,
    #[serde(default)]
    pub(crate) from_params: Vec<String>,
    #[serde(default)]
    pub(crate) from_cookies: Vec<String>,
    pub(crate) output_payload_to_header: Option<FieldName>,
    #[serde(default)]
    pub(crate) forward_original_token: bool,
    #[serde(default)]
    pub(crate) output_claim_to_headers: Vec<ClaimToHeaderSpec>,
    pub(crate) timeout: Option<Span>,
    #[serde(default)]
    pub(crate) space_delimited_claims: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtHeaderSpec {
    pub(crate) name: FieldName,
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimToHeaderSpec {
    pub(crate) header: FieldName,
    pub(crate) claim: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WorkloadEntrySpec {
    pub(crate) address: Text,
    #[serde(default)]
    pub(crate) ports: BTreeMap<String, u16>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(rename = "network")]
    pub(crate) _network: Option<String>,
    pub(crate) locality: Option<String>,
    pub(crate) weight: Option<u32>,
    pub(crate) service_account: Option<String>,
}

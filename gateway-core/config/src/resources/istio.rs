//! `PeerAuthentication`, `AuthorizationPolicy` and `WorkloadEntry` of Istio.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::Text;

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
    #[serde(default)]
    pub(crate) port_level_mtls: BTreeMap<String, MtlsSpec>,
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
    pub(crate) target_ref: Option<Spanned<IgnoredAny>>,
    pub(crate) target_refs: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    pub(crate) rules: Vec<Spanned<RuleSpec>>,
    pub(crate) action: Option<Spanned<ActionSpec>>,
    #[serde(rename = "provider")]
    pub(crate) _provider: Option<IgnoredAny>,
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
    pub(crate) when: Option<Spanned<Vec<IgnoredAny>>>,
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

type Values = Option<Vec<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SourceSpec {
    pub(crate) principals: Values,
    pub(crate) not_principals: Values,
    pub(crate) namespaces: Values,
    pub(crate) not_namespaces: Values,
    pub(crate) service_accounts: Values,
    pub(crate) not_service_accounts: Values,
    pub(crate) request_principals: Option<Spanned<IgnoredAny>>,
    pub(crate) not_request_principals: Option<Spanned<IgnoredAny>>,
    pub(crate) ip_blocks: Option<Spanned<IgnoredAny>>,
    pub(crate) not_ip_blocks: Option<Spanned<IgnoredAny>>,
    pub(crate) remote_ip_blocks: Option<Spanned<IgnoredAny>>,
    pub(crate) not_remote_ip_blocks: Option<Spanned<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OperationSpec {
    pub(crate) hosts: Values,
    pub(crate) not_hosts: Values,
    pub(crate) ports: Option<Vec<Text>>,
    pub(crate) not_ports: Option<Vec<Text>>,
    pub(crate) methods: Values,
    pub(crate) not_methods: Values,
    pub(crate) paths: Option<Vec<Text>>,
    pub(crate) not_paths: Option<Vec<Text>>,
}

impl SourceSpec {
    /// Whether no field has a value.
    pub(crate) fn is_empty(&self) -> bool {
        let texts = [
            &self.principals,
            &self.not_principals,
            &self.namespaces,
            &self.not_namespaces,
            &self.service_accounts,
            &self.not_service_accounts,
        ];
        let others = [
            &self.request_principals,
            &self.not_request_principals,
            &self.ip_blocks,
            &self.not_ip_blocks,
            &self.remote_ip_blocks,
            &self.not_remote_ip_blocks,
        ];
        texts.iter().all(|values| is_blank(values.as_deref())) && others.iter().all(|value| value.is_none())
    }
}

impl OperationSpec {
    /// Whether no field has a value.
    pub(crate) fn is_empty(&self) -> bool {
        let texts = [&self.hosts, &self.not_hosts, &self.methods, &self.not_methods];
        let places = [&self.ports, &self.not_ports, &self.paths, &self.not_paths];
        texts.iter().all(|values| is_blank(values.as_deref()))
            && places.iter().all(|values| is_blank(values.as_deref()))
    }
}

fn is_blank<T>(values: Option<&[T]>) -> bool {
    values.is_none_or(<[T]>::is_empty)
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

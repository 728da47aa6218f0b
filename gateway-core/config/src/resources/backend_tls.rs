//! `BackendTLSPolicy` of gateway.networking.k8s.io.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Text;
use super::leaf::PreciseHost;
use super::towpath::TargetRef;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BackendTlsPolicySpec {
    pub(crate) target_refs: Vec<TargetRef>,
    pub(crate) validation: ValidationSpec,
    #[serde(rename = "options")]
    pub(crate) _options: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ValidationSpec {
    #[serde(default)]
    pub(crate) ca_certificate_refs: Vec<LocalRef>,
    #[serde(rename = "wellKnownCACertificates")]
    pub(crate) well_known_ca_certificates: Option<Text>,
    pub(crate) hostname: PreciseHost,
    #[serde(default)]
    pub(crate) subject_alt_names: Vec<SubjectSpec>,
}

/// An object in the namespace of whoever refers to it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LocalRef {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: Text,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubjectSpec {
    #[serde(rename = "type")]
    pub(crate) kind: SubjectKind,
    pub(crate) hostname: Option<PreciseHost>,
    pub(crate) uri: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum SubjectKind {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
}

//! What every object has.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Text;
use super::leaf::Timestamp;

/// Enough of a document to tell what it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) api_version: Option<Text>,
    pub(crate) kind: Option<Text>,
}

/// A document with its name.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) metadata: Metadata,
}

/// The fields of `metadata` that matter here; all others are left alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<Annotations>,
    pub(crate) creation_timestamp: Option<Timestamp>,
    pub(crate) generation: Option<i64>,
}

/// The one annotation that matters here; all others are left alone.
#[derive(Debug, Deserialize)]
pub(crate) struct Annotations {
    #[serde(rename = "istio.io/dry-run")]
    pub(crate) dry_run: Option<String>,
}

/// An object whose `spec` is read strictly.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Strict<S> {
    #[serde(rename = "apiVersion")]
    pub(crate) _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    pub(crate) _kind: IgnoredAny,
    #[serde(rename = "metadata")]
    pub(crate) _metadata: IgnoredAny,
    pub(crate) spec: Option<S>,
    #[serde(rename = "status", default)]
    pub(crate) _status: Option<IgnoredAny>,
}

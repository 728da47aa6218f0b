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

/// The fields of `metadata` (Kubernetes, `ObjectMeta`). Those that matter here are read; a name that is none of them may be
/// a slip in one that does.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) annotations: Option<Annotations>,
    pub(crate) creation_timestamp: Option<Timestamp>,
    pub(crate) generation: Option<i64>,
    #[serde(rename = "generateName")]
    pub(crate) _generate_name: Option<IgnoredAny>,
    #[serde(rename = "selfLink")]
    pub(crate) _self_link: Option<IgnoredAny>,
    #[serde(rename = "uid")]
    pub(crate) _uid: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    pub(crate) _resource_version: Option<IgnoredAny>,
    #[serde(rename = "deletionTimestamp")]
    pub(crate) _deletion_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    pub(crate) _deletion_grace_period_seconds: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    pub(crate) _owner_references: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    pub(crate) _finalizers: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    pub(crate) _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "clusterName")]
    pub(crate) _cluster_name: Option<IgnoredAny>,
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

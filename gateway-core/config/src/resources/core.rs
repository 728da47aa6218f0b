//! Kinds of Kubernetes itself. Real objects hold dozens of fields that do not matter here: they are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use super::leaf::PortRef;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigMap {
    pub(crate) data: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Secret {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// Base64.
    pub(crate) data: Option<BTreeMap<String, String>>,
    /// Plain; wins over `data`.
    pub(crate) string_data: Option<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) selector: Option<BTreeMap<String, String>>,
    /// An address, `None` for a headless Service, or nothing.
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    /// The same for both families; the first is `clusterIP`.
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    pub(crate) ports: Vec<ServicePort>,
}

impl ServiceSpec {
    /// The addresses that clients use.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.cluster_ips.iter().chain(&self.cluster_ip).filter_map(|text| text.parse().ok()).collect()
    }

    /// Whether clients use the addresses of the endpoints.
    pub(crate) fn is_headless(&self) -> bool {
        self.cluster_ip.as_deref() == Some("None")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServicePort {
    pub(crate) name: Option<String>,
    pub(crate) port: u16,
    /// `TCP` if it is left out.
    pub(crate) protocol: Option<String>,
    pub(crate) target_port: Option<PortRef>,
    pub(crate) app_protocol: Option<String>,
}

impl ServicePort {
    pub(crate) fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Pod {
    pub(crate) spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) service_account_name: Option<String>,
    pub(crate) containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) ports: Vec<ContainerPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub(crate) name: Option<String>,
    pub(crate) container_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EndpointSlice {
    pub(crate) endpoints: Option<Vec<SliceEndpoint>>,
    pub(crate) ports: Option<Vec<SlicePort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Vec<String>,
    pub(crate) conditions: Option<EndpointConditions>,
    pub(crate) target_ref: Option<TargetObject>,
    pub(crate) zone: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EndpointConditions {
    pub(crate) ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TargetObject {
    pub(crate) kind: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SlicePort {
    pub(crate) name: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) app_protocol: Option<String>,
}

impl SliceEndpoint {
    /// An unknown readiness means ready (`EndpointConditions`).
    pub(crate) fn is_ready(&self) -> bool {
        self.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    }

    /// The first address; the others are the same endpoint again.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.addresses.first()?.parse().ok()
    }
}

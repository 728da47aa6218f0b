//! `GatewayClass`, `Gateway` and `ReferenceGrant` of gateway.networking.k8s.io.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::Text;
use super::leaf::Host;
use crate::ClientValidationMode;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GatewayClassSpec {
    pub(crate) controller_name: Text,
    #[serde(rename = "description")]
    pub(crate) _description: Option<String>,
    #[serde(rename = "parametersRef")]
    pub(crate) _parameters_ref: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GatewaySpec {
    pub(crate) gateway_class_name: Text,
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerSpec>,
    #[serde(default)]
    pub(crate) addresses: Vec<AddressSpec>,
    pub(crate) infrastructure: Option<Infrastructure>,
    pub(crate) tls: Option<GatewayTls>,
    pub(crate) allowed_listeners: Option<AllowedListeners>,
    #[serde(rename = "defaultScope")]
    pub(crate) _default_scope: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AllowedListeners {
    pub(crate) namespaces: Option<RouteNamespaces>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListenerSetSpec {
    pub(crate) parent_ref: ListenerSetParent,
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListenerSetParent {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Infrastructure {
    pub(crate) parameters_ref: Option<Spanned<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GatewayTls {
    pub(crate) frontend: Option<FrontendTls>,
    pub(crate) backend: Option<BackendTls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FrontendTls {
    #[serde(default)]
    pub(crate) default: FrontendSettings,
    #[serde(default)]
    pub(crate) per_port: Vec<FrontendPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FrontendPort {
    pub(crate) port: Spanned<u16>,
    pub(crate) tls: FrontendSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FrontendSettings {
    pub(crate) validation: Option<FrontendValidation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FrontendValidation {
    #[serde(default)]
    pub(crate) mode: ClientValidationMode,
    pub(crate) ca_certificate_refs: Vec<ObjectRef>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BackendTls {
    pub(crate) client_certificate_ref: Option<ObjectRef>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AddressSpec {
    #[serde(rename = "type")]
    pub(crate) kind: Option<Text>,
    pub(crate) value: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListenerSpec {
    pub(crate) name: Text,
    pub(crate) hostname: Option<Spanned<Host>>,
    pub(crate) port: Spanned<u16>,
    pub(crate) protocol: Text,
    pub(crate) tls: Option<Spanned<ListenerTls>>,
    pub(crate) allowed_routes: Option<AllowedRoutes>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListenerTls {
    pub(crate) mode: Option<TlsModeSpec>,
    #[serde(default)]
    pub(crate) certificate_refs: Vec<ObjectRef>,
    #[serde(rename = "options")]
    pub(crate) _options: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum TlsModeSpec {
    Terminate,
    Passthrough,
}

/// An object that may be in another namespace.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ObjectRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AllowedRoutes {
    pub(crate) namespaces: Option<RouteNamespaces>,
    #[serde(default)]
    pub(crate) kinds: Vec<RouteKind>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RouteNamespaces {
    pub(crate) from: Option<FromNamespaces>,
    pub(crate) selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum FromNamespaces {
    All,
    Same,
    Selector,
    None,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RouteKind {
    pub(crate) group: Option<String>,
    pub(crate) kind: Text,
}

/// The label selector of Kubernetes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelSelector {
    #[serde(default)]
    pub(crate) match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) match_expressions: Vec<LabelRequirement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelRequirement {
    pub(crate) key: String,
    pub(crate) operator: LabelOperator,
    #[serde(default)]
    pub(crate) values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is meant. An empty selector means every object.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        has_all(labels, &self.match_labels)
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator {
                    LabelOperator::In => listed,
                    LabelOperator::NotIn => !listed,
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// Whether `labels` hold each of `wanted`.
pub(crate) fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReferenceGrantSpec {
    pub(crate) from: Vec<GrantFrom>,
    pub(crate) to: Vec<GrantTo>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrantFrom {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GrantTo {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_compare_labels() {
        let labels =
            BTreeMap::from([("app".to_owned(), "a".to_owned()), ("tier".to_owned(), "web".to_owned())]);
        for (selector, expected) in [
            ("{}", true),
            ("matchLabels: {app: a}", true),
            ("matchLabels: {app: b}", false),
            ("matchLabels: {app: a, other: x}", false),
            ("matchExpressions: [{key: app, operator: In, values: [a, b]}]", true),
            ("matchExpressions: [{key: app, operator: NotIn, values: [a, b]}]", false),
            ("matchExpressions: [{key: none, operator: NotIn, values: [a]}]", true),
            ("matchExpressions: [{key: tier, operator: Exists}]", true),
            ("matchExpressions: [{key: tier, operator: DoesNotExist}]", false),
        ] {
            let selector: LabelSelector = serde_saphyr::from_str(selector).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{selector:?}");
        }
    }
}

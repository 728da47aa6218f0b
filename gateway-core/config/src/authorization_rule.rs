//! One rule of an `AuthorizationPolicy`: what is understood of it, and what is not.

use serde_saphyr::Location;
use towpath_auth::{AuthorizationRule, Operation, Pattern, Source};
use towpath_gateway_core::TrustDomain;

use crate::resources::Text;
use crate::resources::istio::{OperationSpec, RuleSpec, SourceSpec};

/// The domain that stands for the mesh's own in policies, whatever that is (Istio, trust domain migration).
const LOCAL_DOMAIN: &str = "cluster.local/";

/// Reads a rule. A field that is not understood is left empty, which means every value of it.
pub(crate) struct Reader<'a> {
    namespace: &'a str,
    domain: &'a TrustDomain,
    at: Location,
    /// What was not understood, and where it stands.
    pub(crate) unread: Vec<(Location, String)>,
}

impl<'a> Reader<'a> {
    /// For the rule that stands `at` a place of a policy in `namespace`.
    pub(crate) fn new(namespace: &'a str, domain: &'a TrustDomain, at: Location) -> Self {
        Self { namespace, domain, at, unread: Vec::new() }
    }

    pub(crate) fn rule(&mut self, rule: &RuleSpec) -> AuthorizationRule {
        if let Some(when) = &rule.when {
            self.unread.push((when.referenced, "`when` is not served yet".into()));
        }
        let (from, to) = (rule.from.as_deref(), rule.to.as_deref());
        if from.is_some_and(<[_]>::is_empty) || to.is_some_and(<[_]>::is_empty) {
            self.refuse("an empty `from` or `to` has no meaning");
        }
        AuthorizationRule {
            from: from.into_iter().flatten().map(|from| self.source(&from.source)).collect(),
            to: to.into_iter().flatten().map(|to| self.operation(&to.operation)).collect(),
        }
    }

    fn refuse(&mut self, what: impl Into<String>) {
        self.unread.push((self.at, what.into()));
    }

    fn source(&mut self, spec: &SourceSpec) -> Source {
        if spec.is_empty() {
            self.refuse("a `source` without a value has no meaning");
        }
        for (field, given) in [
            ("requestPrincipals", &spec.request_principals),
            ("notRequestPrincipals", &spec.not_request_principals),
            ("ipBlocks", &spec.ip_blocks),
            ("notIpBlocks", &spec.not_ip_blocks),
            ("remoteIpBlocks", &spec.remote_ip_blocks),
            ("notRemoteIpBlocks", &spec.not_remote_ip_blocks),
        ] {
            let unread =
                given.as_ref().map(|given| (given.referenced, format!("`{field}` is not served yet")));
            self.unread.extend(unread);
        }
        let mut compiled = Source {
            principals: self.principals("principals", spec.principals.as_deref()),
            not_principals: self.principals("notPrincipals", spec.not_principals.as_deref()),
            namespaces: self.patterns("namespaces", spec.namespaces.as_deref()),
            not_namespaces: self.patterns("notNamespaces", spec.not_namespaces.as_deref()),
        };
        self.accounts("serviceAccounts", spec.service_accounts.as_deref(), &mut compiled.principals);
        self.accounts(
            "notServiceAccounts",
            spec.not_service_accounts.as_deref(),
            &mut compiled.not_principals,
        );
        compiled
    }

    fn principals(&mut self, field: &str, values: Option<&[String]>) -> Vec<Pattern> {
        let domain = self.domain;
        let own = |value: &String| match value.strip_prefix(LOCAL_DOMAIN) {
            Some(rest) => format!("{domain}/{rest}"),
            None => value.clone(),
        };
        let values: Option<Vec<String>> = values.map(|values| values.iter().map(own).collect());
        self.patterns(field, values.as_deref())
    }

    fn patterns(&mut self, field: &str, values: Option<&[String]>) -> Vec<Pattern> {
        let values = values.unwrap_or(&[]);
        if values.iter().any(String::is_empty) {
            self.refuse(format!("`{field}` has an empty value"));
            return Vec::new();
        }
        values.iter().map(|value| Pattern::new(value)).collect()
    }

    /// Service accounts as `NAMESPACE/NAME` or `NAME`, in any trust domain (Istio, `Source.serviceAccounts`).
    fn accounts(&mut self, field: &str, values: Option<&[String]>, principals: &mut Vec<Pattern>) {
        let Some(values) = values else { return };
        if values.is_empty()
            || !principals.is_empty()
            || values.iter().any(|v| v.contains('*') || v.is_empty())
        {
            self.refuse(format!("`{field}` takes names without `*`, and not together with principals"));
            return;
        }
        principals.extend(values.iter().map(|value| {
            let (namespace, account) = value.split_once('/').unwrap_or((self.namespace, value));
            Pattern::Suffix(format!("/ns/{namespace}/sa/{account}").into())
        }));
    }

    fn operation(&mut self, spec: &OperationSpec) -> Operation {
        if spec.is_empty() {
            self.refuse("an `operation` without a value has no meaning");
        }
        Operation {
            hosts: self.patterns("hosts", spec.hosts.as_deref()),
            not_hosts: self.patterns("notHosts", spec.not_hosts.as_deref()),
            methods: self.patterns("methods", spec.methods.as_deref()),
            not_methods: self.patterns("notMethods", spec.not_methods.as_deref()),
            paths: self.paths("paths", spec.paths.as_deref()),
            not_paths: self.paths("notPaths", spec.not_paths.as_deref()),
            ports: self.ports(spec.ports.as_deref()),
            not_ports: self.ports(spec.not_ports.as_deref()),
        }
    }

    fn paths(&mut self, field: &str, values: Option<&[Text]>) -> Vec<Pattern> {
        let is_template = |text: &&Text| text.value.contains("{*}") || text.value.contains("{**}");
        if let Some(text) = values.into_iter().flatten().find(is_template) {
            self.unread
                .push((text.referenced, format!("the path template `{}` is not served yet", text.value)));
            return Vec::new();
        }
        let values: Option<Vec<String>> =
            values.map(|values| values.iter().map(|text| text.value.clone()).collect());
        self.patterns(field, values.as_deref())
    }

    fn ports(&mut self, values: Option<&[Text]>) -> Vec<u16> {
        let read = |text: &Text| {
            text.value.parse().map_err(|_| (text.referenced, format!("`{}` is not a port", text.value)))
        };
        values.into_iter().flatten().map(read).collect::<Result<_, _>>().unwrap_or_else(|unread| {
            self.unread.push(unread);
            Vec::new()
        })
    }
}

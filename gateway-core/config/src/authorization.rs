//! Istio's `AuthorizationPolicy`: which select a workload, and what they say.
//!
//! What is not understood fails closed: an ALLOW rule with it is left out, so that it opens nothing; a DENY rule is
//! taken without it, so that it closes more.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::Location;
use towpath_auth::{
    Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, Operation, Pattern, Source,
};

use crate::Problem;
use crate::objects::{Objects, Stored};
use crate::resources::Text;
use crate::resources::gateway::has_all;
use crate::resources::istio::{ActionSpec, AuthorizationPolicySpec, OperationSpec, RuleSpec, SourceSpec};

/// Every policy of the mesh, compiled.
pub(crate) struct Policies {
    policies: Vec<Scoped>,
}

struct Scoped {
    namespace: Arc<str>,
    labels: BTreeMap<String, String>,
    policy: AuthorizationPolicy,
}

impl Policies {
    /// Compiles all policies.
    pub(crate) fn compile(objects: &Objects, problems: &mut Vec<Problem>) -> Self {
        let compiled = objects.authorization_policies.values().filter_map(|object| scoped(object, problems));
        let refused = objects.refused.iter().filter(|refused| refused.kind == "AuthorizationPolicy");
        // Nobody knows what a policy that cannot be read wanted to refuse, so everything is.
        let locked = refused.map(|refused| Scoped {
            namespace: Arc::clone(&refused.name.namespace),
            labels: BTreeMap::new(),
            policy: AuthorizationPolicy {
                name: refused.name.to_string().into(),
                action: Action::Deny,
                rules: vec![AuthorizationRule::default()],
            },
        });
        Self { policies: compiled.chain(locked).collect() }
    }

    /// Those in force for a workload: of its namespace and of the mesh's root namespace, where the selector matches.
    pub(crate) fn of(
        &self,
        root: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> AuthorizationPolicies {
        let concerns = |policy: &&Scoped| {
            (*policy.namespace == *namespace || *policy.namespace == *root) && has_all(labels, &policy.labels)
        };
        AuthorizationPolicies::new(
            self.policies.iter().filter(concerns).map(|scoped| scoped.policy.clone()).collect(),
        )
    }
}

fn scoped(object: &Stored<AuthorizationPolicySpec>, problems: &mut Vec<Problem>) -> Option<Scoped> {
    if let Some(target) = object.spec.target_ref.as_ref().or(object.spec.target_refs.as_ref()) {
        let message = "target references are not served yet: the policy is in force nowhere";
        problems.push(object.error(target.referenced, message).suggest("select workloads with `selector`"));
        return None;
    }
    let action = action(object, problems)?;
    let rules = object.spec.rules.iter().filter_map(|rule| {
        let mut unread = Vec::new();
        let compiled = compile_rule(&rule.value, &object.name.namespace, rule.referenced, &mut unread);
        let effect = match action {
            Action::Allow => "the rule is left out, so that it allows nothing",
            Action::Deny => "the rule is taken without it, so that it denies more",
        };
        problems.extend(unread.iter().map(|(at, what)| object.error(*at, format!("{what}: {effect}"))));
        (unread.is_empty() || action == Action::Deny).then_some(compiled)
    });
    Some(Scoped {
        namespace: Arc::clone(&object.name.namespace),
        labels: object
            .spec
            .selector
            .as_ref()
            .map(|selector| selector.match_labels.clone())
            .unwrap_or_default(),
        policy: AuthorizationPolicy { name: object.name.to_string().into(), action, rules: rules.collect() },
    })
}

fn action(object: &Stored<AuthorizationPolicySpec>, problems: &mut Vec<Problem>) -> Option<Action> {
    let Some(action) = &object.spec.action else { return Some(Action::Allow) };
    match action.value {
        ActionSpec::Allow => Some(Action::Allow),
        ActionSpec::Deny => Some(Action::Deny),
        ActionSpec::Audit => {
            problems
                .push(object.error(action.referenced, "action AUDIT is not served yet: nothing is audited"));
            None
        }
        ActionSpec::Custom => {
            let message = "action CUSTOM is not served yet: what its rules match is denied";
            problems.push(object.error(action.referenced, message));
            Some(Action::Deny)
        }
    }
}

type Unread = Vec<(Location, String)>;

fn compile_rule(rule: &RuleSpec, namespace: &str, at: Location, unread: &mut Unread) -> AuthorizationRule {
    if let Some(when) = &rule.when {
        unread.push((when.referenced, "`when` is not served yet".into()));
    }
    let (from, to) = (rule.from.as_deref(), rule.to.as_deref());
    if from.is_some_and(<[_]>::is_empty) || to.is_some_and(<[_]>::is_empty) {
        unread.push((at, "an empty `from` or `to` has no meaning".into()));
    }
    AuthorizationRule {
        from: from.into_iter().flatten().map(|from| source(&from.source, namespace, at, unread)).collect(),
        to: to.into_iter().flatten().map(|to| operation(&to.operation, at, unread)).collect(),
    }
}

fn source(spec: &SourceSpec, namespace: &str, at: Location, unread: &mut Unread) -> Source {
    if spec.is_empty() {
        unread.push((at, "a `source` without a value has no meaning".into()));
    }
    for (field, given) in [
        ("requestPrincipals", &spec.request_principals),
        ("notRequestPrincipals", &spec.not_request_principals),
        ("ipBlocks", &spec.ip_blocks),
        ("notIpBlocks", &spec.not_ip_blocks),
        ("remoteIpBlocks", &spec.remote_ip_blocks),
        ("notRemoteIpBlocks", &spec.not_remote_ip_blocks),
    ] {
        unread.extend(given.as_ref().map(|given| (given.referenced, format!("`{field}` is not served yet"))));
    }
    let mut patterns =
        |field: &str, values: &Option<Vec<String>>| patterns(field, values.as_deref(), at, unread);
    let mut compiled = Source {
        principals: patterns("principals", &spec.principals),
        not_principals: patterns("notPrincipals", &spec.not_principals),
        namespaces: patterns("namespaces", &spec.namespaces),
        not_namespaces: patterns("notNamespaces", &spec.not_namespaces),
    };
    accounts(
        "serviceAccounts",
        spec.service_accounts.as_deref(),
        namespace,
        &mut compiled.principals,
        at,
        unread,
    );
    accounts(
        "notServiceAccounts",
        spec.not_service_accounts.as_deref(),
        namespace,
        &mut compiled.not_principals,
        at,
        unread,
    );
    compiled
}

fn patterns(field: &str, values: Option<&[String]>, at: Location, unread: &mut Unread) -> Vec<Pattern> {
    let values = values.unwrap_or(&[]);
    if values.iter().any(String::is_empty) {
        unread.push((at, format!("`{field}` has an empty value")));
        return Vec::new();
    }
    values.iter().map(|value| Pattern::new(value)).collect()
}

/// Service accounts as `NAMESPACE/NAME` or `NAME`, in any trust domain (Istio, `Source.serviceAccounts`).
fn accounts(
    field: &str,
    values: Option<&[String]>,
    namespace: &str,
    principals: &mut Vec<Pattern>,
    at: Location,
    unread: &mut Unread,
) {
    let Some(values) = values else { return };
    if values.is_empty() || !principals.is_empty() || values.iter().any(|v| v.contains('*') || v.is_empty()) {
        unread.push((at, format!("`{field}` takes names without `*`, and not together with principals")));
        return;
    }
    principals.extend(values.iter().map(|value| {
        let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
        Pattern::Suffix(format!("/ns/{namespace}/sa/{account}").into())
    }));
}

fn operation(spec: &OperationSpec, at: Location, unread: &mut Unread) -> Operation {
    if spec.is_empty() {
        unread.push((at, "an `operation` without a value has no meaning".into()));
    }
    let mut texts =
        |field: &str, values: &Option<Vec<String>>| patterns(field, values.as_deref(), at, unread);
    let (hosts, not_hosts) = (texts("hosts", &spec.hosts), texts("notHosts", &spec.not_hosts));
    let (methods, not_methods) = (texts("methods", &spec.methods), texts("notMethods", &spec.not_methods));
    Operation {
        hosts,
        not_hosts,
        methods,
        not_methods,
        paths: paths("paths", spec.paths.as_deref(), at, unread),
        not_paths: paths("notPaths", spec.not_paths.as_deref(), at, unread),
        ports: ports(spec.ports.as_deref(), unread),
        not_ports: ports(spec.not_ports.as_deref(), unread),
    }
}

fn paths(field: &str, values: Option<&[Text]>, at: Location, unread: &mut Unread) -> Vec<Pattern> {
    let is_template = |text: &&Text| text.value.contains("{*}") || text.value.contains("{**}");
    if let Some(text) = values.into_iter().flatten().find(is_template) {
        unread.push((text.referenced, format!("the path template `{}` is not served yet", text.value)));
        return Vec::new();
    }
    let values: Option<Vec<String>> =
        values.map(|values| values.iter().map(|text| text.value.clone()).collect());
    patterns(field, values.as_deref(), at, unread)
}

fn ports(values: Option<&[Text]>, unread: &mut Unread) -> Vec<u16> {
    let read = |text: &Text| {
        text.value.parse().map_err(|_| (text.referenced, format!("`{}` is not a port", text.value)))
    };
    values.into_iter().flatten().map(read).collect::<Result<_, _>>().unwrap_or_else(|defect| {
        unread.push(defect);
        Vec::new()
    })
}

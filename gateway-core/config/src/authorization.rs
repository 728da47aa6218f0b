//! Istio's `AuthorizationPolicy`: which select a workload, and what they say.
//!
//! What is not understood fails closed: an ALLOW rule with it is left out, so that it opens nothing; a DENY rule is
//! taken without it, so that it closes more.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_auth::{Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule};
use towpath_gateway_core::TrustDomain;

use crate::Problem;
use crate::authorization_rule::Reader;
use crate::objects::{Objects, Stored};
use crate::resources::gateway::has_all;
use crate::resources::istio::{ActionSpec, AuthorizationPolicySpec};

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
    pub(crate) fn compile(objects: &Objects, domain: &TrustDomain, problems: &mut Vec<Problem>) -> Self {
        let objects_of_kind = objects.authorization_policies.values();
        let compiled = objects_of_kind.filter_map(|object| scoped(object, domain, problems));
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

fn scoped(
    object: &Stored<AuthorizationPolicySpec>,
    domain: &TrustDomain,
    problems: &mut Vec<Problem>,
) -> Option<Scoped> {
    if object.dry_run {
        problems.push(object.warning(None, "`istio.io/dry-run` keeps the policy out of force"));
        return None;
    }
    if let Some(target) = object.spec.target_ref.as_ref().or(object.spec.target_refs.as_ref()) {
        let message = "target references are not served yet: the policy is in force nowhere";
        problems.push(object.error(target.referenced, message).suggest("select workloads with `selector`"));
        return None;
    }
    let action = action(object, problems)?;
    let rules = object.spec.rules.iter().filter_map(|rule| {
        let mut reader = Reader::new(&object.name.namespace, domain, rule.referenced);
        let (compiled, unread) = (reader.rule(&rule.value), reader.unread);
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

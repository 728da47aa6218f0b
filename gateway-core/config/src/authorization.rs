//! Istio's `AuthorizationPolicy`: which hold where, and what they say.
//!
//! What is not understood fails closed: an ALLOW rule with it is left out, so that it opens nothing; a rule of any other
//! action is taken without it, so that it catches more.

use std::sync::Arc;

use serde_saphyr::Location;
use towpath_auth::{
    Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, ExternalAuth, Pattern, Source,
    Values,
};

use crate::authorization_rule::Reader;
use crate::objects::{Objects, Stored};
use crate::resources::istio::{ActionSpec, AuthorizationPolicySpec};
use crate::scope::{Place, Scope};
use crate::{MeshSettings, Problem};

/// Every policy of the mesh, compiled.
pub(crate) struct Policies {
    policies: Vec<Scoped>,
}

struct Scoped {
    scope: Scope,
    policy: AuthorizationPolicy,
    /// Who is to be asked by a CUSTOM policy.
    provider: Option<Arc<str>>,
}

impl Scoped {
    /// Nobody knows what a policy that cannot be read wanted to refuse, so everything is.
    fn shut(name: String, namespace: &Arc<str>) -> Self {
        let policy = AuthorizationPolicy::new(name, Action::Deny, vec![AuthorizationRule::default()]);
        Self { scope: Scope::whole(namespace), policy, provider: None }
    }
}

impl Policies {
    /// Compiles all policies. `known` tells whether there is a provider of a name.
    pub(crate) fn compile(
        objects: &Objects,
        mesh: &MeshSettings,
        known: impl Fn(&str) -> bool,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let objects_of_kind = objects.authorization_policies.values();
        let mut policies: Vec<_> =
            objects_of_kind.filter_map(|object| scoped(object, objects, mesh, &known, problems)).collect();
        for refused in &objects.refused {
            let name = match refused.kind {
                "AuthorizationPolicy" if refused.name.namespace.is_empty() => refused.name.name.to_string(),
                "AuthorizationPolicy" => refused.name.to_string(),
                "RequestAuthentication" => refused.label(),
                _ => continue,
            };
            policies.push(Scoped::shut(name, refused.scope(&mesh.root_namespace)));
        }
        Self { policies }
    }

    /// Refuses everything that a namespace has a say about.
    pub(crate) fn shut(&mut self, name: String, namespace: &Arc<str>) {
        self.policies.push(Scoped::shut(name, namespace));
    }

    /// Those in force at a place. `provider` finds who a CUSTOM policy asks, by provider and policy.
    pub(crate) fn of(
        &self,
        objects: &Objects,
        root: &str,
        (places, default_deny): (&[Place<'_>], bool),
        mut provider: impl FnMut(&str, &Arc<str>) -> Option<ExternalAuth>,
    ) -> AuthorizationPolicies {
        let concerns =
            |scoped: &&Scoped| places.iter().any(|place| scoped.scope.holds(objects, root, *place));
        let policies = self.policies.iter().filter(concerns).map(|scoped| {
            let mut policy = scoped.policy.clone();
            policy.provider =
                scoped.provider.as_ref().and_then(|name| provider(name, &policy.name)).map(Arc::new);
            policy
        });
        let own = if default_deny { self::default_deny() } else { Vec::new() };
        AuthorizationPolicies::new(policies.chain(own).collect())
    }
}

/// Refuses who has no identity, and what no other ALLOW policy names.
fn default_deny() -> Vec<AuthorizationPolicy> {
    let nobody = Source { principals: Values::not(vec![Pattern::Present]), ..Source::default() };
    let plaintext = AuthorizationRule { from: vec![nobody], ..AuthorizationRule::default() };
    vec![
        AuthorizationPolicy::new("mesh/default-deny", Action::Deny, vec![plaintext]),
        AuthorizationPolicy::new("mesh/default-deny", Action::Allow, Vec::new()),
    ]
}

fn scoped(
    object: &Stored<AuthorizationPolicySpec>,
    objects: &Objects,
    mesh: &MeshSettings,
    known: impl Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) -> Option<Scoped> {
    let spec = &object.spec;
    let targets: Vec<_> = spec.target_ref.iter().chain(&spec.target_refs).collect();
    let scope = match Scope::read(&object.name.namespace, spec.selector.as_ref(), &targets) {
        Ok(scope) => scope,
        Err(defect) => {
            let message =
                format!("{}: everything in the namespace is refused until it is mended", defect.message);
            problems.push(object.error(defect.location, message));
            return Some(Scoped::shut(object.name.to_string(), &object.name.namespace));
        }
    };
    for missing in scope.missing(objects) {
        problems.push(object.warning(None, format!("there is no {missing} that the policy could hold at")));
    }
    let action = action(spec.action.as_ref().map(|action| action.value));
    let dry_run = dry_run(object, action, problems)?;
    let provider = provider(object, action, known, problems);
    let rules = spec.rules.iter().filter_map(|rule| {
        let mut reader = Reader::new(&object.name.namespace, mesh, rule.referenced);
        let compiled = reader.rule(&rule.value);
        let Reader { unread, vain, .. } = reader;
        problems.extend(vain.into_iter().map(|(at, what, meant)| object.warning(at, what).suggest(meant)));
        let effect = match action {
            Action::Allow => "the rule is left out, so that it allows nothing",
            Action::Deny | Action::Custom | Action::Audit => {
                "the rule is taken without it, so that it catches more"
            }
        };
        problems.extend(unread.iter().map(|(at, what)| object.error(*at, format!("{what}: {effect}"))));
        (unread.is_empty() || action != Action::Allow).then_some(compiled)
    });
    let policy = AuthorizationPolicy::new(object.name.to_string(), action, rules.collect());
    Some(Scoped { scope, policy: AuthorizationPolicy { dry_run, ..policy }, provider })
}

fn action(spec: Option<ActionSpec>) -> Action {
    match spec {
        None | Some(ActionSpec::Allow) => Action::Allow,
        Some(ActionSpec::Deny) => Action::Deny,
        Some(ActionSpec::Audit) => Action::Audit,
        Some(ActionSpec::Custom) => Action::Custom,
    }
}

/// Whether the policy is only tried out; `None` if it is, and has no verdict that could be told.
fn dry_run(
    object: &Stored<AuthorizationPolicySpec>,
    action: Action,
    problems: &mut Vec<Problem>,
) -> Option<bool> {
    if !object.dry_run {
        return Some(false);
    }
    if matches!(action, Action::Allow | Action::Deny) {
        let message = "`istio.io/dry-run`: the policy is told of in log and metrics, and not enforced";
        problems.push(object.warning(None, message));
        return Some(true);
    }
    let message =
        format!("`istio.io/dry-run` goes with ALLOW and DENY, not with {action}: the policy is left out");
    problems.push(object.error(None, message));
    None
}

fn provider(
    object: &Stored<AuthorizationPolicySpec>,
    action: Action,
    known: impl Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) -> Option<Arc<str>> {
    let (spec, mut refuse) = (&object.spec, |at: Option<Location>, message: String| {
        problems.push(object.error(at, message));
    });
    match (action, &spec.provider) {
        (Action::Custom, Some(provider)) => {
            let name = &provider.name;
            if !known(&name.value) {
                let message = format!(
                    "there is no extension provider `{}`: what the rules match is refused",
                    name.value
                );
                refuse(Some(name.referenced), message);
            }
            Some(name.value.as_str().into())
        }
        (Action::Custom, None) => {
            refuse(None, "action CUSTOM needs a `provider`: what the rules match is refused".into());
            None
        }
        (_, Some(provider)) => {
            refuse(Some(provider.name.referenced), "a `provider` goes with action CUSTOM alone".into());
            None
        }
        (_, None) => None,
    }
}

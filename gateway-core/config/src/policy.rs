//! Policies that are attached to Gateways and routes: API keys and rate limits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderName;
use towpath_auth::{ApiKeyDigest, ApiKeyLocation, ApiKeys};
use towpath_gateway_core::{Consumer, Policies};
use towpath_rate_limit::{RateLimit, RateLimitKey};

use crate::objects::{GATEWAY_GROUP, Objects, Refused, Stored};
use crate::resources::towpath::{ApiKeyPolicySpec, KeySpec, LocationSpec, RateLimitPolicySpec, TargetRef};
use crate::{ObjectName, Problem};

/// What a policy may be attached to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    kind: &'static str,
    object: ObjectName,
    section: Option<String>,
}

/// Policies by what they are attached to.
#[derive(Default)]
pub(crate) struct Attachments {
    by_target: HashMap<Target, Policies>,
    /// Namespaces in which every route stays shut, for a policy there cannot be read. One without name is all of them.
    locked: HashMap<Arc<str>, Policies>,
}

impl Attachments {
    /// Resolves all policies. Of several of one kind on one target the oldest wins.
    pub(crate) fn compile(objects: &Objects, problems: &mut Vec<Problem>) -> Self {
        let mut attachments = Self::default();
        let mut taken = HashMap::new();
        for policy in by_seniority(&objects.api_key_policies) {
            let settings = Policies::builder().with(api_keys(policy, objects, problems)).build();
            attachments.attach(policy, &policy.spec.target_refs, &settings, &mut taken, objects, problems);
        }
        taken.clear();
        for policy in by_seniority(&objects.rate_limit_policies) {
            let settings = Policies::builder().with(rate_limit(policy)).build();
            attachments.attach(policy, &policy.spec.target_refs, &settings, &mut taken, objects, problems);
        }
        for refused in objects.refused.iter().filter(|refused| refused.kind == "ApiKeyPolicy") {
            attachments.lock(refused);
        }
        attachments
    }

    /// The settings in force for a rule, the most specific winning: listener's Gateway, listener, route, rule.
    pub(crate) fn of(
        &self,
        (gateway, listener): (&ObjectName, &str),
        (kind, route): (&'static str, &ObjectName),
        rule: Option<&str>,
    ) -> Policies {
        let target = |kind, object: &ObjectName, section: Option<&str>| Target {
            kind,
            object: object.clone(),
            section: section.map(str::to_owned),
        };
        let mut levels = vec![
            target("Gateway", gateway, None),
            target("Gateway", gateway, Some(listener)),
            target(kind, route, None),
        ];
        levels.extend(rule.map(|rule| target(kind, route, Some(rule))));
        let found = levels
            .iter()
            .filter_map(|level| self.by_target.get(level))
            .chain(self.locked.get(&route.namespace))
            .chain(self.locked.get(""));
        found.fold(Policies::default(), |all, more| all.merged(more))
    }

    fn attach<S>(
        &mut self,
        policy: &Stored<S>,
        targets: &[TargetRef],
        settings: &Policies,
        taken: &mut HashMap<Target, ObjectName>,
        objects: &Objects,
        problems: &mut Vec<Problem>,
    ) {
        for reference in targets {
            let at = reference.name.referenced;
            let target = match resolve(reference, &policy.name.namespace, objects) {
                Ok(target) => target,
                Err(message) => {
                    problems.push(policy.error(at, message));
                    continue;
                }
            };
            if let Some(first) = taken.get(&target) {
                let message = format!(
                    "the older policy {first} is attached to the same target: this one is not in force there"
                );
                problems.push(policy.error(at, message));
                continue;
            }
            taken.insert(target.clone(), policy.name.clone());
            let held = self.by_target.entry(target).or_default();
            *held = held.merged(settings);
        }
    }

    /// What an unreadable policy protected stays shut: no key opens it.
    fn lock(&mut self, refused: &Refused) {
        let namespace = &refused.name.namespace;
        let shut = Policies::builder().with(no_keys(&refused.name)).build();
        let Some(targets) = refused.targets.as_ref().filter(|_| !namespace.is_empty()) else {
            self.locked.insert(Arc::clone(namespace), shut);
            return;
        };
        for reference in targets {
            let object =
                ObjectName { namespace: Arc::clone(namespace), name: reference.name.value.as_str().into() };
            let kind = KINDS.into_iter().find(|kind| *kind == reference.kind);
            let section = reference.section_name.clone();
            if let Some(kind) = kind {
                let held = self.by_target.entry(Target { kind, object, section }).or_default();
                *held = held.merged(&shut);
            }
        }
    }
}

const KINDS: [&str; 3] = ["Gateway", "HTTPRoute", "GRPCRoute"];

fn by_seniority<S>(table: &BTreeMap<ObjectName, Arc<Stored<S>>>) -> Vec<&Arc<Stored<S>>> {
    let mut policies: Vec<_> = table.values().collect();
    policies.sort_by_key(|policy| policy.seniority());
    policies
}

fn resolve(reference: &TargetRef, namespace: &Arc<str>, objects: &Objects) -> Result<Target, String> {
    let group = reference.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = KINDS.into_iter().find(|kind| *kind == reference.kind && group == GATEWAY_GROUP);
    let kind = kind.ok_or_else(|| {
        format!("a policy is attached to {}, not to `{}`", KINDS.join(", "), reference.kind)
    })?;
    let object = ObjectName { namespace: Arc::clone(namespace), name: reference.name.value.as_str().into() };
    let sections: Option<Vec<&str>> =
        match kind {
            "Gateway" => objects.gateways.get(&object).map(|gateway| {
                gateway.spec.listeners.iter().map(|listener| listener.name.value.as_str()).collect()
            }),
            "HTTPRoute" => objects.http_routes.get(&object).map(|route| {
                route.spec.rules.iter().flatten().filter_map(|rule| rule.name.as_deref()).collect()
            }),
            _ => objects.grpc_routes.get(&object).map(|route| {
                route.spec.rules.iter().flatten().filter_map(|rule| rule.name.as_deref()).collect()
            }),
        };
    let known_broken =
        || objects.refused.iter().any(|refused| refused.kind == kind && refused.name == object);
    let sections = match sections {
        None if known_broken() => return Err(format!("the target {kind} {object} could not be read")),
        None => return Err(format!("there is no {kind} {object} to attach to")),
        Some(sections) => sections,
    };
    match &reference.section_name {
        Some(section) if !sections.contains(&section.as_str()) => {
            Err(format!("{kind} {object} has no section `{section}` to attach to"))
        }
        section => Ok(Target { kind, object, section: section.clone() }),
    }
}

fn api_keys(policy: &Stored<ApiKeyPolicySpec>, objects: &Objects, problems: &mut Vec<Problem>) -> ApiKeys {
    let spec = &policy.spec;
    let locations = spec.locations.iter().map(|location| match location {
        LocationSpec::Header(name) => ApiKeyLocation::Header(name.0.clone()),
        LocationSpec::Query(name) => ApiKeyLocation::Query(name.as_str().into()),
    });
    let mut keys = ApiKeys {
        locations: locations.collect(),
        hide_credential: spec.hide_credential.unwrap_or(true),
        ..no_keys(&policy.name)
    };
    if keys.locations.is_empty() {
        keys.locations = no_keys(&policy.name).locations;
    }
    for wanted in spec.consumers.iter().flatten() {
        let name =
            ObjectName { namespace: Arc::clone(&policy.name.namespace), name: wanted.value.as_str().into() };
        if !objects.consumers.contains_key(&name) {
            problems.push(policy.error(wanted.referenced, format!("there is no Consumer {name}")));
        }
    }
    let allowed = |name: &ObjectName| {
        name.namespace == policy.name.namespace
            && spec
                .consumers
                .as_ref()
                .is_none_or(|wanted| wanted.iter().any(|wanted| *wanted.value == *name.name))
    };
    for consumer in objects.consumers.values().filter(|consumer| allowed(&consumer.name)) {
        let owner = Consumer::new(consumer.name.to_string());
        for digest in consumer.spec.api_keys.iter().filter_map(|key| key.sha256.as_ref()?.value.digest()) {
            keys.keys.entry(ApiKeyDigest(digest)).or_insert_with(|| owner.clone());
        }
    }
    keys
}

fn no_keys(policy: &ObjectName) -> ApiKeys {
    ApiKeys {
        name: policy.to_string().into(),
        locations: vec![ApiKeyLocation::Header(HeaderName::from_static("x-api-key"))],
        keys: HashMap::new(),
        hide_credential: true,
    }
}

/// Two consumers with one key: nobody could tell them apart.
pub(crate) fn check_consumers(objects: &Objects, problems: &mut Vec<Problem>) {
    let mut owners: HashMap<[u8; 32], &ObjectName> = HashMap::new();
    for consumer in objects.consumers.values() {
        for key in consumer.spec.api_keys.iter().filter_map(|key| key.sha256.as_ref()) {
            let Some(digest) = key.value.digest() else { continue };
            if let Some(owner) =
                owners.insert(digest, &consumer.name).filter(|owner| **owner != consumer.name)
            {
                problems
                    .push(consumer.error(key.referenced, format!("Consumer {owner} has the same API key")));
            }
        }
    }
}

fn rate_limit(policy: &Stored<RateLimitPolicySpec>) -> RateLimit {
    let spec = &policy.spec;
    RateLimit {
        name: policy.name.to_string().into(),
        requests: spec.requests,
        period: spec.period.value.0,
        burst: spec.burst.unwrap_or(spec.requests),
        key: match spec.key {
            KeySpec::Consumer => RateLimitKey::Consumer,
            KeySpec::Address => RateLimitKey::Address,
        },
    }
}

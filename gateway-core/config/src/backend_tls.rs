//! `BackendTLSPolicy`: which ports of Services are spoken to by TLS, and what their servers have to prove.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use towpath_gateway_core::{TlsServer, TlsSubject};

use crate::compile::Work;
use crate::document::Defect;
use crate::gateway::GatewayState;
use crate::objects::{GATEWAY_GROUP, Objects, Stored};
use crate::resources::backend_tls::{BackendTlsPolicySpec, LocalRef, SubjectKind};
use crate::resources::core::ServicePort;
use crate::resources::towpath::TargetRef;
use crate::status::{Refusal, Verdict, condition, item};
use crate::{ObjectName, Problem};

type Policy = Stored<BackendTlsPolicySpec>;

/// What a Service's port asks for by a policy.
pub(crate) type Demand = Result<Arc<TlsServer>, Refusal>;

/// The policies by Service. Of two for the same Service, or the same port of it, the older holds.
#[derive(Default)]
pub(crate) struct TlsPolicies {
    by_service: HashMap<ObjectName, Vec<(Option<String>, Demand)>>,
    /// Namespaces with a policy whose Service could not be read: which one it is for, nobody knows.
    unreadable: Vec<Arc<str>>,
    judged: Vec<Judged>,
}

struct Judged {
    name: ObjectName,
    accepted: Verdict,
    resolved: Verdict,
}

/// What is wrong with a policy by itself.
pub(crate) fn check(spec: &BackendTlsPolicySpec, found: &mut Vec<Defect>) {
    let mut say =
        |message: &str| found.push(Defect { location: None, message: message.into(), suggestion: None });
    let validation = &spec.validation;
    if validation.ca_certificate_refs.is_empty() == validation.well_known_ca_certificates.is_none() {
        say("`validation` has either `caCertificateRefs` or `wellKnownCACertificates`");
    }
    for subject in &validation.subject_alt_names {
        let (wanted, given) = match subject.kind {
            SubjectKind::Hostname => ("hostname", subject.hostname.is_some() && subject.uri.is_none()),
            SubjectKind::Uri => ("uri", subject.uri.is_some() && subject.hostname.is_none()),
        };
        if !given {
            say(&format!("a subjectAltName of this type has the field `{wanted}` and no other"));
        }
    }
}

impl TlsPolicies {
    pub(crate) fn compile(objects: &Objects, problems: &mut Vec<Problem>) -> Self {
        let mut policies = Self::default();
        let mut all: Vec<_> = objects.backend_tls_policies.values().collect();
        all.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        for policy in all {
            policies.add(objects, policy, problems);
        }
        for refused in objects.refused.iter().filter(|refused| refused.kind == "BackendTLSPolicy") {
            let broken = || Refusal::new("NoValidCACertificate", "the BackendTLSPolicy could not be read");
            match &refused.targets {
                None => policies.unreadable.push(Arc::clone(&refused.name.namespace)),
                Some(targets) => targets.iter().filter(|target| is_service(target)).for_each(|target| {
                    let service = name_of(&refused.name.namespace, target);
                    policies
                        .by_service
                        .entry(service)
                        .or_default()
                        .push((target.section_name.clone(), Err(broken())));
                }),
            }
        }
        policies
    }

    fn add(&mut self, objects: &Objects, policy: &Policy, problems: &mut Vec<Problem>) {
        let demand = server(objects, policy);
        let mut accepted = Err(Refusal::new("Conflicted", "older policies are for all that it is for"));
        for target in &policy.spec.target_refs {
            let service = name_of(&policy.name.namespace, target);
            if !is_service(target) || !objects.services.contains_key(&service) {
                let message = format!("there is no {} {service} to attach to", target.kind);
                problems.push(policy.error(target.name.referenced, message));
                continue;
            }
            let places = self.by_service.entry(service).or_default();
            if places.iter().all(|(section, _)| *section != target.section_name) {
                places.push((target.section_name.clone(), demand.clone()));
                accepted = Ok(());
            } else {
                let message = format!("an older BackendTLSPolicy is for {} already", target.name.value);
                problems.push(policy.warning(target.name.referenced, message));
            }
        }
        let mut resolved = Ok(());
        if let Err(refusal) = demand {
            problems.push(policy.error(None, format!("{}: its Services answer 500", refusal.message)));
            let invalid = Refusal::new("NoValidCACertificate", refusal.message.clone());
            accepted = accepted.and(Err(invalid));
            resolved = Err(refusal);
        }
        self.judged.push(Judged { name: policy.name.clone(), accepted, resolved });
    }

    /// What is asked of a port: by a policy for it, or else by one for the whole Service.
    pub(crate) fn of(&self, service: &ObjectName, port: &ServicePort) -> Option<Demand> {
        if self.unreadable.contains(&service.namespace) {
            let message = "a BackendTLSPolicy of its namespace could not be read";
            return Some(Err(Refusal::new("NoValidCACertificate", message)));
        }
        let places = self.by_service.get(service)?;
        let of = |wanted: Option<&str>| places.iter().find(|(section, _)| section.as_deref() == wanted);
        let own = port.name.as_deref().and_then(|name| of(Some(name)));
        own.or_else(|| of(None)).map(|(_, demand)| demand.clone())
    }
}

fn is_service(target: &TargetRef) -> bool {
    matches!(target.group.as_deref(), None | Some("" | "core")) && target.kind == "Service"
}

fn name_of(namespace: &Arc<str>, target: &TargetRef) -> ObjectName {
    ObjectName { namespace: Arc::clone(namespace), name: target.name.value.as_str().into() }
}

fn server(objects: &Objects, policy: &Policy) -> Demand {
    let validation = &policy.spec.validation;
    if validation.well_known_ca_certificates.is_some() {
        let message =
            "`wellKnownCACertificates` is not served yet: name the authorities by `caCertificateRefs`";
        return Err(Refusal::new("InvalidCACertificateRef", message));
    }
    let mut roots = Vec::new();
    for reference in &validation.ca_certificate_refs {
        roots.extend(authorities(objects, &policy.name.namespace, reference)?);
    }
    let subjects = validation.subject_alt_names.iter().filter_map(|subject| match subject.kind {
        SubjectKind::Hostname => Some(TlsSubject::Dns(Arc::clone(&subject.hostname.as_ref()?.0))),
        SubjectKind::Uri => Some(TlsSubject::Uri(subject.uri.as_ref()?.value.as_str().into())),
    });
    let (name, subjects) = (Arc::clone(&validation.hostname.0), subjects.collect());
    Ok(Arc::new(TlsServer { name, subjects, roots }))
}

/// The certificates of a `ConfigMap` under `ca.crt`, each of them usable.
fn authorities(
    objects: &Objects,
    namespace: &Arc<str>,
    reference: &LocalRef,
) -> Result<Vec<Arc<[u8]>>, Refusal> {
    if !matches!(reference.group.as_str(), "" | "core") || reference.kind != "ConfigMap" {
        let message = format!("authorities are in a ConfigMap, not in a `{}`", reference.kind);
        return Err(Refusal::new("InvalidKind", message));
    }
    let name = ObjectName { namespace: Arc::clone(namespace), name: reference.name.value.as_str().into() };
    let invalid = |why: &str| Refusal::new("InvalidCACertificateRef", format!("ConfigMap {name}{why}"));
    let map = objects.config_maps.get(&name).ok_or_else(|| invalid(" is not there"))?;
    let text = map.spec.data.as_ref().and_then(|data| data.get("ca.crt"));
    let text = text.ok_or_else(|| invalid(" has no `ca.crt`"))?;
    let found: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|_| invalid(": `ca.crt` is not PEM"))?;
    let mut store = RootCertStore::empty();
    if found.is_empty() || found.iter().any(|root| store.add(root.clone()).is_err()) {
        return Err(invalid(": `ca.crt` holds no usable certificate"));
    }
    Ok(found.iter().map(|root| root.as_ref().into()).collect())
}

/// The status of each policy, for every Gateway with a route to one of its Services.
pub(crate) fn report(work: &mut Work<'_>, gateways: &[GatewayState<'_>]) {
    let Work { objects, backends, .. } = work;
    let controller = work.options.controller_name.as_deref().unwrap_or(crate::status::CONTROLLER);
    let mut items = Vec::new();
    for judged in &backends.tls.judged {
        let Some(policy) = objects.backend_tls_policies.get(&judged.name) else { continue };
        let services: Vec<_> = policy
            .spec
            .target_refs
            .iter()
            .map(|target| format!("{}:", name_of(&policy.name.namespace, target)))
            .collect();
        let concerned = gateways.iter().filter(|gateway| {
            gateway.backend_names().any(|name| services.iter().any(|service| name.starts_with(&**service)))
        });
        let ancestors: Vec<_> =
            concerned.map(|gateway| ancestor(gateway, judged, controller, policy.generation)).collect();
        if !ancestors.is_empty() {
            items.push(item(policy, json!({ "ancestors": ancestors })));
        }
    }
    work.status.extend(items);
}

fn ancestor(gateway: &GatewayState<'_>, judged: &Judged, controller: &str, generation: Option<i64>) -> Value {
    let name = &gateway.object.name;
    json!({
        "ancestorRef": {
            "group": GATEWAY_GROUP, "kind": "Gateway", "namespace": &*name.namespace, "name": &*name.name,
        },
        "controllerName": controller,
        "conditions": [
            condition("Accepted", "Accepted", &judged.accepted, generation),
            condition("ResolvedRefs", "ResolvedRefs", &judged.resolved, generation),
        ],
    })
}

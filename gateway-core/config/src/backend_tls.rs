//! `BackendTLSPolicy`: which ports of Services are spoken to by TLS, and what their servers have to prove.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::RootCertStore;
use towpath_gateway_core::{TlsServer, TlsSubject};

use crate::authorities;
use crate::compile::Work;
use crate::document::Defect;
use crate::gateway::GatewayState;
use crate::objects::{Objects, Stored};
use crate::resources::backend_tls::{BackendTlsPolicySpec, LocalRef, SubjectKind};
use crate::resources::core::ServicePort;
use crate::service_policy::{self, is_service, target_name};
use crate::status::{Refusal, Verdict, condition};
use crate::{ObjectName, Options, Problem};

/// The authorities that the machine trusts (Gateway API, `WellKnownCACertificatesType`).
const SYSTEM: &str = "System";

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
    pub(crate) fn compile(objects: &Objects, options: &Options, problems: &mut Vec<Problem>) -> Self {
        let mut policies = Self::default();
        let mut all: Vec<_> = objects.backend_tls_policies.values().collect();
        all.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        for policy in all {
            policies.add(objects, options, policy, problems);
        }
        for refused in objects.refused.iter().filter(|refused| refused.kind == "BackendTLSPolicy") {
            let broken = || Refusal::new("NoValidCACertificate", "the BackendTLSPolicy could not be read");
            match &refused.targets {
                None => policies.unreadable.push(Arc::clone(&refused.name.namespace)),
                Some(targets) => targets.iter().filter(|target| is_service(target)).for_each(|target| {
                    let service = target_name(&refused.name.namespace, target);
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

    fn add(&mut self, objects: &Objects, options: &Options, policy: &Policy, problems: &mut Vec<Problem>) {
        let (demand, resolved) = server(objects, options, policy);
        let mut accepted = Err(Refusal::new("TargetNotFound", "nothing of what it is for is there"));
        for target in &policy.spec.target_refs {
            let Some(service) = service_policy::service(objects, policy, target, problems) else { continue };
            if let Some(section) =
                target.section_name.as_deref().filter(|name| !has_port(objects, &service, name))
            {
                let message =
                    format!("Service {service} has no port named `{section}`: this is for none of them");
                problems.push(policy.error(target.name.referenced, message));
                continue;
            }
            let places = self.by_service.entry(service).or_default();
            if places.iter().all(|(section, _)| *section != target.section_name) {
                places.push((target.section_name.clone(), demand.clone()));
                accepted = Ok(());
            } else {
                let message = format!("an older BackendTLSPolicy is for {} already", target.name.value);
                problems.push(policy.warning(target.name.referenced, message.clone()));
                if accepted.is_err() {
                    accepted = Err(Refusal::new("Conflicted", message));
                }
            }
        }
        if let Err(refusal) = &resolved {
            let what = if demand.is_err() { "its Services answer 500" } else { "the others hold" };
            problems.push(policy.error(None, format!("{}: {what}", refusal.message)));
        }
        if let (Err(refusal), true) = (&demand, resolved.is_ok()) {
            problems.push(policy.error(None, format!("{}: its Services answer 500", refusal.message)));
        }
        if let Err(refusal) = demand {
            accepted = accepted.and(Err(refusal));
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

/// Of what a system trusts, whatever is of use here: it may hold certificates that are too old or too odd.
fn usable(found: Vec<Arc<[u8]>>) -> Vec<Arc<[u8]>> {
    let mut store = RootCertStore::empty();
    found.into_iter().filter(|root| store.add(root.to_vec().into()).is_ok()).collect()
}

fn has_port(objects: &Objects, service: &ObjectName, name: &str) -> bool {
    let ports = objects.services.get(service).into_iter().flat_map(|service| &service.spec.spec.ports);
    ports.into_iter().any(|port| port.name.as_deref() == Some(name))
}

/// What its servers have to prove, as long as one authority can be read, and the first reference that leads nowhere.
fn server(objects: &Objects, options: &Options, policy: &Policy) -> (Demand, Verdict) {
    let validation = &policy.spec.validation;
    let (mut roots, mut resolved) = (Vec::new(), Ok(()));
    if let Some(word) = &validation.well_known_ca_certificates {
        match (word.value.as_str(), options.system_authorities) {
            (SYSTEM, Some(read)) => roots = usable(read()),
            (word, _) => {
                let message = format!("`wellKnownCACertificates: {word}` is not served: `{SYSTEM}` is");
                return (Err(Refusal::new("Invalid", message)), resolved);
            }
        }
        if roots.is_empty() {
            let message = "the system has no certificates of authorities";
            resolved = Err(Refusal::new("InvalidCACertificateRef", message));
        }
    }
    for reference in &validation.ca_certificate_refs {
        match authorities(objects, &policy.name.namespace, reference) {
            Ok(found) => roots.extend(found),
            Err(refusal) => resolved = resolved.and(Err(refusal)),
        }
    }
    if let (true, Err(refusal)) = (roots.is_empty(), &resolved) {
        return (Err(Refusal::new("NoValidCACertificate", refusal.message.clone())), resolved);
    }
    let subjects = validation.subject_alt_names.iter().filter_map(|subject| match subject.kind {
        SubjectKind::Hostname => Some(TlsSubject::Dns(Arc::clone(&subject.hostname.as_ref()?.0))),
        SubjectKind::Uri => Some(TlsSubject::Uri(subject.uri.as_ref()?.value.as_str().into())),
    });
    let (name, subjects) = (Arc::clone(&validation.hostname.0), subjects.collect());
    (Ok(Arc::new(TlsServer::new(name, subjects, roots))), resolved)
}

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
    authorities::read(objects, &name)
}

/// The status of each policy.
pub(crate) fn report(work: &mut Work<'_>, gateways: &[GatewayState<'_>]) {
    let mut items = Vec::new();
    for judged in &work.backends.tls.judged {
        let Some(policy) = work.objects.backend_tls_policies.get(&judged.name) else { continue };
        let conditions = [
            condition("Accepted", "Accepted", &judged.accepted, policy.generation),
            condition("ResolvedRefs", "ResolvedRefs", &judged.resolved, policy.generation),
        ];
        items.extend(service_policy::status(
            policy,
            &policy.spec.target_refs,
            gateways,
            &work.controller,
            &conditions,
        ));
    }
    work.status.extend(items);
}

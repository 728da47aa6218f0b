//! Rules of routes: what each does, and where its requests go.

use std::sync::Arc;
use std::time::Duration;

use towpath_auth::ExternalAuth;
use towpath_gateway_core::{Backend, Policies, RouteName};
use towpath_routing::{Cors, Filters, Mirror, Rule, WeightedBackend};
use towpath_upstream::{Retry, Timeouts};

use crate::backend::{Carries, backend_name, find_port};
use crate::compile::Work;
use crate::extension::Extension;
use crate::matches::Match;
use crate::objects::Stored;
use crate::parents::is_service;
use crate::references::is_granted;
use crate::resources::route::{
    BackendRef, MirrorSpec, ParentRef, RetrySpec, RouteSpec, RuleSpec, TimeoutsSpec,
};
use crate::status::{Refusal, Verdict};
use crate::topology::{Hop, Rules};
use crate::{ObjectName, Problem, Role};
use crate::{external_auth, filter, session};

/// The port of the ingress Service that the gateway sends to.
const INGRESS_PORT: u16 = 80;

/// A route with every reference resolved.
pub(crate) struct CompiledRoute {
    pub(crate) rules: Vec<CompiledRule>,
    /// Whether all references lead somewhere; else the first that does not.
    pub(crate) resolved: Verdict,
}

/// What filters add to a rule's settings.
struct Added {
    cors: Option<Cors>,
    extension: Extension,
    external_auth: Option<ExternalAuth>,
}

pub(crate) struct CompiledRule {
    /// The rule's own name: policies may be attached to it.
    pub(crate) section: Option<String>,
    pub(crate) rule: Rule,
}

/// Compiles the rules of a route, as far as they are carried out here.
pub(crate) fn compile<M: Match>(work: &mut Work<'_>, route: &Stored<RouteSpec<M>>) -> CompiledRoute {
    let mut compiled = CompiledRoute { rules: Vec::new(), resolved: Ok(()) };
    // A route without the field has one rule that takes everything (the default of the resource's definition).
    let Some(rules) = &route.spec.rules else {
        let rule = RuleSpec {
            name: None,
            matches: Vec::new(),
            filters: Vec::new(),
            backend_refs: Vec::new(),
            timeouts: None,
            retry: None,
            session_persistence: None,
        };
        compiled.rules.extend(compile_rule(work, route, 0, &rule, &mut compiled.resolved));
        return compiled;
    };
    for (index, rule) in rules.iter().enumerate() {
        compiled.rules.extend(compile_rule(work, route, index, rule, &mut compiled.resolved));
    }
    compiled
}

fn compile_rule<M: Match>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    index: usize,
    spec: &RuleSpec<M>,
    resolved: &mut Verdict,
) -> Option<CompiledRule> {
    let (filters, added) = filters(work, route, spec, resolved);
    let backends = backends(work, route, spec, resolved);
    let redirects = filters.redirect.is_some();
    let (filters, backends) = match work.plan.rules {
        Rules::Behind if redirects => return None,
        Rules::Front if !redirects => (Filters::default(), work.ingress_backend()),
        Rules::Whole | Rules::Behind | Rules::Front => (filters, backends),
    };
    let rule = spec.name.clone().unwrap_or_else(|| index.to_string());
    let session = session(work, route, spec, &rule, &backends);
    // What was wrong with a match was found when the object was read.
    let matches = spec.matches.iter().map(|request| request.compile(&mut Vec::new())).collect();
    let rule = Rule {
        name: RouteName::new(route.name.to_string(), rule),
        matches,
        filters,
        backends,
        policies: policies(work.plan.rules, spec, added).merged(&session),
    };
    Some(CompiledRule { section: spec.name.clone(), rule })
}

/// Sessions of the rule, where it is carried out.
fn session<M>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    spec: &RuleSpec<M>,
    rule: &str,
    backends: &[WeightedBackend],
) -> Policies {
    let Some(session) = spec.session_persistence.as_ref().filter(|_| work.plan.rules != Rules::Front) else {
        return Policies::default();
    };
    if work.plan.hop == Hop::AttachedSidecar {
        let message = "in the scenario `attached` a session stays with its backend: the endpoint is chosen by the \
                       gateway's sidecar";
        work.problems.push(route.warning(session.referenced, message));
    }
    let owner = format!("{}#{rule}", route.name);
    Policies::builder().with(session::compile(&session.value, &owner, backends)).build()
}

fn filters<M: Match>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    spec: &RuleSpec<M>,
    resolved: &mut Verdict,
) -> (Filters, Added) {
    let mut compiled =
        filter::compile(&spec.filters, spec.matches.iter().all(Match::is_prefix), &mut Vec::new());
    for defect in &compiled.unsupported {
        work.problems.push(defect.problem(&route.place).about(route.label()));
        refuse(resolved, &Refusal::new("InvalidKind", defect.message.clone()));
    }
    let redirects = compiled.filters.redirect.is_some();
    let extension = extension(work, route, spec, redirects, resolved);
    let external_auth = external_auth(work, route, spec, resolved);
    compiled.filters.unresolved |= extension.is_none() || external_auth.is_err();
    let mirrors = spec.filters.iter().filter_map(|filter| filter.request_mirror.as_ref());
    let mirrors = mirrors.filter_map(|spec| mirror(work, route, spec, resolved)).collect();
    let added = Added {
        cors: compiled.cors,
        extension: extension.unwrap_or_default(),
        external_auth: external_auth.ok().flatten(),
    };
    (Filters { mirrors, ..compiled.filters }, added)
}

/// The rule's `externalAuth`; an error if its backend leads nowhere, for nobody could be asked.
fn external_auth<M>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    spec: &RuleSpec<M>,
    resolved: &mut Verdict,
) -> Result<Option<ExternalAuth>, Refusal> {
    let Some(spec) = spec.filters.iter().find_map(|filter| filter.external_auth.as_ref()) else {
        return Ok(None);
    };
    let reference = &spec.backend_ref;
    let service = service_name(reference, &route.name.namespace);
    let from = (route.kind, &*route.name.namespace);
    let backend = resolve(work, from, reference, &service, (false, Carries::Http));
    let backend = backend.inspect_err(|refusal| {
        let message = format!("{}: requests that this rule takes end as 500", refusal.message);
        work.problems.push(route.error(reference.name.referenced, message));
        refuse(resolved, refusal);
    })?;
    Ok(Some(external_auth::compile(spec, &route.name.to_string(), backend)))
}

/// What the rule's `extensionRef` filters lead to; `None` if one of them cannot be carried out.
fn extension<M>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    spec: &RuleSpec<M>,
    redirects: bool,
    resolved: &mut Verdict,
) -> Option<Extension> {
    let (mut extension, mut whole) = (Extension::default(), true);
    for reference in spec.filters.iter().filter_map(|filter| filter.extension_ref.as_ref()) {
        let mut added = extension.add(work.objects, &route.name.namespace, reference);
        if added.is_ok() && redirects && extension.direct.is_some() {
            let message = "RequestRedirect and a `directResponse` exclude each other";
            added = Err(Refusal::new("IncompatibleFilters", message));
        }
        if let Err(refusal) = added {
            let message = format!("{}: requests that this rule takes end as 500", refusal.message);
            work.problems.push(route.error(reference.name.referenced, message));
            refuse(resolved, &refusal);
            whole = false;
        }
    }
    whole.then_some(extension)
}

/// A mirror; one that leads nowhere is reported and left out (Gateway API, `HTTPRequestMirrorFilter.backendRef`).
fn mirror<M>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    spec: &MirrorSpec,
    resolved: &mut Verdict,
) -> Option<Mirror> {
    let reference = &spec.backend_ref;
    let service = service_name(reference, &route.name.namespace);
    let granted = is_parent(work, route, &service);
    let from = (route.kind, &*route.name.namespace);
    match resolve(work, from, reference, &service, (granted, Carries::Http)) {
        Ok(backend) => {
            let (numerator, denominator) = filter::share(spec);
            Some(Mirror { backend, denominator, numerator })
        }
        Err(refusal) => {
            work.problems.push(route.error(reference.name.referenced, refusal.message.clone()));
            refuse(resolved, &refusal);
            None
        }
    }
}

fn refuse(resolved: &mut Verdict, refusal: &Refusal) {
    if resolved.is_ok() {
        *resolved = Err(refusal.clone());
    }
}

fn backends<M: Match>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    spec: &RuleSpec<M>,
    resolved: &mut Verdict,
) -> Vec<WeightedBackend> {
    if let (Some(first), true) =
        (spec.backend_refs.first(), spec.backend_refs.iter().all(|b| b.weight == Some(0)))
    {
        work.problems.push(route.warning(first.name.referenced, "every weight is 0: requests end as 500"));
    }
    spec.backend_refs.iter().map(|reference| weighted(work, route, reference, resolved)).collect()
}

fn weighted<M>(
    work: &mut Work<'_>,
    route: &Stored<RouteSpec<M>>,
    reference: &BackendRef,
    resolved: &mut Verdict,
) -> WeightedBackend {
    let mut compiled = filter::compile(&reference.filters, false, &mut Vec::new());
    let service = service_name(reference, &route.name.namespace);
    let granted = is_parent(work, route, &service);
    let from = (route.kind, &*route.name.namespace);
    let mut backend =
        resolve(work, from, reference, &service, (granted, Carries::Http)).unwrap_or_else(|refusal| {
            work.problems.push(route.error(reference.name.referenced, refusal.message.clone()));
            refuse(resolved, &refusal);
            unresolved(&service, reference)
        });
    for defect in &compiled.unsupported {
        work.problems.push(defect.problem(&route.place).about(route.label()));
    }
    let mirrors = reference.filters.iter().any(|filter| filter.request_mirror.is_some());
    let extended = reference.filters.iter().any(|filter| filter.extension_ref.is_some());
    let asks = reference.filters.iter().any(|filter| filter.external_auth.is_some());
    let of_rules = [
        (compiled.cors.is_some(), "CORS"),
        (mirrors, "RequestMirror"),
        (extended, "ExtensionRef"),
        (asks, "ExternalAuth"),
    ];
    for (_, kind) in of_rules.into_iter().filter(|(given, _)| *given) {
        let message =
            format!("filter {kind} is served for rules, not for a backend: its requests end as 500");
        work.problems.push(route.error(reference.name.referenced, message));
        compiled.filters.unresolved = true;
    }
    if compiled.filters.unresolved {
        refuse(resolved, &Refusal::new("InvalidKind", "a filter of a backend is not served yet"));
        backend = unresolved(&service, reference);
    }
    WeightedBackend {
        backend,
        weight: reference.weight.unwrap_or(1),
        request_headers: compiled.filters.request_headers,
        response_headers: compiled.filters.response_headers,
        rewrite: compiled.filters.rewrite,
        redirect: compiled.filters.redirect,
    }
}

/// Whether a route of the mesh sends on to the Service that it is for: its requests were on their way there, and need no
/// leave of that namespace (GEP-1294).
fn is_parent<M>(work: &Work<'_>, route: &Stored<RouteSpec<M>>, service: &ObjectName) -> bool {
    let means = |parent: &ParentRef| {
        is_service(parent)
            && *parent.name.value == *service.name
            && parent.namespace.as_deref().unwrap_or(&route.name.namespace) == &*service.namespace
    };
    matches!(work.options.role, Role::Sidecar { .. }) && route.spec.parent_refs.iter().any(means)
}

pub(crate) fn service_name(reference: &BackendRef, namespace: &Arc<str>) -> ObjectName {
    let namespace = reference.namespace.as_deref().map_or_else(|| Arc::clone(namespace), Arc::from);
    ObjectName { namespace, name: reference.name.value.as_str().into() }
}

pub(crate) fn unresolved(service: &ObjectName, reference: &BackendRef) -> Arc<Backend> {
    Arc::new(Backend::unresolved(backend_name(service, reference.port.unwrap_or_default())))
}

/// The backend that a reference means, if it may mean it. `granted`: it needs no leave of another namespace.
pub(crate) fn resolve(
    work: &mut Work<'_>,
    (kind, namespace): (&str, &str),
    reference: &BackendRef,
    service: &ObjectName,
    (granted, carries): (bool, Carries),
) -> Result<Arc<Backend>, Refusal> {
    let (group, backend_kind) =
        (reference.group.as_deref().unwrap_or(""), reference.kind.as_deref().unwrap_or("Service"));
    if !(matches!(group, "" | "core") && backend_kind == "Service") {
        return Err(Refusal::new("InvalidKind", format!("a backend is a Service, not a `{backend_kind}`")));
    }
    if !granted && !is_granted(work.objects, kind, namespace, "Service", service) {
        let message = format!(
            "Service {service} is in another namespace, and no ReferenceGrant there allows the reference"
        );
        return Err(Refusal::new("RefNotPermitted", message));
    }
    let port = reference
        .port
        .ok_or_else(|| Refusal::new("BackendNotFound", "a reference to a Service names its port"))?;
    // In front of an ingress the reference is checked alone: the ingress sends there.
    if work.plan.rules == Rules::Front {
        return find_port(work.objects, service, port, carries).map(|_| unresolved(service, reference));
    }
    work.backends.service(service, port, carries, &mut work.problems)
}

impl Work<'_> {
    /// The one backend of everything that the ingress carries out.
    fn ingress_backend(&mut self) -> Vec<WeightedBackend> {
        self.at_ingress(INGRESS_PORT, Carries::Http)
    }

    /// The one backend at a port of the ingress.
    pub(crate) fn at_ingress(&mut self, port: u16, carries: Carries) -> Vec<WeightedBackend> {
        let backend = self.backends.service(self.ingress, port, carries, &mut self.problems).unwrap_or_else(
            |refusal| {
                let problem = Problem::error(format!("the ingress is not to be found: {}", refusal.message))
                    .suggest(
                        "name its Service in the Mesh resource, as `ingress: {service: NAMESPACE/NAME}`",
                    );
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
                Arc::new(Backend::unresolved(backend_name(self.ingress, port)))
            },
        );
        vec![WeightedBackend::new(backend, 1)]
    }
}

/// Deadlines hold at the outermost place, retries at the one next to the service.
fn policies<M>(part: Rules, spec: &RuleSpec<M>, added: Added) -> Policies {
    let mut policies = Policies::builder();
    // Where clients come in, before anything asks for a credential.
    if let Some(cors) = added.cors.filter(|_| part != Rules::Behind) {
        policies = policies.with(cors);
    }
    if let Some(timeouts) = &spec.timeouts {
        policies = policies.with(self::timeouts(timeouts));
    }
    if let Some(retry) = spec.retry.as_ref().filter(|_| part != Rules::Front) {
        policies = policies.with(self::retry(retry));
    }
    if part == Rules::Front {
        return policies.build();
    }
    if let Some(auth) = added.external_auth {
        policies = policies.with(auth);
    }
    policies.build().merged(&added.extension.policies())
}

fn timeouts(spec: &TimeoutsSpec) -> Timeouts {
    let limit = |span: Duration| (span > Duration::ZERO).then_some(span);
    let backend_request = spec.backend_request.as_ref().and_then(|span| limit(span.value.0));
    let request = match &spec.request {
        Some(span) => limit(span.0),
        // The default must not cut short a try that was given more.
        None => Timeouts::default().request.map(|default| default.max(backend_request.unwrap_or_default())),
    };
    Timeouts { request, backend_request }
}

fn retry(spec: &RetrySpec) -> Retry {
    let default = Retry::default();
    Retry {
        attempts: spec.attempts.unwrap_or(default.attempts),
        codes: spec.codes.iter().map(|code| code.0).collect(),
        backoff: spec.backoff.as_ref().map_or(default.backoff, |span| span.0),
    }
}

//! Certificates of clients: what the listeners of a Gateway ask for (Gateway API, `Gateway.spec.tls.frontend`).

use std::sync::Arc;

use crate::authorities;
use crate::compile::Work;
use crate::document::Defect;
use crate::listener::ListenerState;
use crate::objects::Stored;
use crate::references::{is_granted, target};
use crate::resources::gateway::{FrontendTls, FrontendValidation, GatewaySpec, ObjectRef};
use crate::status::{Condition, Refusal, Verdict, given};
use crate::{ClientValidation, ClientValidationMode};

/// Most references to authorities (Gateway API, `FrontendTLSValidation.caCertificateRefs`).
const MAX_REFERENCES: usize = 8;

/// What is wrong with it whatever other objects there are.
pub(crate) fn check(frontend: &FrontendTls, found: &mut Vec<Defect>) {
    let mut ports = Vec::new();
    for settings in &frontend.per_port {
        if ports.contains(&settings.port.value) {
            let message = format!("port {} is in `perPort` twice", settings.port.value);
            found.push(Defect::new(settings.port.referenced, message));
        }
        ports.push(settings.port.value);
    }
    for validation in validations(frontend) {
        let references = &validation.ca_certificate_refs;
        if references.is_empty() || references.len() > MAX_REFERENCES {
            let message = format!(
                "there are {} caCertificateRefs, and 1 to {MAX_REFERENCES} are allowed",
                references.len()
            );
            found.push(Defect { location: None, message, suggestion: None });
        }
    }
}

/// Says of each listener that ends TLS what it asks for. Whichever cannot ask for what it has to stays shut: it would be
/// open to anybody.
pub(crate) fn judge(work: &Work<'_>, gateway: &Stored<GatewaySpec>, listeners: &mut [ListenerState<'_>]) {
    let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else { return };
    for listener in listeners.iter_mut().filter(|listener| listener.ends_tls() && listener.clients.is_none())
    {
        let Some(validation) = of_port(frontend, listener.spec.port.value) else { continue };
        let (clients, resolved) = compile(work, gateway, validation);
        if let Err(refusal) = resolved {
            if clients.is_none() && listener.accepted.is_ok() {
                listener.accepted = Err(Refusal::new("NoValidCACertificate", refusal.message.clone()));
            }
            // Of several references that lead nowhere the listener's own certificate is named first.
            if listener.resolved.is_ok() {
                listener.resolved = Err(refusal);
            }
        }
        listener.clients = clients.map(Arc::new);
    }
}

fn validations(frontend: &FrontendTls) -> impl Iterator<Item = &FrontendValidation> {
    let per_port = frontend.per_port.iter().map(|settings| &settings.tls);
    per_port.chain([&frontend.default]).filter_map(|settings| settings.validation.as_ref())
}

/// The condition of a Gateway that takes clients whose certificate is not valid.
pub(crate) fn insecure(spec: &GatewaySpec, generation: Option<i64>) -> Option<Condition> {
    let frontend = spec.tls.as_ref()?.frontend.as_ref()?;
    let insecure =
        |validation: &FrontendValidation| validation.mode == ClientValidationMode::AllowInsecureFallback;
    let message = "clients without a valid certificate are taken";
    let kind = "InsecureFrontendValidationMode";
    validations(frontend)
        .any(insecure)
        .then(|| given(kind, true, "ConfigurationChanged", message, generation))
}

/// What holds for a port: its own settings take the place of the Gateway's, also where they ask for nothing.
fn of_port(frontend: &FrontendTls, port: u16) -> Option<&FrontendValidation> {
    let own = frontend.per_port.iter().find(|settings| settings.port.value == port);
    own.map_or(&frontend.default, |settings| &settings.tls).validation.as_ref()
}

/// The authorities that could be read, if any could, and the first reference that leads nowhere.
fn compile(
    work: &Work<'_>,
    gateway: &Stored<GatewaySpec>,
    validation: &FrontendValidation,
) -> (Option<ClientValidation>, Verdict) {
    let (mut roots, mut resolved) = (Vec::new(), Ok(()));
    for reference in &validation.ca_certificate_refs {
        match authorities(work, gateway, reference) {
            Ok(found) => roots.extend(found),
            Err(refusal) => resolved = resolved.and(Err(refusal)),
        }
    }
    let mode = validation.mode;
    ((!roots.is_empty()).then_some(ClientValidation { roots, mode }), resolved)
}

fn authorities(
    work: &Work<'_>,
    gateway: &Stored<GatewaySpec>,
    reference: &ObjectRef,
) -> Result<Vec<Arc<[u8]>>, Refusal> {
    let (kind, group) = (reference.kind.as_deref(), reference.group.as_deref().unwrap_or_default());
    if !matches!(group, "" | "core") || kind.is_some_and(|kind| kind != "ConfigMap") {
        let message = format!("authorities are in a ConfigMap, not in a `{}`", kind.unwrap_or(group));
        return Err(Refusal::new("InvalidCACertificateKind", message));
    }
    let own = &gateway.name.namespace;
    let name = target(own, reference);
    if !is_granted(work.objects, gateway.kind, own, "ConfigMap", &name) {
        let message = format!(
            "ConfigMap {name} is in another namespace, and no ReferenceGrant there allows the reference"
        );
        return Err(Refusal::new("RefNotPermitted", message));
    }
    authorities::read(work.objects, &name)
}

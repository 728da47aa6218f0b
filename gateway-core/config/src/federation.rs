//! Foreign trust domains: whose identities are taken, and by which roots (SPIFFE federation).

use rustls_pki_types::CertificateDer;
use towpath_gateway_core::TrustDomain;
use towpath_mesh_mtls::TrustBundle;

use crate::objects::{Objects, Stored};
use crate::references::target;
use crate::resources::towpath::{FederationSpec, MeshSpec};
use crate::{MeshSettings, Problem, authorities};

/// The bundles of the domains that the mesh is federated with. Of what cannot be read, nothing is trusted.
pub(crate) fn compile(
    objects: &Objects,
    object: &Stored<MeshSpec>,
    mesh: &MeshSettings,
    problems: &mut Vec<Problem>,
) -> Vec<TrustBundle> {
    let mut bundles: Vec<TrustBundle> = Vec::new();
    for spec in &object.spec.federation {
        // What is no trust domain was told of when the object was read.
        let Ok(domain) = spec.trust_domain.value.parse::<TrustDomain>() else { continue };
        let found = if mesh.trust_domains().any(|own| *own == domain) {
            Err(format!("`{domain}` is a domain of the mesh itself: its roots are those of the workloads"))
        } else if bundles.iter().any(|bundle| *bundle.domain() == domain) {
            Err(format!("`{domain}` is there twice: the first holds"))
        } else {
            bundle(objects, object, mesh, (&domain, spec), problems)
        };
        match found {
            Ok(bundle) => bundles.push(bundle),
            Err(message) => problems.push(object.error(spec.trust_domain.referenced, message)),
        }
    }
    bundles
}

fn bundle(
    objects: &Objects,
    object: &Stored<MeshSpec>,
    mesh: &MeshSettings,
    (domain, spec): (&TrustDomain, &FederationSpec),
    problems: &mut Vec<Problem>,
) -> Result<TrustBundle, String> {
    let mut roots = Vec::new();
    for reference in &spec.ca_certificate_refs {
        let (kind, group) = (reference.kind.as_deref(), reference.group.as_deref().unwrap_or_default());
        let found = if matches!(group, "" | "core") && kind.is_none_or(|kind| kind == "ConfigMap") {
            let name = target(&mesh.root_namespace, reference);
            authorities::read(objects, &name).map_err(|refusal| refusal.message)
        } else {
            Err(format!("authorities are in a ConfigMap, not in a `{}`", kind.unwrap_or(group)))
        };
        match found {
            Ok(found) => roots.extend(found.iter().map(|root| CertificateDer::from(root.to_vec()))),
            Err(message) => problems.push(object.error(reference.name.referenced, message)),
        }
    }
    TrustBundle::new(domain.clone(), roots)
        .map_err(|error| format!("{error}; until then nobody of `{domain}` is trusted"))
}

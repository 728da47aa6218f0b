//! Certificates of authorities, from `ConfigMap`s under the key `ca.crt`.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::ObjectName;
use crate::objects::Objects;
use crate::status::Refusal;

/// The certificates of a `ConfigMap` in DER, each of them usable.
pub(crate) fn read(objects: &Objects, name: &ObjectName) -> Result<Vec<Arc<[u8]>>, Refusal> {
    let invalid = |why: &str| Refusal::new("InvalidCACertificateRef", format!("ConfigMap {name}{why}"));
    let map = objects.config_maps.get(name).ok_or_else(|| invalid(" is not there"))?;
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

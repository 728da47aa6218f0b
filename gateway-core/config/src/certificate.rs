//! Certificates of edge listeners, from Secrets of type `kubernetes.io/tls`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use towpath_routing::Hostname;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::resources::core::Secret;

/// A chain with its key, and what matters of its leaf.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
    /// DNS names of the leaf.
    pub(crate) names: Vec<Hostname>,
    /// Why clients will refuse it now, if they will.
    pub(crate) out_of_date: Option<String>,
}

/// Reads a Secret. The error says what is wrong with it, and nothing of what is in it.
pub(crate) fn read(secret: &Secret, now: SystemTime) -> Result<Credential, String> {
    if let Some(kind) = secret.kind.as_deref().filter(|kind| *kind != "kubernetes.io/tls") {
        return Err(format!("the Secret's type is `{kind}`, not `kubernetes.io/tls`"));
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&field(secret, "tls.crt")?).collect();
    let chain = chain.map_err(|_| "`tls.crt` is not a chain of PEM certificates".to_owned())?;
    let leaf = chain.first().ok_or("`tls.crt` holds no PEM certificate")?;
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|_| "the first certificate of `tls.crt` cannot be read")?;
    let key = PrivateKeyDer::from_pem_slice(&field(secret, "tls.key")?)
        .map_err(|_| "`tls.key` holds no PEM private key (PKCS#8, PKCS#1 or SEC1)".to_owned())?;
    check_pair(&chain, &key)?;
    Ok(Credential {
        names: names(&leaf),
        out_of_date: out_of_date(&leaf, now),
        chain: chain.clone(),
        key: Arc::new(key),
    })
}

fn field(secret: &Secret, name: &str) -> Result<Vec<u8>, String> {
    if let Some(text) = secret.string_data.as_ref().and_then(|data| data.get(name)) {
        return Ok(text.clone().into_bytes());
    }
    let text = secret
        .data
        .as_ref()
        .and_then(|data| data.get(name))
        .ok_or_else(|| format!("the Secret has no `{name}`"))?;
    let compact: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(compact).map_err(|_| format!("`{name}` is not base64"))
}

fn check_pair(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<(), String> {
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
        .map_err(|_| "the private key is of a kind that is not supported".to_owned())?;
    match CertifiedKey::new(chain.to_vec(), signer).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err("`tls.key` is not the key of the certificate in `tls.crt`".into()),
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<Hostname> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => name.parse().ok(),
        _ => None,
    });
    dns.filter(|name| *name != Hostname::Any).collect()
}

fn out_of_date(leaf: &X509Certificate<'_>, now: SystemTime) -> Option<String> {
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let (from, to) = (leaf.validity().not_before, leaf.validity().not_after);
    if now > to.timestamp() {
        return Some(format!("the certificate expired on {to}"));
    }
    (now < from.timestamp()).then(|| format!("the certificate is not valid before {from}"))
}

//! What a message of the Workload API says (SPIFFE Workload API, section 5). Pure: a message in, a credential out.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use towpath_gateway_core::SpiffeId;
use towpath_mesh_mtls::{Credential, TrustBundle};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509SvidRequest {}

/// Revocation lists are not read.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<X509Svid>,
    /// By the SPIFFE id of a foreign trust domain: roots in DER, one after the other.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) federated_bundles: BTreeMap<String, Vec<u8>>,
}

/// Its `Debug` form must not be shown: it holds the private key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    /// `x509_svid`: certificates in DER, one after the other, the workload's own first.
    #[prost(bytes = "bytes", tag = "2")]
    chain: Bytes,
    /// `x509_svid_key`: PKCS#8 in DER.
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    /// Roots in DER, one after the other.
    #[prost(bytes = "bytes", tag = "4")]
    bundle: Bytes,
}

/// Why a message gives no credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("the workload has no SVID for {wanted}, but for {found}; look at its registration entries")]
    NotEntitled { wanted: SpiffeId, found: String },
    #[error("the agent's message holds no SVID")]
    Empty,
    #[error("the SVID for `{id}` cannot be used: {why}")]
    Svid { id: String, why: String },
}

/// The credential of `wanted`, or the first one, which is the default (section 5.3).
pub(crate) fn credential(
    message: X509SvidResponse,
    wanted: Option<&SpiffeId>,
    now: SystemTime,
) -> Result<Credential, Unusable> {
    if message.svids.is_empty() {
        return Err(Unusable::Empty);
    }
    let found = message.svids.iter().map(|svid| svid.spiffe_id.escape_debug().to_string());
    let found = found.take(5).collect::<Vec<_>>().join(", ");
    let is_wanted = |svid: &X509Svid| wanted.is_none_or(|wanted| svid.spiffe_id == wanted.as_str());
    match (message.svids.into_iter().find(is_wanted), wanted) {
        (Some(svid), _) => read(svid, &message.federated_bundles, now),
        (None, Some(wanted)) => Err(Unusable::NotEntitled { wanted: wanted.clone(), found }),
        (None, None) => Err(Unusable::Empty),
    }
}

fn read(
    svid: X509Svid,
    federated: &BTreeMap<String, Vec<u8>>,
    now: SystemTime,
) -> Result<Credential, Unusable> {
    let named = svid.spiffe_id.escape_debug().to_string();
    let unusable = |why: &dyn Display| Unusable::Svid { id: named.clone(), why: why.to_string() };
    let id: SpiffeId = svid.spiffe_id.parse().map_err(|why| unusable(&why))?;
    let domain = id.trust_domain().parse().map_err(|why| unusable(&why))?;
    let roots =
        certificates(&svid.bundle).ok_or_else(|| unusable(&"its bundle is not certificates in DER"))?;
    let chain = certificates(&svid.chain).ok_or_else(|| unusable(&"it is not certificates in DER"))?;
    let bundle = TrustBundle::new(domain, roots).map_err(|why| unusable(&why))?;
    let bundle = bundle.with_federated(federated.iter().filter_map(|(id, roots)| foreign(id, roots)));
    let key = PrivatePkcs8KeyDer::from(svid.key).into();
    let credential = Credential::new_at(chain, key, bundle, now).map_err(|why| unusable(&why))?;
    if *credential.id() != id {
        return Err(unusable(&format_args!("the certificate is for {}", credential.id().as_str())));
    }
    Ok(credential)
}

/// The bundle of a foreign trust domain; of one that cannot be read, nobody is trusted.
fn foreign(id: &str, roots: &[u8]) -> Option<TrustBundle> {
    let domain = id.strip_prefix("spiffe://").unwrap_or(id).trim_end_matches('/').parse().ok();
    let bundle =
        domain.zip(certificates(roots)).and_then(|(domain, roots)| TrustBundle::new(domain, roots).ok());
    if bundle.is_none() {
        tracing::warn!("the agent's bundle for the trust domain `{}` cannot be used", id.escape_debug());
    }
    bundle
}

/// The certificates that follow one another in `der`, to its end.
fn certificates(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let (mut rest, mut found) = (der, Vec::new());
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).ok()?;
        let certificate = rest.get(..rest.len().checked_sub(after.len())?)?;
        found.push(certificate.to_vec().into());
        rest = after;
    }
    Some(found)
}

//! The roots that vouch for the identities of a trust domain.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use towpath_gateway_core::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::{CredentialError, pem};

/// A trust domain and the root certificates that may sign for it. Clones share the roots.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    domain: TrustDomain,
    aliases: Arc<[TrustDomain]>,
    roots: Arc<[CertificateDer<'static>]>,
    anchors: Arc<RootCertStore>,
}

impl TrustBundle {
    /// A bundle of these roots. There must be at least one, and each must be a CA certificate.
    pub fn new(domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, CredentialError> {
        if roots.is_empty() {
            return Err(CredentialError::NoRoots);
        }
        let mut anchors = RootCertStore::empty();
        for (index, root) in roots.iter().enumerate() {
            if !is_authority(root) || anchors.add(root.clone()).is_err() {
                return Err(CredentialError::Root { number: index + 1 });
            }
        }
        Ok(Self { domain, aliases: Arc::default(), roots: roots.into(), anchors: Arc::new(anchors) })
    }

    /// A bundle of the certificates in a PEM text.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, CredentialError> {
        let roots = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
        Self::new(domain, roots.map_err(CredentialError::Pem)?)
    }

    /// The same bundle, with further names of the same trust domain (Istio: `trustDomainAliases`). The roots are
    /// trusted to sign ids of these domains too.
    #[must_use]
    pub fn with_aliases(mut self, aliases: impl IntoIterator<Item = TrustDomain>) -> Self {
        self.aliases = aliases.into_iter().collect();
        self
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Further names of the trust domain.
    pub fn aliases(&self) -> &[TrustDomain] {
        &self.aliases
    }

    /// Its root certificates, in the order given.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as a PEM text.
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(pem::certificate).collect()
    }

    /// Whether the roots may vouch for `id`: it belongs to the trust domain or to one of its aliases.
    pub fn covers(&self, id: &SpiffeId) -> bool {
        let domain = id.trust_domain();
        self.domain.as_str() == domain || self.aliases.iter().any(|alias| alias.as_str() == domain)
    }

    pub(crate) fn anchors(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.anchors)
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        (&self.domain, &self.aliases, &self.roots) == (&other.domain, &other.aliases, &other.roots)
    }
}

impl Eq for TrustBundle {}

fn is_authority(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(rest, root)| rest.is_empty() && root.is_ca())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, DOMAIN, WEB, svid};

    #[test]
    fn a_bundle_survives_the_way_through_pem() {
        let (one, two) = (Authority::new(), Authority::new());
        let domain: TrustDomain = DOMAIN.parse().unwrap();
        let bundle = TrustBundle::new(domain.clone(), vec![one.root.clone(), two.root.clone()]).unwrap();
        assert_eq!(TrustBundle::from_pem(domain, bundle.to_pem().as_bytes()).unwrap(), bundle);
        assert_eq!(bundle.roots(), [one.root, two.root]);
        assert!(bundle.to_pem().lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn what_is_no_root_is_refused_by_its_place() {
        let authority = Authority::new();
        let leaf = authority.sign(&svid(WEB)).0.remove(0);
        let longer = CertificateDer::from([&authority.root[..], &[0]].concat());
        for bad in [leaf, longer, CertificateDer::from(vec![1, 2, 3])] {
            let error =
                TrustBundle::new(DOMAIN.parse().unwrap(), vec![authority.root.clone(), bad]).unwrap_err();
            assert!(matches!(error, CredentialError::Root { number: 2 }), "{error}");
        }
    }

    #[test]
    fn an_empty_bundle_is_refused() {
        for text in ["", "no pem"] {
            let error = TrustBundle::from_pem(DOMAIN.parse().unwrap(), text.as_bytes()).unwrap_err();
            assert!(matches!(error, CredentialError::NoRoots), "{error}");
        }
    }

    #[test]
    fn it_covers_its_domain_and_aliases_alone() {
        let bundle = Authority::new().bundle().with_aliases(["old.example".parse().unwrap()]);
        for (id, covered) in [
            (WEB, true),
            ("spiffe://old.example/a", true),
            ("spiffe://cluster.local.example/a", false),
            ("spiffe://cluster.loca/a", false),
            ("spiffe://example/a", false),
        ] {
            assert_eq!(bundle.covers(&id.parse().unwrap()), covered, "{id}");
        }
    }
}

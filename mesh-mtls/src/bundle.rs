//! The roots that vouch for the identities of a trust domain.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use towpath_gateway_core::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::{CredentialError, pem};

/// A trust domain and the root certificates that may sign for it, and the same of domains that it is federated with. Clones
/// share the roots.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    domain: TrustDomain,
    aliases: Arc<[TrustDomain]>,
    roots: Arc<[CertificateDer<'static>]>,
    anchors: Arc<RootCertStore>,
    federated: Arc<[TrustBundle]>,
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
        let (aliases, federated) = (Arc::default(), Arc::default());
        Ok(Self { domain, aliases, roots: roots.into(), anchors: Arc::new(anchors), federated })
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

    /// The same bundle, with those of foreign trust domains (SPIFFE federation). The roots of each are trusted to sign ids of
    /// its domain and of no other; a bundle of this trust domain or of an alias among them is left out.
    #[must_use]
    pub fn with_federated(mut self, bundles: impl IntoIterator<Item = Self>) -> Self {
        let own = |bundle: &Self| bundle.domain == self.domain || self.aliases.contains(&bundle.domain);
        self.federated = bundles.into_iter().filter(|bundle| !own(bundle)).collect();
        self
    }

    /// The bundles of foreign trust domains.
    pub fn federated(&self) -> &[Self] {
        &self.federated
    }

    /// The bundle whose roots may vouch for `id`: this one, or that of a foreign domain.
    pub fn of(&self, id: &SpiffeId) -> Option<&Self> {
        if self.covers(id) {
            return Some(self);
        }
        self.federated.iter().find(|bundle| bundle.domain.as_str() == id.trust_domain())
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

    /// Whether the roots of this trust domain may vouch for `id`: it belongs to the trust domain or to one of its aliases.
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
        (&self.domain, &self.aliases, &self.roots, &self.federated)
            == (&other.domain, &other.aliases, &other.roots, &other.federated)
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
    fn a_foreign_domain_has_its_own_roots() {
        let (own, partner, other) = (Authority::new(), Authority::new(), Authority::new());
        let foreign = partner.bundle_of("partner.example");
        let bundle = own.bundle().with_aliases(["old.example".parse().unwrap()]).with_federated([
            foreign.clone(),
            other.bundle(),
            other.bundle_of("old.example"),
        ]);
        assert_eq!(bundle.federated(), [foreign]);
        for (id, roots) in [
            (WEB, Some(&own.root)),
            ("spiffe://old.example/a", Some(&own.root)),
            ("spiffe://partner.example/a", Some(&partner.root)),
            ("spiffe://partner.example.com/a", None),
        ] {
            let found = bundle.of(&id.parse().unwrap()).map(|bundle| &bundle.roots()[0]);
            assert_eq!(found, roots, "{id}");
        }
        assert!(!bundle.covers(&"spiffe://partner.example/a".parse().unwrap()));
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

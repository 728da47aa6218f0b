//! The roots that vouch for the identities of a trust domain.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use towpath_gateway_core::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::{CredentialError, moment, pem};

/// A trust domain and the root certificates that may sign for it, and the same of domains that it is federated with. Clones
/// share the roots.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    domain: TrustDomain,
    aliases: Arc<[TrustDomain]>,
    roots: Arc<[CertificateDer<'static>]>,
    /// First and last valid moment of each root.
    lives: Arc<[(SystemTime, SystemTime)]>,
    anchors: Arc<RootCertStore>,
    federated: Arc<[TrustBundle]>,
}

impl TrustBundle {
    /// A bundle of these roots. There must be at least one, and each must be a CA certificate that may sign others. A root
    /// that is not valid at a time vouches for nobody then.
    pub fn new(domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, CredentialError> {
        if roots.is_empty() {
            return Err(CredentialError::NoRoots);
        }
        let mut anchors = RootCertStore::empty();
        let mut lives = Vec::with_capacity(roots.len());
        for (index, root) in roots.iter().enumerate() {
            let number = index + 1;
            lives.push(life_of_authority(root).ok_or(CredentialError::Root { number })?);
            anchors.add(root.clone()).map_err(|_| CredentialError::Root { number })?;
        }
        let (aliases, federated) = (Arc::default(), Arc::default());
        let (roots, lives, anchors) = (roots.into(), lives.into(), Arc::new(anchors));
        Ok(Self { domain, aliases, roots, lives, anchors, federated })
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

    /// The roots that are valid at `now`. What is trusted has an end here, though RFC 5280 (section 6.1) leaves it open: Envoy
    /// refuses peers by a root out of its time, too.
    pub(crate) fn anchors_at(&self, now: SystemTime) -> Arc<RootCertStore> {
        if self.all_valid_at(now) {
            return self.anchors();
        }
        let roots = self.anchors.roots.iter().zip(&*self.lives);
        let valid = roots.filter(|(_, life)| is_within(**life, now)).map(|(root, _)| root.clone());
        Arc::new(RootCertStore { roots: valid.collect() })
    }

    pub(crate) fn all_valid_at(&self, now: SystemTime) -> bool {
        self.lives.iter().all(|life| is_within(*life, now))
    }

    /// The roots of this domain and of those it is federated with that are not valid at `now`: which of how many, of which
    /// domain, and when they are.
    pub fn out_of_time(&self, now: SystemTime) -> Vec<String> {
        let told = |bundle: &Self| {
            let roots = bundle.lives.iter().enumerate().filter(|(_, life)| !is_within(**life, now));
            let tell = |(index, (from, to)): (usize, &(SystemTime, SystemTime))| {
                let (from, to) = (moment::utc(*from), moment::utc(*to));
                format!("root {} of {} is valid from {from} to {to} only", index + 1, bundle.domain)
            };
            roots.map(tell).collect::<Vec<_>>()
        };
        std::iter::once(self).chain(&*self.federated).flat_map(told).collect()
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        (&self.domain, &self.aliases, &self.roots, &self.federated)
            == (&other.domain, &other.aliases, &other.roots, &other.federated)
    }
}

impl Eq for TrustBundle {}

fn is_within((from, to): (SystemTime, SystemTime), now: SystemTime) -> bool {
    from <= now && !moment::is_past(to, now)
}

/// When a CA certificate is valid; `None` for what is none.
fn life_of_authority(der: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (rest, root) = X509Certificate::from_der(der).ok()?;
    let validity = root.validity();
    let life = (moment::of(validity.not_before)?, moment::of(validity.not_after)?);
    (rest.is_empty() && root.is_ca() && may_sign(&root)).then_some(life)
}

/// Whether its key usage lets a certificate sign others: `keyCertSign`, or no word on usage (RFC 5280 sections 4.2.1.3 and
/// 6.1.4 (n)).
pub(crate) fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

#[cfg(test)]
mod tests {
    use rcgen::KeyUsagePurpose;

    use super::*;
    use crate::authority::{Authority, DAY, DOMAIN, WEB, lives, root, svid, with_usages};

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
        let no_signer =
            Authority::rooted_in(with_usages(root(), vec![KeyUsagePurpose::DigitalSignature])).root;
        for bad in [leaf, longer, no_signer, CertificateDer::from(vec![1, 2, 3])] {
            let error =
                TrustBundle::new(DOMAIN.parse().unwrap(), vec![authority.root.clone(), bad]).unwrap_err();
            assert!(matches!(error, CredentialError::Root { number: 2 }), "{error}");
        }
    }

    #[test]
    fn a_root_counts_in_its_life_only() {
        let now = SystemTime::now();
        let old = Authority::rooted_in(lives(root(), now - 3 * DAY, now - DAY));
        let both = vec![old.root.clone(), Authority::new().root];
        let bundle = TrustBundle::new(DOMAIN.parse().unwrap(), both).unwrap();
        assert_eq!((bundle.anchors_at(now).len(), bundle.anchors_at(now - 2 * DAY).len()), (1, 2));
        assert!(old.bundle().anchors_at(now).is_empty());
        let told = bundle.out_of_time(now);
        assert!(told.len() == 1 && told[0].starts_with("root 1 of cluster.local is valid from "), "{told:?}");
        assert!(bundle.out_of_time(now - 2 * DAY).is_empty());
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

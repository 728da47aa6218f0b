//! For tests: an authority that issues whatever it is asked to, and TLS settings that no check has seen.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ClientConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::{self, Settings};
use crate::verifier::{VerifyClient, VerifyServer};
use crate::{Credential, TrustBundle};

pub(crate) const DOMAIN: &str = "cluster.local";
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub(crate) const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
pub(crate) const DAY: Duration = Duration::from_hours(24);

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
}

pub(crate) type Issued = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    pub(crate) fn new() -> Self {
        Self::rooted_in(root())
    }

    pub(crate) fn rooted_in(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// An authority that this one vouches for, and its certificate.
    pub(crate) fn subordinate(&self) -> Self {
        self.subordinate_of(subordinate())
    }

    pub(crate) fn subordinate_of(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let root = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// The certificate by which this authority vouches for another one's subordinate, too.
    pub(crate) fn cross_sign(&self, subordinate: &Self) -> CertificateDer<'static> {
        let params = self::subordinate();
        params.signed_by(subordinate.issuer.key(), &self.issuer).unwrap().der().clone()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        self.bundle_of(DOMAIN)
    }

    pub(crate) fn bundle_of(&self, domain: &str) -> TrustBundle {
        TrustBundle::new(domain.parse().unwrap(), vec![self.root.clone()]).unwrap()
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    pub(crate) fn credential(&self, id: &str) -> Credential {
        let (chain, key) = self.sign(&svid(id));
        Credential::new(chain, key, self.bundle()).unwrap()
    }

    /// Settings with any certificate whatever.
    pub(crate) fn settings(&self, (chain, key): Issued) -> Settings {
        let key = CertifiedKey::new(chain, tls::provider().key_provider.load_private_key(key).unwrap());
        let client = VerifyClient::new(self.bundle()).unwrap();
        Settings::new(Arc::new(key), Arc::new(client), Arc::new(VerifyServer::new(self.bundle()))).unwrap()
    }

    /// A client that has no certificate.
    pub(crate) fn anonymous(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(VerifyServer::new(self.bundle())))
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// What a root says of itself.
pub(crate) fn root() -> CertificateParams {
    with_usages(as_authority(CertificateParams::default()), vec![KeyUsagePurpose::KeyCertSign])
}

pub(crate) fn subordinate() -> CertificateParams {
    let mut params = as_authority(CertificateParams::default());
    params.distinguished_name.push(rcgen::DnType::CommonName, "subordinate");
    params
}

/// What an X509-SVID asks for, valid from yesterday until tomorrow.
pub(crate) fn svid(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    lives(params, SystemTime::now() - DAY, SystemTime::now() + DAY)
}

pub(crate) fn lives(mut params: CertificateParams, from: SystemTime, to: SystemTime) -> CertificateParams {
    (params.not_before, params.not_after) = (from.into(), to.into());
    params
}

pub(crate) fn with_names(mut params: CertificateParams, names: Vec<SanType>) -> CertificateParams {
    params.subject_alt_names = names;
    params
}

pub(crate) fn with_usages(mut params: CertificateParams, usages: Vec<KeyUsagePurpose>) -> CertificateParams {
    params.key_usages = usages;
    params
}

pub(crate) fn with_purposes(
    mut params: CertificateParams,
    purposes: Vec<ExtendedKeyUsagePurpose>,
) -> CertificateParams {
    params.extended_key_usages = purposes;
    params
}

pub(crate) fn as_authority(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// Every kind of certificate that must not pass for a workload's, with a word on why. All are signed by `authority`, but
/// for the one that another signs, and each is as good as can be for `id` otherwise.
pub(crate) fn forgeries(authority: &Authority, id: &str) -> Vec<(&'static str, Issued)> {
    use ExtendedKeyUsagePurpose::CodeSigning;
    let now = SystemTime::now();
    let other_domain = id.replace(DOMAIN, "other.example");
    // Whoever signs has to be allowed to (X509-SVID section 4.3).
    let behind = |params: CertificateParams| {
        let signer = authority.subordinate_of(params);
        let (mut chain, key) = signer.sign(&svid(id));
        chain.push(signer.root);
        (chain, key)
    };
    vec![
        ("no workload of the domain", authority.sign(&svid(&format!("spiffe://{DOMAIN}")))),
        (
            "signer for signatures",
            behind(with_usages(subordinate(), vec![KeyUsagePurpose::DigitalSignature])),
        ),
        ("signer for revocations", behind(with_usages(subordinate(), vec![KeyUsagePurpose::CrlSign]))),
        ("signer with an id", behind(as_authority(svid(REVIEWS)))),
        ("signer that is none", behind(svid(REVIEWS))),
        ("expired signer", behind(lives(subordinate(), now - 2 * DAY, now - DAY))),
        ("other trust domain", authority.sign(&svid(&other_domain))),
        ("unknown issuer", Authority::new().sign(&svid(id))),
        ("expired", authority.sign(&lives(svid(id), now - 2 * DAY, now - DAY))),
        ("not yet valid", authority.sign(&lives(svid(id), now + DAY, now + 2 * DAY))),
        ("DNS name only", authority.sign(&with_names(svid(id), vec![dns("web.shop.svc")]))),
        ("two URI names", authority.sign(&with_names(svid(id), vec![uri(id), uri(REVIEWS)]))),
        ("the same URI twice", authority.sign(&with_names(svid(id), vec![uri(id), uri(id)]))),
        (
            "not a SPIFFE id",
            authority.sign(&with_names(svid(id), vec![uri("https://cluster.local/ns/shop/sa/web")])),
        ),
        ("no name", authority.sign(&with_names(svid(id), vec![]))),
        ("CA certificate", authority.sign(&as_authority(svid(id)))),
        ("no extended key usage", authority.sign(&with_purposes(svid(id), vec![]))),
        ("other extended key usage", authority.sign(&with_purposes(svid(id), vec![CodeSigning]))),
    ]
}

//! The root key of a trust domain, and what it signs.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use towpath_gateway_core::{SpiffeId, TrustDomain};
use towpath_mesh_mtls::{CredentialError, TrustBundle};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{CsrError, Fingerprint, csr, pem};

/// How long a root made on first start lives: ten years, as that of istiod.
pub(crate) const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// How far certificates reach back, so that a peer whose clock is a little behind takes them.
const BACKDATE: Duration = Duration::from_mins(1);

/// The embedded certificate authority: one root, ECDSA P-256, that signs workload certificates directly.
pub struct Authority {
    domain: TrustDomain,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
    max_ttl: Duration,
}

/// Why no certificate was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The request itself is at fault.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The id belongs to another trust domain.
    #[error("{id} is not in the trust domain {domain} of this authority")]
    OtherDomain {
        /// The id asked for.
        id: SpiffeId,
        /// What the authority signs for.
        domain: TrustDomain,
    },
    /// A certificate that is never valid was asked for.
    #[error("a certificate must live for at least a second")]
    Lifetime,
    /// The root itself is not valid any more.
    #[error("the root certificate of this authority has expired; begin with a new state directory")]
    RootExpired,
    /// The signature could not be made.
    #[error("cannot sign: {0}")]
    Crypto(String),
}

impl Authority {
    /// The longest life of a workload certificate unless [`Authority::with_max_ttl`] says otherwise: 24 hours.
    pub const DEFAULT_TTL: Duration = Duration::from_hours(24);

    /// A new authority, in memory, whose root lives for `lifetime`, at most ten years.
    pub fn create(domain: TrustDomain, lifetime: Duration) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root = root_params(&domain, lifetime)?.self_signed(&key)?;
        Self::from_parts(domain, root.into(), key)
    }

    pub(crate) fn from_parts(
        domain: TrustDomain,
        root: CertificateDer<'_>,
        key: KeyPair,
    ) -> Result<Self, rcgen::Error> {
        let (_, parsed) =
            X509Certificate::from_der(&root).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(not_after);
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { domain, root: root.into_owned(), issuer, not_after, max_ttl: Self::DEFAULT_TTL })
    }

    /// The same authority with another longest life of workload certificates; at most that of a root, ten years.
    #[must_use]
    pub fn with_max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl.min(ROOT_LIFETIME);
        self
    }

    /// The trust domain that it signs for.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The longest life of a workload certificate.
    pub fn max_ttl(&self) -> Duration {
        self.max_ttl
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// By what a client recognises the root.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.root)
    }

    /// The root as peers need it to verify what this authority signs.
    pub fn bundle(&self) -> Result<TrustBundle, CredentialError> {
        TrustBundle::new(self.domain.clone(), vec![self.root.clone()])
    }

    /// Signs a workload certificate for `id` that is valid from a minute ago until `ttl` from now.
    ///
    /// From `csr` (PEM or DER) the public key alone is taken, after its own signature was verified. All else is set
    /// here: an empty subject, the id as the only name (critical), a random serial number, digital signature, server
    /// and client authentication, not an authority (SPIFFE X509-SVID sections 2 to 4). `ttl` is cut to
    /// [`Authority::max_ttl`] and to the life of the root. The chain has no root: peers have it in their bundle.
    pub fn issue(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        ttl: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        self.issue_at(csr, id, ttl, SystemTime::now())
    }

    /// [`Authority::issue`] at a given moment.
    pub fn issue_at(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if id.trust_domain() != self.domain.as_str() {
            return Err(IssueError::OtherDomain { id: id.clone(), domain: self.domain.clone() });
        }
        let left = self.not_after.duration_since(now).map_err(|_| IssueError::RootExpired)?;
        let ttl = ttl.min(self.max_ttl).min(left);
        if ttl < Duration::from_secs(1) {
            return Err(IssueError::Lifetime);
        }
        let key: SubjectPublicKeyInfo = csr::public_key(csr)?;
        let leaf = leaf_params(id, now, ttl)?.signed_by(&key, &self.issuer)?;
        Ok(vec![leaf.into()])
    }

    pub(crate) fn root_pem(&self) -> String {
        pem::certificates([&self.root])
    }

    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("domain", &self.domain)
            .field("root", &self.fingerprint())
            .field("max_ttl", &self.max_ttl)
            .finish_non_exhaustive()
    }
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

fn root_params(domain: &TrustDomain, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime.min(ROOT_LIFETIME)).into();
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    params.distinguished_name.push(DnType::CommonName, "Towpath mesh root");
    // The trust domain's own id marks what the root signs for (SPIFFE X509-SVID section 2).
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(id: &SpiffeId, now: SystemTime, ttl: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ttl).into();
    params.serial_number = Some(serial()?);
    // With an empty subject the name extension becomes critical (RFC 5280 section 4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id.as_str())?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(Ia5String::try_from(text)?))
}

/// Sixteen random bytes, made positive (RFC 5280 section 4.1.2.2).
fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0_u8; 17];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = 1;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;
    use towpath_mesh_mtls::Svid;
    use x509_parser::prelude::GeneralName;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn authority() -> Authority {
        Authority::create("cluster.local".parse().unwrap(), ROOT_LIFETIME).unwrap()
    }

    fn reviews() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap()
    }

    /// A whole second within the life of any root made here.
    fn later() -> SystemTime {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + 1_000_000)
    }

    fn plain_csr(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    /// Asks for all that an applicant might like to have.
    fn greedy_csr(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
        params.subject_alt_names.push(uri("spiffe://cluster.local/ns/kube-system/sa/admin").unwrap());
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.serialize_request(key).unwrap().pem().unwrap().into_bytes()
    }

    fn assert_only_what_we_set(der: &CertificateDer<'_>, key: &KeyPair) {
        let (_, leaf) = X509Certificate::from_der(der).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert!(
            matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == reviews().as_str())
        );
        assert_eq!(leaf.subject().iter_rdn().count(), 0);
        assert!(!leaf.is_ca());
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.flags == 1, "digitalSignature alone");
        let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth && !purposes.code_signing && !purposes.any);
        assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
        assert_eq!(leaf.extensions().len(), 6, "names, usage, purposes, constraints and two key ids");
    }

    #[test]
    fn nothing_but_the_key_is_taken_from_the_request() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        for csr in [plain_csr(&key), greedy_csr(&key)] {
            let chain = authority.issue(&csr, &reviews(), HOUR).unwrap();
            assert_eq!(chain.len(), 1);
            assert_only_what_we_set(&chain[0], &key);
        }
    }

    #[test]
    fn the_leaf_is_valid_from_a_minute_ago_until_the_ttl_and_signed_by_the_root() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let now = later();
        let chain = authority.issue_at(&plain_csr(&key), &reviews(), HOUR, now).unwrap();
        let svid = Svid::read(&chain[0]).unwrap();
        assert_eq!((svid.id, svid.not_before, svid.not_after), (reviews(), now - BACKDATE, now + HOUR));
        let (_, root) = X509Certificate::from_der(authority.root()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(leaf.issuer(), root.subject());
    }

    #[test]
    fn serial_numbers_differ_and_are_positive() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let csr = plain_csr(&key);
        let serial = || {
            let chain = authority.issue(&csr, &reviews(), HOUR).unwrap();
            let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
            leaf.raw_serial().to_vec()
        };
        let (first, second) = (serial(), serial());
        assert_ne!(first, second);
        assert!(first.len() <= 20 && first[0] & 0x80 == 0);
    }

    #[test]
    fn a_life_is_cut_to_the_longest_allowed() {
        let authority = authority().with_max_ttl(HOUR);
        let (key, now) = (KeyPair::generate().unwrap(), later());
        let chain = authority.issue_at(&plain_csr(&key), &reviews(), HOUR * 48, now).unwrap();
        assert_eq!(Svid::read(&chain[0]).unwrap().not_after, now + HOUR);
        let never = authority.issue(&plain_csr(&key), &reviews(), Duration::ZERO);
        assert_eq!(never.unwrap_err(), IssueError::Lifetime);
    }

    #[test]
    fn no_leaf_outlives_its_root() {
        let authority = Authority::create("cluster.local".parse().unwrap(), HOUR).unwrap();
        let csr = plain_csr(&KeyPair::generate().unwrap());
        let chain = authority.issue(&csr, &reviews(), HOUR * 5).unwrap();
        let (_, root) = X509Certificate::from_der(authority.root()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        assert_eq!(leaf.validity().not_after, root.validity().not_after);
        let late = authority.issue_at(&csr, &reviews(), HOUR, SystemTime::now() + HOUR * 2);
        assert_eq!(late.unwrap_err(), IssueError::RootExpired);
    }

    #[test]
    fn ids_of_other_trust_domains_are_refused() {
        let key = KeyPair::generate().unwrap();
        let foreign = "spiffe://cluster.local.evil/ns/a/sa/b".parse().unwrap();
        let error = authority().issue(&plain_csr(&key), &foreign, HOUR).unwrap_err();
        assert!(matches!(error, IssueError::OtherDomain { .. }), "{error}");
    }

    #[test]
    fn the_root_says_its_domain_and_signs_leaves_alone() {
        let authority = authority();
        let (_, root) = X509Certificate::from_der(authority.root()).unwrap();
        let names = root.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names, [GeneralName::URI("spiffe://cluster.local")]);
        let constraints = root.basic_constraints().unwrap().unwrap().value;
        assert!(constraints.ca && constraints.path_len_constraint == Some(0));
        assert_eq!(authority.bundle().unwrap().roots(), [authority.root().clone()]);
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let text = format!("{:?}", authority());
        assert!(!text.contains("PRIVATE") && text.contains("cluster.local"), "{text}");
    }
}

//! How a workload asks for one certificate.

use std::error::Error;
use std::future::Future;
use std::time::SystemTime;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use towpath_gateway_core::{InvalidSpiffeId, SpiffeId, TrustDomain};
use towpath_mesh_mtls::{Credential, CredentialError, TrustBundle};

use crate::pem as write;

/// What a workload sends: `POST /v1/certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRequest {
    /// The certificate signing request, PEM.
    pub csr: String,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningAnswer {
    /// The workload's certificate and any intermediates, PEM.
    pub chain: String,
    /// The roots of the trust domain, PEM.
    pub bundle: String,
    /// The trust domain.
    pub trust_domain: String,
}

impl SigningAnswer {
    /// The answer that carries `chain`, to be verified by `bundle`.
    pub fn new(chain: &[CertificateDer<'_>], bundle: &TrustBundle) -> Self {
        Self {
            chain: write::certificates(chain),
            bundle: bundle.to_pem(),
            trust_domain: bundle.domain().to_string(),
        }
    }
}

/// Why a signer gave no answer. The text says who was asked and what to do.
pub type SignerError = Box<dyn Error + Send + Sync>;

/// Carries a request to whoever signs. It authenticates both sides: the signer as the one whose root this workload
/// may trust, and the workload as the bearer of the id that it gets.
pub trait Signer: Send + Sync {
    /// Has `request` answered.
    fn sign(
        &self,
        request: SigningRequest,
    ) -> impl Future<Output = Result<SigningAnswer, SignerError>> + Send;
}

impl<S: Signer> Signer for std::sync::Arc<S> {
    fn sign(
        &self,
        request: SigningRequest,
    ) -> impl Future<Output = Result<SigningAnswer, SignerError>> + Send {
        S::sign(self, request)
    }
}

/// Why a workload got no credential.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The key pair or the request could not be made.
    #[error("cannot make a key pair: {0}")]
    Key(#[from] rcgen::Error),
    /// The signer gave no answer, or refused.
    #[error(transparent)]
    Signer(SignerError),
    /// The answer is not PEM.
    #[error("the signer's answer holds no readable certificate: {0}")]
    Pem(#[from] pem::Error),
    /// The answer names no valid trust domain.
    #[error("the signer's answer names no valid trust domain: {0}")]
    TrustDomain(#[from] InvalidSpiffeId),
    /// Chain, key and bundle do not make a credential.
    #[error("the signer's answer cannot be used: {0}")]
    Credential(#[from] CredentialError),
    /// The certificate is for somebody else.
    #[error(
        "the signer issued a certificate for {found}, not for {wanted}; look at the token that the signer was shown"
    )]
    OtherIdentity {
        /// The id in the certificate.
        found: SpiffeId,
        /// The id that this workload is to have.
        wanted: SpiffeId,
    },
}

/// Makes a fresh key pair (ECDSA P-256), has it signed, and checks the answer as peers will check it at `now`.
/// With `wanted`, the request names that id, and a certificate for another is refused. The private key never leaves the
/// process.
pub async fn request<S: Signer>(
    signer: &S,
    wanted: Option<&SpiffeId>,
    now: fn() -> SystemTime,
) -> Result<Credential, RequestError> {
    let (key, csr) = key_and_request(wanted)?;
    let answer = signer.sign(SigningRequest { csr }).await.map_err(RequestError::Signer)?;
    let credential = credential(&answer, key, now())?;
    match wanted {
        Some(wanted) if wanted != credential.id() => {
            Err(RequestError::OtherIdentity { found: credential.id().clone(), wanted: wanted.clone() })
        }
        _ => Ok(credential),
    }
}

/// A fresh private key (ECDSA P-256), and a certificate signing request for it in PEM form. A `wanted` id is its one
/// name: our own [`Authority`](crate::Authority) takes the key alone, but some authorities behind Istio's want it there.
pub fn key_and_request(wanted: Option<&SpiffeId>) -> Result<(PrivateKeyDer<'static>, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(wanted) = wanted {
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(wanted.as_str())?)];
    }
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key.into(), csr))
}

fn credential(
    answer: &SigningAnswer,
    key: PrivateKeyDer<'static>,
    now: SystemTime,
) -> Result<Credential, RequestError> {
    let domain: TrustDomain = answer.trust_domain.parse()?;
    let bundle = TrustBundle::from_pem(domain, answer.bundle.as_bytes())?;
    let chain = CertificateDer::pem_slice_iter(answer.chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    Ok(Credential::new_at(chain, key, bundle, now)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use rustls_pki_types::CertificateSigningRequestDer;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer as _;

    use super::*;
    use crate::Authority;

    /// Signs in memory, and says what it is told to say.
    pub(crate) struct Local {
        pub(crate) authority: Authority,
        pub(crate) id: SpiffeId,
        pub(crate) ttl: Duration,
        pub(crate) now: fn() -> SystemTime,
    }

    impl Local {
        pub(crate) fn new(ttl: Duration, now: fn() -> SystemTime) -> Self {
            let authority =
                Authority::create("cluster.local".parse().unwrap(), crate::authority::ROOT_LIFETIME).unwrap();
            Self { authority, id: id(), ttl, now }
        }
    }

    impl Signer for Local {
        async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
            let chain = self.authority.issue_at(request.csr.as_bytes(), &self.id, self.ttl, (self.now)())?;
            Ok(SigningAnswer::new(&chain, &self.authority.bundle()?))
        }
    }

    pub(crate) fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap()
    }

    #[tokio::test]
    async fn a_signed_answer_becomes_a_credential() {
        let signer = Local::new(Duration::from_mins(1), SystemTime::now);
        let credential = request(&signer, Some(&id()), SystemTime::now).await.unwrap();
        assert_eq!(credential.id(), &id());
        assert_eq!(credential.bundle(), &signer.authority.bundle().unwrap());
    }

    #[tokio::test]
    async fn a_certificate_for_somebody_else_is_refused() {
        let signer = Local::new(Duration::from_mins(1), SystemTime::now);
        let other = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
        let error = request(&signer, Some(&other), SystemTime::now).await.unwrap_err();
        assert!(matches!(error, RequestError::OtherIdentity { .. }), "{error}");
    }

    #[test]
    fn the_wanted_id_is_the_one_name_in_the_request() {
        for wanted in [None, Some(id())] {
            let (_, csr) = key_and_request(wanted.as_ref()).unwrap();
            let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
            let extensions = request.requested_extensions().into_iter().flatten();
            let names: Vec<_> = extensions
                .filter_map(|extension| match extension {
                    ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            let expected: Vec<_> = wanted.iter().map(|id| GeneralName::URI(id.as_str())).collect();
            assert_eq!(names, expected);
        }
    }

    struct Replays(SigningAnswer);

    impl Signer for Replays {
        async fn sign(&self, _: SigningRequest) -> Result<SigningAnswer, SignerError> {
            Ok(self.0.clone())
        }
    }

    #[tokio::test]
    async fn an_answer_for_another_key_is_refused() {
        let signer = Local::new(Duration::from_mins(1), SystemTime::now);
        let (_, csr) = key_and_request(None).unwrap();
        let answer = signer.sign(SigningRequest { csr }).await.unwrap();
        let error = request(&Replays(answer), None, SystemTime::now).await.unwrap_err();
        assert!(matches!(error, RequestError::Credential(CredentialError::KeyMismatch)), "{error}");
    }

    struct OtherRoot(Local, Local);

    impl Signer for OtherRoot {
        async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
            let answer = self.0.sign(request).await?;
            Ok(SigningAnswer { bundle: self.1.authority.bundle()?.to_pem(), ..answer })
        }
    }

    #[tokio::test]
    async fn a_bundle_that_does_not_vouch_for_the_chain_is_refused() {
        let local = || Local::new(Duration::from_mins(1), SystemTime::now);
        let error = request(&OtherRoot(local(), local()), None, SystemTime::now).await.unwrap_err();
        assert!(matches!(error, RequestError::Credential(CredentialError::Chain(_))), "{error}");
    }
}

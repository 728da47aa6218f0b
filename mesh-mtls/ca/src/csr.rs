//! What is taken from a certificate signing request (RFC 2986): the public key, and the proof that the applicant
//! holds its private half. Names, extensions and attributes that it asks for are not read.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;

/// The longest request that is looked at, in bytes: an RSA 4096 request is under 2 KiB.
const MAX_CSR: usize = 16 * 1024;

/// Why a certificate signing request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It passes 16 KiB.
    #[error("the certificate signing request has {0} bytes, at most {MAX_CSR} are allowed")]
    TooLong(usize),
    /// It is neither PEM nor DER of a request.
    #[error("this is not a certificate signing request (PKCS #10, PEM or DER)")]
    Malformed,
    /// Its signature was not made with the private half of its public key.
    #[error("the signature of the certificate signing request does not fit its public key")]
    Signature,
    /// Key or signature of a kind that the mesh does not use.
    #[error("the key must be ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more, signed with SHA-2")]
    Algorithm,
}

/// The public key of `csr` (PEM or DER), its own signature verified.
pub(crate) fn public_key(csr: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    if csr.len() > MAX_CSR {
        return Err(CsrError::TooLong(csr.len()));
    }
    let der = der_of(csr)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    // SHA-1 is known to the verifier behind this call; it is no proof any more.
    let known = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ED25519,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
    ];
    if !known.contains(&request.signature_algorithm.algorithm) {
        return Err(CsrError::Algorithm);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    let key = &request.certification_request_info.subject_pki;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Algorithm)
}

fn der_of(csr: &[u8]) -> Result<CertificateSigningRequestDer<'_>, CsrError> {
    // DER begins with the tag of a SEQUENCE, which no PEM text begins with.
    if csr.first() == Some(&0x30) {
        return Ok(csr.into());
    }
    CertificateSigningRequestDer::from_pem_slice(csr).map_err(|_| CsrError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    use super::*;

    fn csr(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn the_key_of_every_usual_kind_is_taken() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let taken = public_key(&csr(&key)).unwrap();
            assert_eq!(taken.subject_public_key_info(), key.subject_public_key_info());
        }
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut der = csr(&own);
        // Someone else's public key under our signature: same length, so the encoding stays whole.
        let at = der.windows(65).position(|w| w == own.public_key_raw()).unwrap();
        der[at..at + 65].copy_from_slice(other.public_key_raw());
        assert_eq!(public_key(&der).unwrap_err(), CsrError::Signature);
    }

    #[test]
    fn other_texts_are_refused() {
        let key = KeyPair::generate().unwrap();
        let trailing = [csr(&key), b"x".to_vec()].concat();
        assert_eq!(public_key(b"").unwrap_err(), CsrError::Malformed);
        assert_eq!(public_key(&trailing).unwrap_err(), CsrError::Malformed);
        assert_eq!(public_key(key.serialize_pem().as_bytes()).unwrap_err(), CsrError::Malformed);
        assert_eq!(public_key(&vec![0x30; MAX_CSR + 1]).unwrap_err(), CsrError::TooLong(MAX_CSR + 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = public_key(&bytes);
        }

        #[test]
        fn no_changed_request_yields_another_key(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let key = KeyPair::generate().unwrap();
            let mut der = csr(&key);
            let at = at.index(der.len());
            der[at] ^= flip;
            // Some bits of the encoding carry nothing, such as the count of unused bits of the signature.
            if let Ok(taken) = public_key(&der) {
                prop_assert_eq!(taken.subject_public_key_info(), key.subject_public_key_info());
            }
        }
    }
}

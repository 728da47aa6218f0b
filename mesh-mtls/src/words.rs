//! What TLS says of a certificate, in words for a person.

use rustls::{CertificateError, Error};

/// Why a certificate was refused, or a handshake failed.
pub(crate) fn of(error: &Error) -> String {
    let Error::InvalidCertificate(why) = error else { return error.to_string() };
    match why {
        // What this crate itself says.
        CertificateError::Other(why) => why.to_string(),
        CertificateError::UnknownIssuer => "no trusted root vouches for the certificate".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "a certificate of the chain has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "a certificate of the chain is not valid yet; is the clock right?".into()
        }
        CertificateError::BadEncoding => "a certificate of the chain is not well-formed (RFC 5280)".into(),
        CertificateError::BadSignature => {
            "a signature in the chain does not hold, or its key is too weak (RSA: 2048 to 8192 bits)".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for this side of TLS (extended key usage)".into()
        }
        CertificateError::UnhandledCriticalExtension => {
            "a certificate of the chain has a critical extension that is not known here".into()
        }
        #[allow(deprecated, reason = "it is what older parts of rustls say still")]
        CertificateError::UnsupportedSignatureAlgorithm
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "a certificate of the chain is signed by an algorithm that is not taken (SHA-1 and MD5 are not)"
                .into()
        }
        _ => error.to_string(),
    }
}

/// The same of a handshake that failed at a socket.
pub(crate) fn of_handshake(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => of(error),
        None => error.to_string(),
    }
}

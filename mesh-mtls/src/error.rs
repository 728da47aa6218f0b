//! Why a credential or a trust bundle cannot be used.

use std::path::PathBuf;
use std::time::SystemTime;

use rustls_pki_types::pem;
use towpath_gateway_core::{SpiffeId, TrustDomain};

use crate::{InvalidSvid, moment, words};

/// Why a credential or a trust bundle was refused. Each text says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The chain holds no certificate.
    #[error("no certificate was found; give the workload certificate first, then its intermediates")]
    NoCertificate,
    /// The PEM text holds no private key.
    #[error("no private key was found; give one PEM section with a PKCS#8, SEC1 or PKCS#1 key")]
    NoKey,
    /// The bundle holds no root.
    #[error("the trust bundle holds no root certificate; give at least one CA certificate")]
    NoRoots,
    /// The text is not PEM.
    #[error("the PEM text cannot be read: {}; give the file as the issuer wrote it", pem_text(.0))]
    Pem(pem::Error),
    /// A root cannot be used.
    #[error(
        "root certificate number {number} is not a readable CA certificate that may sign others; remove it or replace it by the CA's own"
    )]
    Root {
        /// Its place in the bundle, from 1.
        number: usize,
    },
    /// The first certificate is not that of a workload.
    #[error(
        "the first certificate of the chain does not identify a workload: {0}; have it issued as an X509-SVID"
    )]
    Svid(#[from] InvalidSvid),
    /// The id lies outside of the trust domain.
    #[error(
        "the certificate is for {id}, outside of the trust domain {domain}; use a certificate or a bundle of the other domain"
    )]
    TrustDomain {
        /// The id in the certificate.
        id: SpiffeId,
        /// The domain of the bundle.
        domain: TrustDomain,
    },
    /// A workload takes both sides of TLS.
    #[error(
        "the certificate's extended key usage must have serverAuth and clientAuth; have it issued with both"
    )]
    Purpose,
    /// The private key cannot be used.
    #[error(
        "the private key cannot be used ({0}); give an ECDSA P-256 or P-384, Ed25519 or RSA key (2048 to 8192 bits)"
    )]
    Key(rustls::Error),
    /// The private key belongs to another certificate.
    #[error("the private key does not fit the certificate; give the key that the certificate was issued for")]
    KeyMismatch,
    /// The certificate is not valid any more.
    #[error("the certificate for {id} expired at {}; renew it, or correct the clock", moment::utc(*.not_after))]
    Expired {
        /// The id in the certificate.
        id: SpiffeId,
        /// Its last valid moment.
        not_after: SystemTime,
    },
    /// The certificate is not valid yet.
    #[error("the certificate for {id} is valid only from {}; correct the clock, or wait", moment::utc(*.not_before))]
    NotYetValid {
        /// The id in the certificate.
        id: SpiffeId,
        /// Its first valid moment.
        not_before: SystemTime,
    },
    /// No root of the bundle vouches for the chain.
    #[error(
        "peers would refuse the chain: {}; it begins with the workload's certificate and holds the intermediates, and its root is in the bundle",
        words::of(.0)
    )]
    Chain(rustls::Error),
    /// TLS refused the settings.
    #[error("TLS refused the credential: {0}")]
    Tls(String),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's content was refused.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<CredentialError>,
    },
}

fn pem_text(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("a section has no end, `{}`", String::from_utf8_lossy(end_marker).trim_end())
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("a section begins by `{}`", String::from_utf8_lossy(line).escape_debug())
        }
        other => other.to_string(),
    }
}

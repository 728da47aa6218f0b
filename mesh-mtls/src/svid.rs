//! Reads the identity in a workload certificate (X509-SVID, SPIFFE standard). Pure: bytes in, verdict out; whether a
//! trusted root vouches for the certificate is decided elsewhere.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use towpath_gateway_core::{InvalidSpiffeId, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// What a workload certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// The one SPIFFE id in it.
    pub id: SpiffeId,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// Whether its extended key usage allows the client side of TLS (RFC 5280 section 4.2.1.12).
    pub client_auth: bool,
    /// Whether its extended key usage allows the server side of TLS (RFC 5280 section 4.2.1.12).
    pub server_auth: bool,
}

/// Why a certificate is not an X509-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSvid {
    /// The bytes are not one DER certificate, or one of its extensions cannot be read or occurs twice.
    #[error("the certificate is not well-formed DER (RFC 5280)")]
    Malformed,
    /// The certificate may sign others (X509-SVID section 4.1: a leaf has `cA` false).
    #[error("it is a CA certificate; a workload certificate must not be able to sign others")]
    Authority,
    /// Its key usage allows `keyCertSign` or `cRLSign`, or lacks `digitalSignature` (X509-SVID section 4.3).
    #[error("its key usage must have digitalSignature, and neither keyCertSign nor cRLSign")]
    KeyUsage,
    /// It has no URI name.
    #[error("it has no URI subject alternative name; names of other kinds do not identify a workload")]
    NoUri,
    /// It has several URI names (X509-SVID section 2: exactly one).
    #[error("it has {0} URI subject alternative names; exactly one is allowed")]
    SeveralUris(usize),
    /// The URI name is not a SPIFFE id.
    #[error("its URI subject alternative name is not a SPIFFE id: {0}")]
    Id(#[from] InvalidSpiffeId),
}

impl Svid {
    /// Reads the DER bytes of a certificate.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, InvalidSvid> {
        let certificate = whole(der)?;
        refuse_authority(&certificate)?;
        let (client_auth, server_auth) = purposes(&certificate)?;
        Ok(Self {
            id: id(&certificate)?,
            not_before: moment(certificate.validity().not_before)?,
            not_after: moment(certificate.validity().not_after)?,
            client_auth,
            server_auth,
        })
    }

    /// Whether `now` lies within the certificate's life. The last second counts whole (RFC 5280 section 4.1.2.5).
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && !self.is_expired_at(now)
    }

    pub(crate) fn is_expired_at(&self, now: SystemTime) -> bool {
        now.duration_since(self.not_after).is_ok_and(|past| past >= Duration::from_secs(1))
    }
}

/// Exactly one certificate, every extension of which could be read.
fn whole<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidSvid> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidSvid::Malformed)?;
    let unread = |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::ParseError { .. });
    if !rest.is_empty() || certificate.extensions().iter().any(|e| unread(e.parsed_extension())) {
        return Err(InvalidSvid::Malformed);
    }
    Ok(certificate)
}

fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), InvalidSvid> {
    let constraints = certificate.basic_constraints().map_err(|_| InvalidSvid::Malformed)?;
    if constraints.is_some_and(|c| c.value.ca) {
        return Err(InvalidSvid::Authority);
    }
    // Without the extension every usage is allowed (RFC 5280 section 4.2.1.3), and webpki keeps a leaf from signing.
    match certificate.key_usage().map_err(|_| InvalidSvid::Malformed)? {
        Some(u) if u.value.key_cert_sign() || u.value.crl_sign() || !u.value.digital_signature() => {
            Err(InvalidSvid::KeyUsage)
        }
        _ => Ok(()),
    }
}

/// Whether the certificate may be used by a client, and by a server. `anyExtendedKeyUsage` counts as neither.
fn purposes(certificate: &X509Certificate<'_>) -> Result<(bool, bool), InvalidSvid> {
    let usage = certificate.extended_key_usage().map_err(|_| InvalidSvid::Malformed)?;
    Ok(usage.map_or((false, false), |u| (u.value.client_auth, u.value.server_auth)))
}

fn id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, InvalidSvid> {
    let names = certificate.subject_alternative_name().map_err(|_| InvalidSvid::Malformed)?;
    let mut uris = Vec::new();
    for name in names.iter().flat_map(|n| &n.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(InvalidSvid::Malformed),
            _ => {}
        }
    }
    match uris.as_slice() {
        [] => Err(InvalidSvid::NoUri),
        [uri] => Ok(uri.parse()?),
        several => Err(InvalidSvid::SeveralUris(several.len())),
    }
}

fn moment(time: ASN1Time) -> Result<SystemTime, InvalidSvid> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.ok_or(InvalidSvid::Malformed)
}

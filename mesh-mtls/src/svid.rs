//! Reads the identity in a workload certificate (X509-SVID, SPIFFE standard). Pure: bytes in, verdict out; whether a
//! trusted root vouches for the certificate is decided elsewhere.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use towpath_gateway_core::{InvalidSpiffeId, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;

use crate::{der, moment};

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
    /// Its id names a trust domain and no workload of it (X509-SVID section 5.2: a path is needed).
    #[error("its id {0} has no path: it stands for a trust domain, and for no workload of it")]
    NoPath(SpiffeId),
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
            not_before: moment::of(certificate.validity().not_before).ok_or(InvalidSvid::Malformed)?,
            not_after: moment::of(certificate.validity().not_after).ok_or(InvalidSvid::Malformed)?,
            client_auth,
            server_auth,
        })
    }

    /// Whether `now` lies within the certificate's life.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && !self.is_expired_at(now)
    }

    pub(crate) fn is_expired_at(&self, now: SystemTime) -> bool {
        moment::is_past(self.not_after, now)
    }
}

/// Exactly one certificate, every extension of which could be read.
fn whole<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidSvid> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidSvid::Malformed)?;
    let unread = |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::ParseError { .. });
    let is_bad = |extension: &X509Extension<'_>| {
        let strict = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(_) => der::is_sequence_of(extension.value, der::is_name),
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_) => {
                der::element(extension.value).is_some_and(|(_, _, rest)| rest.is_empty())
            }
            _ => true,
        };
        unread(extension.parsed_extension()) || !strict
    };
    if !rest.is_empty() || certificate.extensions().iter().any(is_bad) {
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
        [uri] => match uri.parse::<SpiffeId>()? {
            domain if domain.path().is_empty() => Err(InvalidSvid::NoPath(domain)),
            id => Ok(id),
        },
        several => Err(InvalidSvid::SeveralUris(several.len())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::Duration;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};

    use super::*;
    use crate::authority::{Authority, DAY, WEB, as_authority, dns, svid, uri, with_names, with_purposes};

    fn read(params: &CertificateParams) -> Result<Svid, InvalidSvid> {
        Svid::read(&Authority::new().sign(params).0[0])
    }

    fn named(names: Vec<SanType>) -> Result<SpiffeId, InvalidSvid> {
        read(&with_names(svid(WEB), names)).map(|svid| svid.id)
    }

    fn used_for(usages: &[KeyUsagePurpose]) -> Result<SpiffeId, InvalidSvid> {
        let mut params = svid(WEB);
        params.key_usages = usages.to_vec();
        read(&params).map(|svid| svid.id)
    }

    #[test]
    fn reads_the_id_and_the_life_of_a_workload_certificate() {
        let mut params = svid(WEB);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        let svid = read(&params).unwrap();
        let begin = SystemTime::UNIX_EPOCH + 365 * 50 * DAY + 12 * DAY;
        let end = begin + DAY;
        assert_eq!((svid.id.as_str(), svid.not_before, svid.not_after), (WEB, begin, end));
        assert!(svid.client_auth && svid.server_auth);
        let millisecond = Duration::from_millis(1);
        for (now, valid) in [
            (begin - millisecond, false),
            (begin, true),
            (end, true),
            (end + 999 * millisecond, true),
            (end + 1000 * millisecond, false),
        ] {
            assert_eq!(svid.is_valid_at(now), valid, "{now:?}");
        }
    }

    #[test]
    fn exactly_one_uri_counts_whatever_else_is_there() {
        let id: SpiffeId = WEB.parse().unwrap();
        let other = uri("https://example.org");
        for (names, verdict) in [
            (vec![uri(WEB)], Ok(id.clone())),
            (vec![dns("web.shop"), uri(WEB), dns("b")], Ok(id)),
            (vec![], Err(InvalidSvid::NoUri)),
            (vec![dns("spiffe.example")], Err(InvalidSvid::NoUri)),
            (vec![uri(WEB), other.clone()], Err(InvalidSvid::SeveralUris(2))),
            (vec![uri(WEB), uri(WEB), uri(WEB)], Err(InvalidSvid::SeveralUris(3))),
            (vec![other], Err(InvalidSvid::Id(InvalidSpiffeId::Scheme))),
            (
                vec![uri("spiffe://cluster.local/ns/shop/sa/web?x")],
                Err(InvalidSvid::Id(InvalidSpiffeId::Path)),
            ),
            (
                vec![uri("spiffe://cluster.local")],
                Err(InvalidSvid::NoPath("spiffe://cluster.local".parse().unwrap())),
            ),
            (vec![uri("spiffe://CLUSTER.local/a")], Err(InvalidSvid::Id(InvalidSpiffeId::TrustDomain))),
            (vec![uri("spiffe://cluster.local/%61")], Err(InvalidSvid::Id(InvalidSpiffeId::Path))),
        ] {
            assert_eq!(named(names.clone()), verdict, "{names:?}");
        }
    }

    #[test]
    fn what_can_sign_others_is_no_workload() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign};
        assert_eq!(read(&as_authority(svid(WEB))), Err(InvalidSvid::Authority));
        for usages in [&[DigitalSignature, KeyCertSign][..], &[DigitalSignature, CrlSign], &[KeyAgreement]] {
            assert_eq!(used_for(usages), Err(InvalidSvid::KeyUsage), "{usages:?}");
        }
        assert!(used_for(&[DigitalSignature]).is_ok());
        assert!(used_for(&[]).is_ok());
    }

    #[test]
    fn purposes_are_those_that_are_named() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
        for (purposes, client, server) in [
            (vec![], false, false),
            (vec![Any], false, false),
            (vec![CodeSigning], false, false),
            (vec![ClientAuth], true, false),
            (vec![ServerAuth, CodeSigning], false, true),
        ] {
            let svid = read(&with_purposes(svid(WEB), purposes.clone())).unwrap();
            assert_eq!((svid.client_auth, svid.server_auth), (client, server), "{purposes:?}");
        }
    }

    static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| Authority::new().sign(&svid(WEB)).0[0].to_vec());

    #[test]
    fn only_the_whole_certificate_is_read() {
        for end in 0..VALID.len() {
            let cut = CertificateDer::from(VALID[..end].to_vec());
            assert_eq!(Svid::read(&cut), Err(InvalidSvid::Malformed), "{end}");
        }
        let longer = CertificateDer::from([&VALID[..], &[0]].concat());
        assert_eq!(Svid::read(&longer), Err(InvalidSvid::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Svid::read(&CertificateDer::from(bytes)).is_err());
        }

        #[test]
        fn a_changed_certificate_never_gives_two_ids(at in any::<proptest::sample::Index>(), to in any::<u8>()) {
            let mut bytes = VALID.clone();
            *at.get_mut(&mut bytes) = to;
            if let Ok(svid) = Svid::read(&CertificateDer::from(bytes.clone())) {
                // What was read stands in the bytes as it is: nothing was decoded, folded or cut.
                let id = svid.id.as_str().as_bytes();
                prop_assert!(bytes.windows(id.len()).any(|window| window == id));
            }
        }
    }
}

//! What a certificate says of its holder, for `X-Forwarded-Client-Cert`: in the words of Envoy, `By;Hash;Subject;URI;DNS`.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use towpath_gateway_core::ForwardedCert;
use x509_parser::asn1_rs::{Any, ToDer as _};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, GeneralName, X509Certificate, X509Name};

/// The element of a client's certificate, written by a hop whose own certificate has the URI name `by`. `None` if it cannot be
/// read: nothing is said of it then.
///
/// ```
/// assert_eq!(towpath_forwarded_cert::element(None, &b"no certificate"[..].into()), None);
/// ```
pub fn element(by: Option<&str>, leaf: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.as_ref().map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<_> = names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    let dns: Vec<_> = names
        .iter()
        .filter_map(|name| if let GeneralName::DNSName(dns) = name { Some(*dns) } else { None })
        .collect();
    let hash = digest::digest(&digest::SHA256, leaf);
    let element = ForwardedCert {
        by,
        hash: hash.as_ref(),
        subject: &subject(certificate.subject()),
        uris: &uris,
        dns: &dns,
    };
    Some(element.to_string().into())
}

/// As a string of RFC 4514: the last name first, what has a meaning of its own and what is not ASCII escaped.
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let sets: Vec<_> = name.iter_rdn().collect();
    for (place, set) in sets.into_iter().rev().enumerate() {
        for (within, attribute) in set.iter().enumerate() {
            match (place, within) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            attribute_text(&mut text, attribute);
        }
    }
    text
}

fn attribute_text(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let kind = short_name(attribute.attr_type());
    match (kind, attribute.as_str()) {
        (Some(kind), Ok(value)) => {
            let _ = write!(text, "{kind}=");
            escaped(text, value);
        }
        // What is not known is shown in hexadecimal (RFC 4514 section 2.4).
        (kind, _) => {
            let _ = match kind {
                Some(kind) => write!(text, "{kind}=#"),
                None => write!(text, "{}=#", attribute.attr_type()),
            };
            hexadecimal(text, attribute.attr_value());
        }
    }
}

/// A value as it is encoded, tag and length before it.
fn hexadecimal(text: &mut String, value: &Any<'_>) {
    let encoded = value.to_der_vec().unwrap_or_default();
    for byte in encoded {
        let _ = write!(text, "{byte:02X}");
    }
}

/// The names of RFC 4514 section 3, and those that OpenSSL knows besides.
fn short_name(kind: &Oid<'_>) -> Option<&'static str> {
    Some(match kind.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let outer = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                let _ = write!(text, "\\{}", char::from(byte));
            }
            _ if outer => {
                let _ = write!(text, "\\{}", char::from(byte));
            }
            0x20..=0x7e => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn told(names: &[(DnType, &str)], sans: Vec<SanType>) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = sans;
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let element = element(None, leaf.der()).unwrap();
        let (hash, rest) = element.split_once(';').unwrap();
        assert_eq!(hash.len(), "Hash=".len() + 64, "{hash}");
        rest.to_owned()
    }

    #[test]
    fn names_are_told_in_their_order_and_escaped() {
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
        assert_eq!(told(&[], vec![]), r#"Subject="""#);
        assert_eq!(
            told(
                &[(DnType::OrganizationName, "Shop, Ltd \"x\""), (DnType::CommonName, " wéb;")],
                vec![dns("a.example"), uri("spiffe://a/b"), dns("b.example"), uri("spiffe://a/c")]
            ),
            r#"Subject="CN=\ w\C3\A9b\;,O=Shop\, Ltd \"x\"";URI=spiffe://a/b;URI=spiffe://a/c;DNS=a.example;DNS=b.example"#
        );
    }

    #[test]
    fn what_has_no_name_is_told_by_its_encoding() {
        assert_eq!(
            told(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")], vec![]),
            r#"Subject="1.2.3.4=#0C0178""#
        );
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        assert_eq!(element(None, &CertificateDer::from(b"junk".to_vec())), None);
    }
}

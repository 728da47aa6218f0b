//! One element of `X-Forwarded-Client-Cert`.

use std::fmt;

/// What one hop says of the certificate of its client, as Envoy writes it: `By;Hash;Subject;URI;DNS`.
///
/// ```
/// use towpath_gateway_core::ForwardedCert;
///
/// let element = ForwardedCert {
///     by: None,
///     hash: &[0xab; 32],
///     subject: "CN=web,O=Shop",
///     uris: &["spiffe://shop.example/web"],
///     dns: &["web.shop.example"],
/// };
/// let text = element.to_string();
/// assert!(text.starts_with("Hash=abab"));
/// assert!(text.ends_with(r#";Subject="CN=web,O=Shop";URI=spiffe://shop.example/web;DNS=web.shop.example"#));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ForwardedCert<'a> {
    /// URI name of the hop's own certificate, if it has one.
    pub by: Option<&'a str>,
    /// SHA-256 of the client's certificate in DER.
    pub hash: &'a [u8],
    /// Its subject (RFC 4514), empty if it has none. Quotation marks in it are escaped, as they are in that form.
    pub subject: &'a str,
    /// Its URI names.
    pub uris: &'a [&'a str],
    /// Its DNS names.
    pub dns: &'a [&'a str],
}

impl fmt::Display for ForwardedCert<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(by) = self.by {
            write!(f, "By={};", Value(by))?;
        }
        f.write_str("Hash=")?;
        for byte in self.hash {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ";Subject=\"{}\"", self.subject)?;
        for uri in self.uris {
            write!(f, ";URI={}", Value(uri))?;
        }
        for name in self.dns {
            write!(f, ";DNS={}", Value(name))?;
        }
        Ok(())
    }
}

/// In quotation marks if it holds what the header itself is made of: no name may pass for another field, or element.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains([',', ';', '=', '"', '\\']) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for char in self.0.chars() {
            if matches!(char, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{char}")?;
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_passes_for_more_than_a_name() {
        let element = ForwardedCert {
            by: Some("spiffe://a/b"),
            hash: &[1, 255],
            subject: "",
            uris: &["https://a/?b=c,URI=d", "e"],
            dns: &["f\";g\\"],
        };
        let expected =
            r#"By=spiffe://a/b;Hash=01ff;Subject="";URI="https://a/?b=c,URI=d";URI=e;DNS="f\";g\\""#;
        assert_eq!(element.to_string(), expected);
    }
}

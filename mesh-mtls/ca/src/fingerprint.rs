//! The SHA-256 of a certificate, by which a root is recognised.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// SHA-256 over the DER form of a certificate. Written as base64url without padding (43 characters).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of `der`.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }

    /// Reads the base64url form.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_sha_256_and_survives_a_round_trip() {
        // FIPS 180-2 example B.1: the digest of "abc".
        let print = Fingerprint::of(b"abc");
        assert_eq!(print.0[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(Fingerprint::parse(&print.to_string()), Some(print));
    }

    #[test]
    fn refuses_other_lengths_and_alphabets() {
        let text = Fingerprint::of(b"abc").to_string();
        for bad in ["", "AAAA", &format!("{text}A"), &format!("{text}="), &text.replacen('u', "/", 1)] {
            assert_ne!(bad, text);
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
    }
}

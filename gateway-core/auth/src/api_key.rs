//! API keys as a route carries them: digests only, never the keys.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderName;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use towpath_gateway_core::{Consumer, Policy};

/// The SHA-256 digest of an API key. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, Eq)]
pub struct ApiKeyDigest(pub [u8; 32]);

impl ApiKeyDigest {
    /// The digest of a key.
    pub fn of(key: &str) -> Self {
        Self::of_bytes(key.as_bytes())
    }

    pub(crate) fn of_bytes(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        // A SHA-256 digest has 32 bytes, so the two always pair up whole.
        bytes.iter_mut().zip(digest(&SHA256, key).as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits of either case, as `sha256sum` prints them.
    pub fn from_hex(text: &str) -> Result<Self, InvalidDigest> {
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() {
            return Err(InvalidDigest);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex_byte(pair).ok_or(InvalidDigest)?;
        }
        Ok(Self(digest))
    }
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn hex_byte(pair: &[u8]) -> Option<u8> {
    let [high, low] = *pair else { return None };
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

impl PartialEq for ApiKeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for ApiKeyDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl FromStr for ApiKeyDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        Self::from_hex(text)
    }
}

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

/// A text is not a SHA-256 digest. The text itself is never repeated: it may be the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDigest;

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the SHA-256 digest of an API key is 64 hexadecimal digits (is this the key itself?)")
    }
}

impl std::error::Error for InvalidDigest {}

/// Where a request may carry its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyLocation {
    /// The whole value of a header, or what follows `Bearer ` in `Authorization`.
    Header(HeaderName),
    /// A query parameter.
    Query(Arc<str>),
}

impl fmt::Display for ApiKeyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
        }
    }
}

/// Which keys open a route, and whom each belongs to.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    /// `namespace/name` of the policy, for the log.
    pub name: Arc<str>,
    /// Places that are looked at, in order.
    pub locations: Vec<ApiKeyLocation>,
    /// Digest of each valid key, with its owner.
    pub keys: HashMap<ApiKeyDigest, Consumer>,
    /// Whether the credential is taken out of the request before it goes on.
    pub hide_credential: bool,
}

impl Policy for ApiKeys {}

impl ApiKeys {
    /// Whose key this is. The hash of a digest tells nothing about a key, and equal hashes are compared in constant
    /// time.
    pub(crate) fn owner(&self, key: ApiKeyDigest) -> Option<&Consumer> {
        self.keys.get(&key)
    }

    /// The `WWW-Authenticate` of a refusal. No scheme is registered for keys in headers of their own; a 401 needs
    /// a challenge all the same (RFC 9110 section 15.5.2).
    pub(crate) fn challenge(&self) -> &'static str {
        let bearer = self.locations.contains(&ApiKeyLocation::Header(AUTHORIZATION));
        if bearer { "Bearer" } else { "ApiKey" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4, the digest of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_is_sha_256_in_hex_of_either_case() {
        assert_eq!(ApiKeyDigest::of("abc"), ABC.parse().unwrap());
        assert_eq!(ApiKeyDigest::from_hex(&ABC.to_uppercase()), ABC.parse());
        assert_ne!(ApiKeyDigest::of("abd"), ABC.parse().unwrap());
    }

    #[test]
    fn other_texts_are_refused_and_not_repeated() {
        let long = format!("{ABC}00");
        let signed = format!("+{}", &ABC[1..]);
        let wide = "é".repeat(32);
        for text in ["", "abc", &ABC[1..], &long, &signed, &wide] {
            let error = ApiKeyDigest::from_hex(text).unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn nothing_printed_holds_a_digest() {
        let keys = ApiKeys {
            name: "shop/keys".into(),
            locations: vec![ApiKeyLocation::Query("key".into())],
            keys: HashMap::from([(ApiKeyDigest::of("abc"), Consumer::new("shop/alice"))]),
            hide_credential: true,
        };
        let printed = format!("{keys:?}");
        assert!(printed.contains("shop/alice") && !printed.contains("186") && !printed.contains("ba78"));
    }
}

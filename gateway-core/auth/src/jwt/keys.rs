//! The keys that tokens are signed with (RFC 7517), and the check of a signature by one (RFC 7518 section 3).
//!
//! What a key is decides which algorithms it may be used with; a token can choose among those and no others.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use towpath_gateway_core::Claim;

use super::json::{Members, object, text};

/// A set of keys (RFC 7517 section 5). Keys that signatures cannot be checked with are left out.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKeySet {
    /// It is no JSON object with a list `keys`, or a name stands in it twice.
    Json,
    /// None of its keys can be used: RSA of at least 2048 bits, EC on P-256, P-384 or P-521, Ed25519, or `oct`.
    NoKey,
}

impl std::fmt::Display for InvalidKeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Json => "it is no JSON object with a list of `keys`, or a name stands in it twice",
            Self::NoKey => {
                "none of its keys can be used: they are RSA of 2048 bits or more, EC on P-256, P-384 or P-521, \
                 Ed25519, or oct, with which signatures are checked"
            }
        })
    }
}

impl std::error::Error for InvalidKeySet {}

impl std::fmt::Debug for KeySet {
    /// Names alone: a key may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.keys.iter().map(|key| key.id.as_deref().unwrap_or("-"))).finish()
    }
}

#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    /// The one algorithm that the key is for, if it says so.
    algorithm: Option<Box<str>>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Rsa { n: Box<[u8]>, e: Box<[u8]> },
    Ec { curve: Curve, point: Box<[u8]> },
    Ed25519(Box<[u8]>),
    Oct(Box<[u8]>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl KeySet {
    /// Reads a set.
    pub fn parse(text: &str) -> Result<Self, InvalidKeySet> {
        let set = object(text.as_bytes()).ok_or(InvalidKeySet::Json)?;
        let Some(Claim::List(list)) = set.get("keys") else { return Err(InvalidKeySet::Json) };
        let keys: Vec<_> = list
            .iter()
            .filter_map(|key| match key {
                Claim::Map(members) => Key::read(members),
                _ => None,
            })
            .collect();
        if keys.is_empty() { Err(InvalidKeySet::NoKey) } else { Ok(Self { keys }) }
    }

    /// Whether there is a key of this name.
    pub(super) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether any key that may have made the signature did.
    pub(super) fn verifies(&self, header: &Members, message: &[u8], signature: &[u8]) -> bool {
        let Some(algorithm) = text(header, "alg") else { return false };
        let id = text(header, "kid");
        let candidates = self.keys.iter().filter(|key| {
            // A key without a name may be meant by any.
            id.is_none() || key.id.is_none() || key.id.as_deref() == id
        });
        candidates
            .filter(|key| key.algorithm.as_deref().is_none_or(|own| own == algorithm))
            .any(|key| key.material.verifies(algorithm, message, signature))
    }
}

impl Key {
    fn read(members: &Members) -> Option<Self> {
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(members, name)?).ok();
        if text(members, "use").is_some_and(|usage| usage != "sig") || !verifies(members) {
            return None;
        }
        let material = match text(members, "kty")? {
            "RSA" => Material::rsa(bytes("n")?, bytes("e")?)?,
            "EC" => Material::ec(text(members, "crv")?, &bytes("x")?, &bytes("y")?)?,
            "OKP" if text(members, "crv") == Some("Ed25519") => {
                Material::Ed25519(Some(bytes("x")?).filter(|key| key.len() == 32)?.into())
            }
            // Shorter than what SHA-256 gives a key guards less than its algorithm promises (RFC 7518 section 3.2).
            "oct" => Material::Oct(Some(bytes("k")?).filter(|key| key.len() >= 32)?.into()),
            _ => return None,
        };
        let own = |name| text(members, name).map(Into::into);
        Some(Self { id: own("kid"), algorithm: own("alg"), material })
    }
}

/// Whether `key_ops` lets signatures be checked (RFC 7517 section 4.3).
fn verifies(members: &Members) -> bool {
    members.get("key_ops").is_none_or(|ops| ops.any_text(|op| op == "verify"))
}

impl Material {
    fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Self> {
        let n: Vec<u8> = n.into_iter().skip_while(|byte| *byte == 0).collect();
        let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
        (2048..=8192).contains(&bits).then(|| Self::Rsa { n: n.into(), e: e.into() })
    }

    fn ec(curve: &str, x: &[u8], y: &[u8]) -> Option<Self> {
        let (curve, size) = match curve {
            "P-256" => (Curve::P256, 32),
            "P-384" => (Curve::P384, 48),
            "P-521" => (Curve::P521, 66),
            _ => return None,
        };
        let point = [&[4], x, y].concat();
        (x.len() == size && y.len() == size).then(|| Self::Ec { curve, point: point.into() })
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Rsa { n, e }, _) => rsa(algorithm).is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature).is_ok()
            }),
            (Self::Ec { curve, point }, _) => ecdsa(*curve, algorithm).is_some_and(|algorithm| {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }),
            (Self::Ed25519(key), "EdDSA" | "Ed25519") => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            (Self::Oct(key), _) => hmac_of(algorithm).is_some_and(|algorithm| {
                hmac::verify(&hmac::Key::new(algorithm, key), message, signature).is_ok()
            }),
            (Self::Ed25519(_), _) => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Whether some kind of key can make signatures by an algorithm of this name (RFC 7518 section 3.1, RFC 8037, RFC 9864).
pub(super) fn is_algorithm(name: &str) -> bool {
    rsa(name).is_some()
        || hmac_of(name).is_some()
        || matches!(name, "ES256" | "ES384" | "ES512" | "EdDSA" | "Ed25519")
}

fn ecdsa(curve: Curve, algorithm: &str) -> Option<&'static EcdsaVerificationAlgorithm> {
    Some(match (curve, algorithm) {
        (Curve::P256, "ES256") => &ECDSA_P256_SHA256_FIXED,
        (Curve::P384, "ES384") => &ECDSA_P384_SHA384_FIXED,
        (Curve::P521, "ES512") => &ECDSA_P521_SHA512_FIXED,
        _ => return None,
    })
}

fn hmac_of(algorithm: &str) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return None,
    })
}

//! Join tokens: the proof of identity of a process that has no certificate yet.
//!
//! `towpath1.<payload>.<root>.<mac>`, each part base64url without padding: the payload is JSON (`id`, `exp` in Unix
//! seconds, `nonce`), the root is the SHA-256 of the plane's root certificate, and the MAC is HMAC-SHA256 over all
//! that stands before it. The bearer may have exactly that id, as often as it needs to until the token expires.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde_json::json;
use towpath_gateway_core::SpiffeId;

use crate::files::{self, Access};
use crate::{Fingerprint, StoreError};

const PREFIX: &str = "towpath1";

/// The longest token that is looked at, in bytes: the longest SPIFFE id (2048) and room for the rest.
const MAX_TOKEN: usize = 4096;

/// The secret with which join tokens are minted and verified.
pub struct TokenKey {
    bytes: [u8; 32],
    key: hmac::Key,
}

/// Why a join token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not have the form of a token.
    #[error("this is not a join token: it must have the form towpath1.<payload>.<root>.<mac>")]
    Malformed,
    /// This plane did not mint it.
    #[error("the join token was not minted by this control plane, or was changed; mint a new one")]
    Forged,
    /// Its time is over.
    #[error("the join token expired {} s ago; mint a new one with `control-plane token`", since.as_secs())]
    Expired {
        /// How long ago.
        since: Duration,
    },
}

#[derive(Deserialize)]
struct Payload {
    id: String,
    exp: u64,
}

impl TokenKey {
    /// How long a token is good for unless told otherwise: one hour.
    pub const DEFAULT_TTL: Duration = Duration::from_hours(1);

    /// A new key, in memory.
    pub fn generate() -> Result<Self, TokenKeyError> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TokenKeyError(()))?;
        Ok(Self::from_bytes(bytes))
    }

    /// The key in the file `join.key` (32 bytes, for its owner alone) of `dir`; made there if it is absent.
    pub fn open_or_create(dir: &Path) -> Result<Self, StoreError> {
        let _locked = files::lock(dir)?;
        let path = dir.join("join.key");
        let Some(bytes) = files::read_secret(&path)? else {
            let key = Self::generate().map_err(|_| StoreError::Crypto(rcgen::Error::RingUnspecified))?;
            files::write(&path, &key.bytes, Access::Owner)?;
            return Ok(key);
        };
        match bytes.try_into() {
            Ok(bytes) => Ok(Self::from_bytes(bytes)),
            Err(_) => Err(StoreError::Broken { path, why: "it must hold 32 bytes".to_owned() }),
        }
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes, key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) }
    }

    /// A token that lets its bearer have `id` until `ttl` from `now`, and recognise the plane by `root`.
    pub fn mint(&self, id: &SpiffeId, root: Fingerprint, ttl: Duration, now: SystemTime) -> String {
        let payload = json!({
            "id": id.as_str(),
            "exp": unix(now).saturating_add(ttl.as_secs()),
            "nonce": format!("{:016x}", fastrand::u64(..)),
        });
        let payload = BASE64.encode(payload.to_string());
        let signed = format!("{PREFIX}.{payload}.{root}");
        let mac = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(mac))
    }

    /// The id that the bearer of `token` may have.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<SpiffeId, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, mac) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let mac = BASE64.decode(mac).map_err(|_| TokenError::Malformed)?;
        // In constant time, and before anything of the payload is looked at.
        hmac::verify(&self.key, signed.as_bytes(), &mac).map_err(|_| TokenError::Forged)?;
        let read = JoinToken::parse(token)?;
        match now.duration_since(read.expires) {
            Ok(since) => Err(TokenError::Expired { since }),
            Err(_) => Ok(read.id),
        }
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct TokenKeyError(());

/// A join token as its bearer reads it. Nothing in it is verified: the bearer trusts whoever gave it the token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    text: String,
    id: SpiffeId,
    root: Fingerprint,
    expires: SystemTime,
}

impl JoinToken {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        Self::read(text.trim()).ok_or(TokenError::Malformed)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = Some(text).filter(|text| text.len() <= MAX_TOKEN)?.split('.');
        let (prefix, payload, root) = (parts.next()?, parts.next()?, parts.next()?);
        let (_mac, None) = (parts.next()?, parts.next()) else { return None };
        if prefix != PREFIX {
            return None;
        }
        let payload: Payload = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(payload.exp))?;
        Some(Self {
            text: text.to_owned(),
            id: payload.id.parse().ok()?,
            root: Fingerprint::parse(root)?,
            expires,
        })
    }

    /// The token itself. It is a secret.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id that the bearer gets.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The fingerprint of the plane's root certificate.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// When the token ceases to be good.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

fn unix(moment: SystemTime) -> u64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static KEY: LazyLock<TokenKey> = LazyLock::new(|| TokenKey::generate().unwrap());
    static TOKEN: LazyLock<String> = LazyLock::new(|| KEY.mint(&id(), root(), HOUR, now()));
    const HOUR: Duration = Duration::from_hours(1);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_001)
    }

    fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap()
    }

    fn root() -> Fingerprint {
        Fingerprint::of(b"root")
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_as_often_as_needed() {
        for after in [0, 1, 3599] {
            assert_eq!(KEY.verify(&TOKEN, now() + Duration::from_secs(after)).unwrap(), id());
        }
        let late = KEY.verify(&TOKEN, now() + HOUR).unwrap_err();
        assert_eq!(late, TokenError::Expired { since: Duration::ZERO });
    }

    #[test]
    fn the_bearer_reads_id_root_and_expiry() {
        let token = JoinToken::parse(&format!("{}\n", *TOKEN)).unwrap();
        assert_eq!((token.id(), token.root(), token.expires()), (&id(), root(), now() + HOUR));
        assert_eq!(token.as_str(), *TOKEN);
        assert!(!format!("{token:?}").contains("towpath1"));
    }

    #[test]
    fn a_token_of_another_plane_is_forged() {
        let other = TokenKey::generate().unwrap().mint(&id(), root(), HOUR, now());
        assert_eq!(KEY.verify(&other, now()), Err(TokenError::Forged));
    }

    #[test]
    fn other_texts_are_malformed() {
        for text in ["", "towpath1", "a.b", "towpath1.e30.e30.!", "towpath1...", &"a.".repeat(4000)] {
            assert!(KEY.verify(text, now()).is_err(), "{text}");
            assert_eq!(JoinToken::parse(text), Err(TokenError::Malformed), "{text}");
        }
    }

    #[test]
    fn two_tokens_for_one_id_differ() {
        assert_ne!(KEY.mint(&id(), root(), HOUR, now()), *TOKEN);
    }

    #[test]
    fn a_restart_keeps_the_key_and_a_broken_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let token = TokenKey::open_or_create(dir.path()).unwrap().mint(&id(), root(), HOUR, now());
        let again = TokenKey::open_or_create(dir.path()).unwrap();
        assert_eq!(again.verify(&token, now()).unwrap(), id());
        std::fs::write(dir.path().join("join.key"), "short").unwrap();
        let error = TokenKey::open_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("join.key is broken"), "{error}");
        assert_eq!(std::fs::read(dir.path().join("join.key")).unwrap(), b"short");
    }

    proptest! {
        #[test]
        fn no_mutation_of_a_token_verifies(at in any::<prop::sample::Index>(), with in "[ -~]", kind in 0..3) {
            let at = at.index(TOKEN.len());
            let (head, tail) = TOKEN.split_at(at);
            let mutated = match kind {
                0 => format!("{head}{with}{}", &tail[1..]),
                1 => format!("{head}{with}{tail}"),
                _ => format!("{head}{}", &tail[1..]),
            };
            prop_assume!(mutated != *TOKEN);
            prop_assert!(KEY.verify(&mutated, now()).is_err(), "{}", mutated);
        }

        #[test]
        fn no_swap_of_parts_between_two_tokens_verifies(pick in prop::collection::vec(any::<bool>(), 4)) {
            let other = KEY.mint(&"spiffe://cluster.local/ns/x/sa/y".parse().unwrap(), Fingerprint::of(b"x"), HOUR, now());
            let parts: Vec<_> =
                TOKEN.split('.').zip(other.split('.')).zip(&pick).map(|((a, b), first)| if *first { a } else { b }).collect();
            let mixed = parts.join(".");
            prop_assume!(mixed != *TOKEN && mixed != other);
            prop_assert_eq!(KEY.verify(&mixed, now()), Err(TokenError::Forged));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,200}") {
            let _ = KEY.verify(&text, now());
            let _ = JoinToken::parse(&text);
        }
    }
}

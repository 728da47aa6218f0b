//! One token: read strictly, then held to what a rule asks (RFC 7515, RFC 7519, and RFC 8725 for what to refuse).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use towpath_gateway_core::{Claim, Token};

use super::JwtRule;
use super::json::{Members, object, text};
use super::keys::is_algorithm;

/// Longer than a token that fits into usual limits of headers.
const MAX_TOKEN: usize = 32 << 10;

/// How far clocks may be apart, as in Envoy.
const SKEW: Duration = Duration::from_mins(1);

/// Claims that are lists of words in one string, whatever a rule says (Istio, `JWTRule.spaceDelimitedClaims`).
const WORDS: [&str; 2] = ["scope", "permission"];

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is of an issuer that the rule is not about.
    UnknownIssuer,
    /// It is not three pieces of base64url with JSON objects in the first two, a name stands in one twice, a registered name
    /// holds what it may not, or its algorithm is none that is known.
    Malformed,
    /// Its header names an extension that must be understood, and none is (RFC 7515 section 4.1.11).
    Critical,
    /// It begins to be valid later.
    NotYetValid,
    /// It was valid until earlier.
    Expired,
    /// No key of the issuer made its signature.
    Signature,
    /// It is for somebody else.
    Audience,
}

impl Refusal {
    /// The sentence for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "the token is of another issuer",
            Self::Malformed => "the token is malformed",
            Self::Critical => "the token has a critical extension",
            Self::NotYetValid => "the token is not valid yet",
            Self::Expired => "the token has expired",
            Self::Signature => "no key of the issuer made the token's signature",
            Self::Audience => "the token is for another audience",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token that was read and not yet checked.
pub(super) struct Read<'t> {
    header: Members,
    claims: Members,
    payload: &'t str,
    message: &'t [u8],
    signature: Vec<u8>,
}

/// Reads a token in its compact form (RFC 7515 section 7.1).
pub(super) fn read(token: &str) -> Result<Read<'_>, Refusal> {
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed);
    if token.len() > MAX_TOKEN {
        return Err(Refusal::Malformed);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    let header_members = object(&decoded(header)?).ok_or(Refusal::Malformed)?;
    if header_members.contains_key("crit") {
        return Err(Refusal::Critical);
    }
    if !text(&header_members, "alg").is_some_and(is_algorithm) || !is_text(&header_members, "kid") {
        return Err(Refusal::Malformed);
    }
    let claims = object(&decoded(payload)?).ok_or(Refusal::Malformed)?;
    if !has_registered_types(&claims) {
        return Err(Refusal::Malformed);
    }
    let message = token.get(..header.len() + 1 + payload.len()).ok_or(Refusal::Malformed)?;
    Ok(Read {
        header: header_members,
        claims,
        payload,
        message: message.as_bytes(),
        signature: decoded(signature)?,
    })
}

/// Whether registered claims are of their types (RFC 7519 section 4.1). Dates are looked at with the clock.
fn has_registered_types(claims: &Members) -> bool {
    let strings = ["iss", "sub", "jti"].iter().all(|name| is_text(claims, name));
    let audience = match claims.get("aud") {
        None | Some(Claim::Text(_)) => true,
        Some(Claim::List(list)) => list.iter().all(|member| matches!(member, Claim::Text(_))),
        Some(_) => false,
    };
    let issued = claims.get("iat").is_none_or(|claim| number(claim).is_some());
    strings && audience && issued
}

fn is_text(members: &Members, name: &str) -> bool {
    members.get(name).is_none_or(|member| matches!(member, Claim::Text(_)))
}

fn number(claim: &Claim) -> Option<f64> {
    let Claim::Scalar(text) = claim else { return None };
    text.parse().ok()
}

impl<'t> Read<'t> {
    /// The payload as it stands in the token.
    pub(super) fn payload(&self) -> &'t str {
        self.payload
    }

    /// Whether the token names a key that is not among those of the rule.
    pub(super) fn misses_key(&self, rule: &JwtRule) -> bool {
        text(&self.header, "kid").is_some_and(|id| !rule.keys.load().has(id))
    }

    /// Holds the token to a rule, in the order of Envoy: issuer, times, audience, signature.
    pub(super) fn check(&self, rule: &JwtRule, now: SystemTime) -> Result<(), Refusal> {
        if text(&self.claims, "iss") != Some(&*rule.issuer) {
            return Err(Refusal::UnknownIssuer);
        }
        self.check_times(now)?;
        if !rule.audiences.is_empty() && !self.is_for(rule) {
            return Err(Refusal::Audience);
        }
        if rule.keys.load().verifies(&self.header, self.message, &self.signature) {
            Ok(())
        } else {
            Err(Refusal::Signature)
        }
    }

    fn check_times(&self, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.date("nbf")?.is_some_and(|from| now + SKEW < from) {
            return Err(Refusal::NotYetValid);
        }
        if self.date("exp")?.is_some_and(|until| now > until.saturating_add(SKEW)) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    /// A claim that is a time (RFC 7519 section 2, `NumericDate`).
    fn date(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        let Some(claim) = self.claims.get(name) else { return Ok(None) };
        let seconds = number(claim).ok_or(Refusal::Malformed)?;
        // Later than any clock is late enough.
        let far = Duration::from_secs(u64::from(u32::MAX) * 1000);
        if seconds >= far.as_secs_f64() {
            return Ok(Some(far));
        }
        Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| Refusal::Malformed)
    }

    fn is_for(&self, rule: &JwtRule) -> bool {
        let wanted = |audience: &str| rule.audiences.iter().any(|wanted| same_audience(wanted, audience));
        self.claims.get("aud").is_some_and(|claim| claim.any_text(wanted))
    }

    /// What the checked token says.
    pub(super) fn into_token(self, rule: &JwtRule) -> Token {
        let mut claims = self.claims;
        for name in WORDS.iter().copied().chain(rule.words.iter().map(|name| &**name)) {
            if let Some(claim) = claims.get_mut(name)
                && let Claim::Text(text) = claim
            {
                *claim = Claim::Words(std::mem::take(text));
            }
        }
        Token { claims }
    }
}

/// Scheme and last slash make no difference to Envoy.
fn same_audience(one: &str, other: &str) -> bool {
    fn bare(audience: &str) -> &str {
        let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
        let rest = rest.unwrap_or(audience);
        rest.strip_suffix('/').unwrap_or(rest)
    }
    bare(one) == bare(other)
}

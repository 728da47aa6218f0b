//! JSON Web Tokens as Istio's `RequestAuthentication` asks for them: which are looked for where, and what comes of them.
//!
//! Without a clock and without a connection: [`RequestAuthentications::authenticate`] is given the time, and keys are
//! [`Live`], for whoever fetches them.

mod json;
mod keys;
mod locate;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use towpath_gateway_core::{Changes, Claim, Live, Token};

pub use self::keys::{InvalidKeySet, KeySet};
pub use self::locate::TokenLocation;
pub use self::token::Refusal as TokenRefusal;

/// What is said about the tokens of one issuer (Istio, `JWTRule`).
#[derive(Debug, Clone)]
pub struct JwtRule {
    /// `namespace/name` of the policy, as refusals name it in the log.
    pub name: Arc<str>,
    /// Who makes the tokens: their claim `iss`.
    pub issuer: Arc<str>,
    /// Whom they are for; empty: anybody.
    pub audiences: Vec<Arc<str>>,
    /// The issuer's keys.
    pub keys: Live<KeySet>,
    /// Is told when a token names a key that is not among those: whoever fetches them may look again.
    pub missed: Option<Changes>,
    /// Where tokens are looked for.
    pub locations: Vec<TokenLocation>,
    /// Whether a token that was taken goes on to the backend.
    pub forward: bool,
    /// The header that the payload goes on in, in base64url.
    pub payload_header: Option<HeaderName>,
    /// Headers that claims go on in, each with the path of its claim.
    pub claim_headers: Vec<(HeaderName, Vec<Box<str>>)>,
    /// Claims that are lists of words, besides `scope` and `permission`.
    pub words: Vec<Box<str>>,
}

impl JwtRule {
    /// A rule for any audience and the default places, after which the token goes no further.
    pub fn new(name: impl Into<Arc<str>>, issuer: impl Into<Arc<str>>, keys: Live<KeySet>) -> Self {
        Self {
            name: name.into(),
            issuer: issuer.into(),
            audiences: Vec::new(),
            keys,
            missed: None,
            locations: TokenLocation::defaults(),
            forward: false,
            payload_header: None,
            claim_headers: Vec::new(),
            words: Vec::new(),
        }
    }
}

/// The rules in force for one workload, of however many policies.
#[derive(Debug, Clone, Default)]
pub struct RequestAuthentications {
    rules: Vec<JwtRule>,
    /// Headers that only this side may write.
    outputs: Vec<HeaderName>,
}

/// Why a request ends: the rule that is closest to its token, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefused {
    /// The name of the rule's policy.
    pub name: Arc<str>,
    /// What is wrong.
    pub refusal: TokenRefusal,
}

/// What one rule finds.
enum Found {
    Nothing,
    Taken { token: Token, payload: String },
    Refused(TokenRefused),
}

impl RequestAuthentications {
    /// All rules that hold for a workload, in their order.
    pub fn new(rules: Vec<JwtRule>) -> Self {
        let mut outputs: Vec<HeaderName> = Vec::new();
        for rule in &rules {
            let claims = rule.claim_headers.iter().map(|(name, _)| name);
            for name in claims.chain(&rule.payload_header) {
                if !outputs.contains(name) {
                    outputs.push(name.clone());
                }
            }
        }
        Self { rules, outputs }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[JwtRule] {
        &self.rules
    }

    /// The headers in which tokens are looked for, besides `Cookie`.
    pub fn headers(&self) -> Vec<HeaderName> {
        let locations = self.rules.iter().flat_map(|rule| &rule.locations);
        let header = |location: &TokenLocation| match location {
            TokenLocation::Header { name, .. } => Some(name.clone()),
            TokenLocation::Param(_) | TokenLocation::Cookie(_) => None,
        };
        locations.filter_map(header).collect()
    }

    /// Checks the tokens of a request, writes into it what the rule says, and answers with the token that was taken. A request
    /// without a token passes; so does one in which some rule takes all the tokens in its places, and the first such rule is
    /// the one that is carried out (Envoy, `requires_any`).
    pub fn authenticate(&self, parts: &mut Parts, now: SystemTime) -> Result<Option<Token>, TokenRefused> {
        let mut refused: Option<TokenRefused> = None;
        for rule in &self.rules {
            match find(rule, parts, now) {
                Found::Nothing => {}
                Found::Taken { token, payload } => {
                    self.strip(&mut parts.headers);
                    carry_out(rule, &token, &payload, parts);
                    return Ok(Some(token));
                }
                // That the issuer is another one says least.
                Found::Refused(new) => match &refused {
                    Some(there) if there.refusal >= new.refusal => {}
                    _ => refused = Some(new),
                },
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        self.strip(&mut parts.headers);
        Ok(None)
    }

    /// Drops headers that only this side may write.
    pub fn strip(&self, headers: &mut HeaderMap) {
        self.outputs.iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// Checks the tokens in the places of one rule; all of them have to be good.
fn find(rule: &JwtRule, parts: &Parts, now: SystemTime) -> Found {
    let mut taken = None;
    for text in rule.locations.iter().flat_map(|location| location.tokens(parts)) {
        let checked = token::read(&text).and_then(|read| read.check(rule, now).map(|()| read));
        match checked {
            Ok(read) if taken.is_none() => {
                let payload = read.payload().to_owned();
                taken = Some((read.into_token(rule), payload));
            }
            Ok(_) => {}
            Err(refusal) => {
                if let (TokenRefusal::Signature, Some(missed)) = (refusal, &rule.missed)
                    && token::read(&text).is_ok_and(|read| read.misses_key(rule))
                {
                    missed.tell();
                }
                return Found::Refused(TokenRefused { name: Arc::clone(&rule.name), refusal });
            }
        }
    }
    match taken {
        Some((token, payload)) => Found::Taken { token, payload },
        None => Found::Nothing,
    }
}

/// Takes the token out and puts in what the rule wants of it.
fn carry_out(rule: &JwtRule, token: &Token, payload: &str, parts: &mut Parts) {
    if !rule.forward {
        for location in &rule.locations {
            // What a target or a cookie line is made of after a part is left out was valid before.
            let _ = location.remove(parts);
        }
    }
    if let (Some(name), Ok(value)) = (&rule.payload_header, HeaderValue::try_from(payload)) {
        parts.headers.insert(name, value);
    }
    for (name, path) in &rule.claim_headers {
        if let Some(value) = token.claim(path).and_then(header_value) {
            parts.headers.insert(name, value);
        }
    }
}

/// A claim in a header, as Envoy writes it: strings as they are, whole numbers as such and others with six digits behind the
/// point, lists and objects as JSON in base64. An empty string, and one that no header may hold, is left out.
fn header_value(claim: &Claim) -> Option<HeaderValue> {
    match claim {
        Claim::Text(text) | Claim::Words(text) => {
            HeaderValue::from_bytes(text.trim_matches([' ', '\t']).as_bytes())
                .ok()
                .filter(|value| !value.is_empty())
        }
        Claim::Scalar(text) => match &**text {
            "null" => None,
            "true" | "false" => HeaderValue::from_str(text).ok(),
            number => HeaderValue::try_from(written(number.parse().ok()?)).ok(),
        },
        Claim::List(_) | Claim::Map(_) => {
            // As Protocol Buffers write JSON.
            let json = json::value(claim).to_string().replace('<', "\\u003c").replace('>', "\\u003e");
            HeaderValue::try_from(STANDARD.encode(json)).ok()
        }
    }
}

fn written(number: f64) -> String {
    let whole = number.fract() == 0.0 && (0.0..TOO_LARGE).contains(&number);
    if whole { format!("{number:.0}") } else { format!("{number:.6}") }
}

/// 2^64, from which on whole numbers are written as the others are.
const TOO_LARGE: f64 = 18_446_744_073_709_551_616.0;

//! Where a request carries tokens.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::credential::{parameters_of, without};

/// A place of a request where a token may stand (Istio, `JWTRule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenLocation {
    /// A header: the token is what comes behind this, wherever that stands in the value, and in the case that is written
    /// here (Envoy, `JwtHeader.value_prefix`).
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands before the token; empty: the value is the token.
        prefix: Box<str>,
    },
    /// A parameter of the query.
    Param(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

impl TokenLocation {
    /// Where tokens are looked for when a rule names no place: `Authorization: Bearer …`, and the parameter `access_token`
    /// (RFC 6750 sections 2.1 and 2.3).
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::Header { name: AUTHORIZATION, prefix: "Bearer ".into() },
            Self::Param("access_token".into()),
        ]
    }

    /// Every token that stands there.
    pub(super) fn tokens<'r>(&'r self, parts: &'r Parts) -> Vec<Cow<'r, str>> {
        match self {
            Self::Header { name, prefix } => {
                let lines = parts.headers.get_all(name).iter();
                lines.filter_map(|line| behind(line, prefix)).collect()
            }
            Self::Param(name) => parameters_of(&parts.uri, name).map(into_text).collect(),
            Self::Cookie(name) => {
                let lines = parts.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
                let pairs =
                    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
                let values = pairs.filter(|(key, _)| *key == &**name);
                values.map(|(_, value)| Cow::Borrowed(value.trim_matches('"'))).collect()
            }
        }
    }

    /// Takes what stands there out of the request.
    pub(super) fn remove(&self, parts: &mut Parts) -> Result<(), http::Error> {
        match self {
            Self::Header { name, prefix } => {
                let others: Vec<HeaderValue> = parts
                    .headers
                    .get_all(name)
                    .iter()
                    .filter(|line| behind(line, prefix).is_none())
                    .cloned()
                    .collect();
                parts.headers.remove(name);
                for line in others {
                    parts.headers.append(name.clone(), line);
                }
            }
            Self::Param(name) => parts.uri = without(&parts.uri, name)?,
            Self::Cookie(name) => {
                let mut lines: Vec<String> = Vec::new();
                for line in parts.headers.get_all(COOKIE) {
                    let text = String::from_utf8_lossy(line.as_bytes());
                    let is_it =
                        |pair: &&str| pair.trim().split_once('=').is_some_and(|(key, _)| key == &**name);
                    let kept: Vec<&str> =
                        text.split(';').filter(|pair| !is_it(pair)).map(str::trim).collect();
                    lines.push(kept.join("; "));
                }
                parts.headers.remove(COOKIE);
                for line in lines.iter().filter(|line| !line.is_empty()) {
                    parts.headers.append(COOKIE, HeaderValue::try_from(line)?);
                }
            }
        }
        Ok(())
    }
}

fn into_text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The token behind the prefix. A place that holds none for all that is a token that is malformed.
fn behind<'v>(value: &'v HeaderValue, prefix: &str) -> Option<Cow<'v, str>> {
    let value = String::from_utf8_lossy(value.as_bytes());
    if prefix.is_empty() {
        return Some(value);
    }
    let of_tokens = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (_, rest) = value.split_once(prefix)?;
    let token =
        rest.trim_start_matches(|c| !of_tokens(c)).split(|c| !of_tokens(c)).next().unwrap_or_default();
    Some(Cow::Owned(token.to_owned()))
}

//! Which headers of a service's answer are meant.

use http::HeaderName;

use crate::Pattern;

/// Headers of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderNames {
    /// Whatever the answer holds.
    All,
    /// Those of which a pattern holds, without regard to case.
    Listed(Vec<Pattern>),
}

impl HeaderNames {
    /// No header at all.
    pub const NONE: Self = Self::Listed(Vec::new());

    /// Whether the answer's header of this name is meant. What describes the answer itself or is of proxies has to be named.
    pub(super) fn takes(&self, name: &HeaderName) -> bool {
        match self {
            Self::All => !describes_answer(name) && !is_of_proxies(name),
            Self::Listed(patterns) => patterns.iter().any(|pattern| match pattern {
                Pattern::Present => !describes_answer(name) && !is_of_proxies(name),
                pattern => holds(pattern, name),
            }),
        }
    }

    /// Whether the header is meant where the answer goes on as a whole.
    pub(super) fn holds(&self, name: &HeaderName) -> bool {
        match self {
            Self::All => true,
            Self::Listed(patterns) => {
                patterns.iter().any(|pattern| pattern.matches_ignoring_case(name.as_str()))
            }
        }
    }

    /// Whether the service alone may set this header. Of names that are not known beforehand it is not told who sets them.
    pub(super) fn reserves(&self, name: &HeaderName) -> bool {
        match self {
            Self::All => false,
            Self::Listed(patterns) => {
                patterns.iter().any(|pattern| *pattern != Pattern::Present && holds(pattern, name))
            }
        }
    }
}

fn holds(pattern: &Pattern, name: &HeaderName) -> bool {
    let written_out = matches!(pattern, Pattern::Exact(_));
    (written_out || !is_of_proxies(name)) && pattern.matches_ignoring_case(name.as_str())
}

/// Headers about the answer's own body and origin. On the client's request they would say something untrue.
fn describes_answer(name: &HeaderName) -> bool {
    name.as_str().starts_with("content-") || matches!(name.as_str(), "date" | "server" | "vary" | "etag")
}

/// Headers in which proxies say who sent the request and how. No wildcard is meant to replace them.
fn is_of_proxies(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "forwarded"
            | "x-forwarded-client-cert"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-request-id"
            | "traceparent"
            | "tracestate"
    )
}

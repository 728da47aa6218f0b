//! Host names of listeners and routes: exact, or with `*.` in front (Gateway API, `Hostname`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A host name that requests are compared with, in lower case. `*.example.com` stands for every name that ends in
/// `.example.com`, with any number of labels in front; the name without label in front is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hostname {
    /// Every host.
    Any,
    /// This host alone.
    Exact(Arc<str>),
    /// Every host that ends in this text, which begins with a dot.
    Suffix(Arc<str>),
}

impl Hostname {
    /// Whether `host` (lower case, without port) is one of those meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }

    /// The names that both stand for, or `None` if there is no such name.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, name) | (name, Self::Any) => Some(name.clone()),
            (Self::Exact(name), wide) | (wide, Self::Exact(name)) => {
                wide.matches(name).then(|| Self::Exact(Arc::clone(name)))
            }
            (Self::Suffix(a), Self::Suffix(b)) if a.ends_with(&**b) => Some(self.clone()),
            (Self::Suffix(a), Self::Suffix(b)) if b.ends_with(&**a) => Some(other.clone()),
            (Self::Suffix(_), Self::Suffix(_)) => None,
        }
    }

    /// Sorts the more specific first: exact names, then wildcards by length, then any.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Exact(name) => (2, name.len()),
            Self::Suffix(suffix) => (1, suffix.len()),
            Self::Any => (0, 0),
        }
    }
}

impl FromStr for Hostname {
    type Err = InvalidHostname;

    fn from_str(text: &str) -> Result<Self, InvalidHostname> {
        let text = text.to_ascii_lowercase();
        let (wildcard, name) = text.strip_prefix("*.").map_or((false, text.as_str()), |rest| (true, rest));
        match text.as_str() {
            "" | "*" => Ok(Self::Any),
            _ if !is_dns_name(name) => Err(InvalidHostname),
            _ if wildcard => Ok(Self::Suffix(format!(".{name}").into())),
            _ => Ok(Self::Exact(name.into())),
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// A text that is not a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHostname;

impl fmt::Display for InvalidHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host name is a DNS name (RFC 1123), with at most a `*.` in front")
    }
}

impl std::error::Error for InvalidHostname {}

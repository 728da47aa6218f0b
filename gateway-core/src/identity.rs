//! SPIFFE identities, by the grammar of the SPIFFE-ID standard (sections 2.1 to 2.3).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

/// A trust domain name: lower-case letters, digits, dots, dashes and underscores, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, the domain of a mesh that names none.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }
}

/// A SPIFFE id such as `spiffe://cluster.local/ns/shop/sa/reviews`. It compares byte by byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    path_at: usize,
}

impl SpiffeId {
    const SCHEME: &'static str = "spiffe://";

    /// The id that Istio gives a workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn workload(domain: &TrustDomain, namespace: &str, account: &str) -> Result<Self, InvalidSpiffeId> {
        format!("spiffe://{domain}/ns/{namespace}/sa/{account}").parse()
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain part.
    pub fn trust_domain(&self) -> &str {
        self.uri.get(Self::SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// The path with its leading slash, empty for the id of a trust domain itself.
    pub fn path(&self) -> &str {
        self.uri.get(self.path_at..).unwrap_or_default()
    }

    /// The id without `spiffe://`: the form in which Istio's policies write principals.
    pub fn principal(&self) -> &str {
        self.uri.get(Self::SCHEME.len()..).unwrap_or_default()
    }

    /// The namespace of an id of the form `/ns/<namespace>/sa/<service account>`.
    pub fn namespace(&self) -> Option<&str> {
        self.istio_parts().map(|(namespace, _)| namespace)
    }

    /// The service account of an id of the form `/ns/<namespace>/sa/<service account>`.
    pub fn service_account(&self) -> Option<&str> {
        self.istio_parts().map(|(_, account)| account)
    }

    fn istio_parts(&self) -> Option<(&str, &str)> {
        let mut parts = self.path().split('/').skip(1);
        match (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()) {
            ("ns", namespace, "sa", account, None) => Some((namespace, account)),
            _ => None,
        }
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.uri)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        if uri.len() > MAX_ID {
            return Err(InvalidSpiffeId::TooLong);
        }
        let rest = uri.strip_prefix(Self::SCHEME).ok_or(InvalidSpiffeId::Scheme)?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        check_trust_domain(domain)?;
        if !path.is_empty() {
            path.split('/').skip(1).try_for_each(check_segment)?;
        }
        Ok(Self { uri: uri.into(), path_at: Self::SCHEME.len() + domain.len() })
    }
}

fn check_trust_domain(name: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    match name.len() {
        0 => Err(InvalidSpiffeId::TrustDomain),
        n if n > MAX_TRUST_DOMAIN => Err(InvalidSpiffeId::TooLong),
        _ if name.bytes().all(allowed) => Ok(()),
        _ => Err(InvalidSpiffeId::TrustDomain),
    }
}

fn check_segment(segment: &str) -> Result<(), InvalidSpiffeId> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if matches!(segment, "" | "." | "..") || !segment.bytes().all(allowed) {
        return Err(InvalidSpiffeId::Path);
    }
    Ok(())
}

/// Why a text is not a SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSpiffeId {
    /// It does not begin with `spiffe://` in lower case.
    Scheme,
    /// The trust domain is empty or holds a character other than `a-z 0-9 . - _`.
    TrustDomain,
    /// A path segment is empty, `.` or `..`, or holds a character other than `a-z A-Z 0-9 . - _`.
    Path,
    /// The id passes 2048 bytes, or the trust domain 255.
    TooLong,
}

impl fmt::Display for InvalidSpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a SPIFFE id begins with spiffe://",
            Self::TrustDomain => "a trust domain is made of a-z, 0-9, '.', '-' and '_'",
            Self::Path => {
                "path segments are made of a-z, A-Z, 0-9, '.', '-' and '_', and none is empty, '.' or '..'"
            }
            Self::TooLong => "a SPIFFE id has at most 2048 bytes, its trust domain 255",
        })
    }
}

impl std::error::Error for InvalidSpiffeId {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_parts_of_a_workload_id() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/shop/sa/reviews");
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/reviews");
        assert_eq!((id.namespace(), id.service_account()), (Some("shop"), Some("reviews")));
        assert_eq!(SpiffeId::workload(&"cluster.local".parse().unwrap(), "shop", "reviews").unwrap(), id);
    }

    #[test]
    fn an_id_of_another_form_has_no_namespace() {
        for id in ["spiffe://td", "spiffe://td/ns/a", "spiffe://td/ns/a/sa/b/c", "spiffe://td/vm/one"] {
            assert_eq!(id.parse::<SpiffeId>().unwrap().namespace(), None, "{id}");
        }
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        use InvalidSpiffeId::{Path, Scheme, TooLong, TrustDomain};
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        for (text, why) in [
            ("", Scheme),
            ("https://td/a", Scheme),
            ("SPIFFE://td/a", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///a", TrustDomain),
            ("spiffe://TD/a", TrustDomain),
            ("spiffe://td:1/a", TrustDomain),
            ("spiffe://u@td/a", TrustDomain),
            ("spiffe://td?q", TrustDomain),
            ("spiffe://td/", Path),
            ("spiffe://td//a", Path),
            ("spiffe://td/a/", Path),
            ("spiffe://td/./a", Path),
            ("spiffe://td/../a", Path),
            ("spiffe://td/a%2fb", Path),
            ("spiffe://td/a?q", Path),
            ("spiffe://td/a#f", Path),
            ("spiffe://td/a,b", Path),
            ("spiffe://td/a\r\nb", Path),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert_eq!(format!("{}{}", id.trust_domain(), id.path()), id.principal());
            }
        }

        #[test]
        fn every_valid_id_survives_a_round_trip(domain in "[a-z0-9._-]{1,20}", path in "(/[a-zA-Z0-9_-]{1,8}){0,5}") {
            let text = format!("spiffe://{domain}{path}");
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.trust_domain(), domain);
            prop_assert_eq!(id.path(), path);
        }
    }
}

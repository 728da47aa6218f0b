//! Values of a policy that name identities: of peers, and of tokens.

use std::sync::Arc;

use towpath_gateway_core::{SpiffeId, Token};

use super::Pattern;

/// A namespace. Every `*` is a wildcard, wherever it stands: Istio makes `/ns/<namespace>/` of it, anywhere in the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePattern(Arc<[Box<str>]>);

impl NamespacePattern {
    /// Reads a policy's value.
    pub fn new(value: &str) -> Self {
        Self(value.split('*').map(Into::into).collect())
    }

    /// Whether the identity is of such a namespace.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let segments = || id.path().split('/').skip(1);
        let pairs = segments().zip(segments().skip(1));
        let followed = segments().skip(2);
        pairs.zip(followed).any(|((key, name), _)| key == "ns" && self.takes(name))
    }

    fn takes(&self, name: &str) -> bool {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return false };
        if self.0.len() == 1 {
            return **first == *name;
        }
        let inner = name.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
        let Some(mut rest) = inner else { return false };
        self.0.iter().skip(1).take(self.0.len() - 2).all(|part| match rest.find(&**part) {
            Some(at) => {
                rest = rest.get(at + part.len()..).unwrap_or_default();
                true
            }
            None => false,
        })
    }
}

/// A service account, in any trust domain. Other pairs of names may stand in between and behind, as Istio has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceAccount {
    /// Reads `NAMESPACE/NAME`, or `NAME` in this namespace.
    pub fn new(value: &str, namespace: &str) -> Self {
        let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Whether the identity is this account's.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let mut segments = id.path().split('/').skip(1).peekable();
        let follows = |segments: &mut std::iter::Peekable<_>, key: &str, value: &str| {
            while let Some(segment) = segments.next() {
                if segment == key && segments.peek() == Some(&value) {
                    segments.next();
                    return true;
                }
            }
            false
        };
        follows(&mut segments, "ns", &self.namespace) && follows(&mut segments, "sa", &self.name)
    }
}

/// `ISSUER/SUBJECT` of a token. The last slash divides, for issuers are URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPrincipal {
    issuer: Pattern,
    subject: Pattern,
}

impl RequestPrincipal {
    /// Reads a policy's value: `*` needs both claims, `*/x` is subject `x` of any issuer, `*x/y` subject `y` of issuers that
    /// end in `x`, `x/*` any subject of issuer `x`, `x/y*` subjects that begin with `y`.
    pub fn new(value: &str) -> Self {
        let (any, exact) = (|| Pattern::Present, |text: &str| Pattern::Exact(text.into()));
        let (issuer, subject) = match (value, value.rsplit_once('/')) {
            ("*", _) => (any(), any()),
            (_, Some((issuer, subject))) if value.starts_with('*') => (Pattern::new(issuer), exact(subject)),
            (_, None) if value.starts_with('*') => (any(), Pattern::new(value)),
            (_, Some((issuer, subject))) => (
                exact(issuer),
                match subject.strip_suffix('*') {
                    Some("") => any(),
                    Some(prefix) => Pattern::Prefix(prefix.into()),
                    None => exact(subject),
                },
            ),
            (_, None) => match value.strip_suffix('*') {
                Some(prefix) => (Pattern::Prefix(prefix.into()), any()),
                None => (exact(value), exact("")),
            },
        };
        Self { issuer, subject }
    }

    /// Whether the token is such a one.
    pub fn matches(&self, token: &Token) -> bool {
        token.issuer().is_some_and(|issuer| self.issuer.matches(issuer))
            && token.subject().is_some_and(|subject| self.subject.matches(subject))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use towpath_gateway_core::Claim;

    use super::*;

    #[test]
    fn namespaces_are_found_anywhere_and_stars_everywhere() {
        for (pattern, path, meant) in [
            ("shop", "/ns/shop/sa/web", true),
            ("shop", "/ns/workshop/sa/web", false),
            ("shop", "/ns/shop", false),
            ("shop", "/cluster/ns/shop/vm/one", true),
            ("sa", "/ns/shop/sa/web", false),
            ("*", "/ns/shop/sa/web", true),
            ("*", "/vm/one", false),
            ("prod-*", "/ns/prod-eu/sa/x", true),
            ("prod-*", "/ns/nonprod-eu/sa/x", false),
            ("*-eu", "/ns/prod-eu/sa/x", true),
            ("p*-*u", "/ns/prod-eu/sa/x", true),
            ("p*d*d*u", "/ns/prod-eu/sa/x", false),
            ("prod*prod", "/ns/prod/sa/x", false),
        ] {
            let id: SpiffeId = format!("spiffe://td{path}").parse().unwrap();
            assert_eq!(NamespacePattern::new(pattern).matches(&id), meant, "{pattern} {path}");
        }
    }

    #[test]
    fn accounts_are_those_of_their_namespace() {
        for (value, path, meant) in [
            ("shop/web", "/ns/shop/sa/web", true),
            ("web", "/ns/home/sa/web", true),
            ("web", "/ns/shop/sa/web", false),
            ("shop/web", "/ns/shop/sa/web2", false),
            ("shop/web", "/ns/shop/zone/a/sa/web/pod/1", true),
            ("shop/web", "/sa/web/ns/shop", false),
            ("shop/web", "/ns/shop/web", false),
        ] {
            let id: SpiffeId = format!("spiffe://td{path}").parse().unwrap();
            assert_eq!(ServiceAccount::new(value, "home").matches(&id), meant, "{value} {path}");
        }
    }

    #[test]
    fn request_principals_are_issuer_and_subject() {
        for (value, issuer, subject, meant) in [
            ("*", Some("https://i"), Some("alice"), true),
            ("*", Some("https://i"), None, false),
            ("*", None, Some("alice"), false),
            ("https://i/alice", Some("https://i"), Some("alice"), true),
            ("https://i/alice", Some("https://i"), Some("alice2"), false),
            ("https://i/*", Some("https://i"), Some("bob"), true),
            ("https://i/al*", Some("https://i"), Some("alice"), true),
            ("https://i*", Some("https://issuer"), Some("bob"), false),
            ("i*", Some("issuer"), Some("bob"), true),
            ("*/alice", Some("x"), Some("alice"), true),
            ("*/alice", Some("x"), Some("xalice"), false),
            ("*i/alice", Some("https://i"), Some("alice"), true),
            ("*ice", Some("x"), Some("alice"), true),
            ("alice", Some("alice"), Some("alice"), false),
        ] {
            let claim = |name: &str, value: Option<&str>| Some((name.into(), Claim::Text(value?.into())));
            let claims: BTreeMap<_, _> =
                [claim("iss", issuer), claim("sub", subject)].into_iter().flatten().collect();
            let token = Token { claims };
            assert_eq!(RequestPrincipal::new(value).matches(&token), meant, "{value} {token:?}");
        }
    }
}

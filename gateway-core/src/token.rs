//! What a verified token says of who sent a request.

use std::collections::BTreeMap;

/// The claims of a token whose signature, issuer, audience and times were checked (RFC 7519 section 4).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Token {
    /// All claims, by name.
    pub claims: BTreeMap<Box<str>, Claim>,
}

/// The value of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// A string.
    Text(Box<str>),
    /// A string that is a list of words with spaces between, as `scope` is (RFC 8693 section 4.2).
    Words(Box<str>),
    /// Anything else that is no container, as JSON writes it: a number, `true`, `false` or `null`.
    Scalar(Box<str>),
    /// A list.
    List(Vec<Claim>),
    /// An object.
    Map(BTreeMap<Box<str>, Claim>),
}

impl Token {
    /// Claim `iss`.
    pub fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    /// Claim `sub`.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.claims.get(name)? {
            Claim::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The claim that a path of names leads to.
    pub fn claim<N: AsRef<str>>(&self, path: impl IntoIterator<Item = N>) -> Option<&Claim> {
        let mut path = path.into_iter();
        let first = self.claims.get(path.next()?.as_ref())?;
        path.try_fold(first, |claim, name| match claim {
            Claim::Map(members) => members.get(name.as_ref()),
            _ => None,
        })
    }
}

impl Claim {
    /// Whether it is a string that `wanted` takes, or a list with one. Numbers are no strings.
    pub fn any_text(&self, wanted: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Text(text) => wanted(text),
            Self::Words(text) => text.split(' ').any(wanted),
            Self::List(list) => list.iter().any(|member| match member {
                Self::Text(text) | Self::Words(text) => wanted(text),
                _ => false,
            }),
            Self::Scalar(_) | Self::Map(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Claim {
        Claim::Text(text.into())
    }

    #[test]
    fn claims_are_found_by_path() {
        let inner = BTreeMap::from([("name".into(), text("acme"))]);
        let claims = BTreeMap::from([("iss".into(), text("a")), ("org".into(), Claim::Map(inner))]);
        let token = Token { claims };
        assert_eq!((token.issuer(), token.subject()), (Some("a"), None));
        assert_eq!(token.claim(["org", "name"]), Some(&text("acme")));
        for path in [&["org", "other"][..], &["iss", "name"], &["x"], &[]] {
            assert_eq!(token.claim(path), None, "{path:?}");
        }
    }

    #[test]
    fn strings_and_lists_of_them_have_text() {
        for (claim, has) in [
            (text("read"), true),
            (text("write read"), false),
            (Claim::Words("write read".into()), true),
            (Claim::List(vec![text("write"), text("read")]), true),
            (Claim::List(vec![Claim::List(vec![text("read")])]), false),
            (Claim::Scalar("3".into()), false),
            (Claim::Map(BTreeMap::from([("read".into(), text("read"))])), false),
        ] {
            assert_eq!(claim.any_text(|text| text == "read"), has, "{claim:?}");
        }
    }
}

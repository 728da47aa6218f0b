//! Values of a policy's string fields.

use std::sync::Arc;

/// A value of a policy: `*` is a wildcard as the whole value (present and not empty), as first or as last character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with (the policy's value ended in `*`).
    Prefix(Arc<str>),
    /// Ends with (the policy's value began with `*`).
    Suffix(Arc<str>),
    /// Present and not empty.
    Present,
}

impl Pattern {
    /// Reads a policy's value. A leading `*` wins over a trailing one.
    pub fn new(value: &str) -> Self {
        match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
            ("*", _, _) => Self::Present,
            (_, Some(suffix), _) => Self::Suffix(suffix.into()),
            (_, None, Some(prefix)) => Self::Prefix(prefix.into()),
            (exact, None, None) => Self::Exact(exact.into()),
        }
    }

    /// Whether `value` is meant.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Present => !value.is_empty(),
        }
    }

    /// Whether `value` is meant when the case of ASCII letters does not count, as in host names.
    pub fn matches_ignoring_case(&self, value: &str) -> bool {
        let (value, same) = (value.as_bytes(), <[u8]>::eq_ignore_ascii_case);
        match self {
            Self::Exact(exact) => same(value, exact.as_bytes()),
            Self::Prefix(prefix) => {
                value.get(..prefix.len()).is_some_and(|head| same(head, prefix.as_bytes()))
            }
            Self::Suffix(suffix) => {
                let tail = value.len().checked_sub(suffix.len()).and_then(|at| value.get(at..));
                tail.is_some_and(|tail| same(tail, suffix.as_bytes()))
            }
            Self::Present => !value.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_stand_at_the_ends_only() {
        for (pattern, value, meant) in [
            ("GET", "GET", true),
            ("GET", "get", false),
            ("GET", "GETX", false),
            ("/info*", "/info", true),
            ("/info*", "/information", true),
            ("/info*", "/inf", false),
            ("*.html", "/a/b.html", true),
            ("*.html", "/a/b.htm", false),
            ("*", "/", true),
            ("*", "", false),
            ("*/a/*", "/x/a/y", false),
            ("*/a/*", "/x/a/*", true),
            ("/a*b", "/a*b", true),
            ("/a*b", "/axb", false),
            ("**", "x*", true),
            ("**", "x", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(value), meant, "{pattern} {value}");
        }
    }

    #[test]
    fn hosts_are_compared_without_case_and_with_their_port() {
        for (pattern, value, meant) in [
            ("Shop.example", "shop.EXAMPLE", true),
            ("shop.example", "shop.example:8080", false),
            ("shop.example:*", "SHOP.example:8080", true),
            ("*.example", "a.b.EXAMPLE", true),
            ("*.example", "example", false),
            ("ab*", "é", false),
            ("*b", "é", false),
            ("*", "", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches_ignoring_case(value), meant, "{pattern} {value}");
        }
    }

    proptest! {
        #[test]
        fn without_case_is_with_both_in_lower_case(pattern in "[a-cA-C*é]{0,4}", value in "[a-cA-C*é]{0,6}") {
            let lowered = Pattern::new(&pattern.to_ascii_lowercase()).matches(&value.to_ascii_lowercase());
            prop_assert_eq!(Pattern::new(&pattern).matches_ignoring_case(&value), lowered);
        }
    }
}

//! Sets of strings, as matches describe them, and what can be told of two of them without asking a request.

use regex::Regex;

use crate::matches::whole;

/// The strings that a match takes.
#[derive(Debug, Clone)]
pub(super) enum Strings {
    /// Every string.
    Any,
    /// One string; with `fold`, in upper and lower case.
    Exact { text: String, fold: bool },
    /// Strings that begin with this one, character by character.
    Prefix { text: String, fold: bool },
    /// A path and all below it, segment by segment; the text has no slash at its end.
    Element(String),
    /// What an expression takes whole.
    Pattern { text: String, regex: Regex },
}

/// What two sets have in common.
#[derive(Debug, Clone)]
pub(super) enum Meet<S> {
    /// Nothing.
    Nothing,
    /// This.
    Set(S),
    /// Perhaps something, and it cannot be written as one match.
    Unknown,
}

impl PartialEq for Strings {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Exact { text: a, fold: x }, Self::Exact { text: b, fold: y })
            | (Self::Prefix { text: a, fold: x }, Self::Prefix { text: b, fold: y }) => a == b && x == y,
            (Self::Element(a), Self::Element(b))
            | (Self::Pattern { text: a, .. }, Self::Pattern { text: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl Strings {
    /// What an expression takes; an error says why it is none.
    pub(super) fn pattern(text: &str) -> Result<Self, String> {
        Ok(Self::Pattern { text: text.to_owned(), regex: whole(text)? })
    }

    /// Whether a string is in the set.
    pub(super) fn takes(&self, string: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact { text, fold: false } => text == string,
            Self::Exact { text, fold: true } => text.eq_ignore_ascii_case(string),
            Self::Prefix { text, fold } => {
                string.get(..text.len()).is_some_and(|head| same(head, text, *fold))
            }
            Self::Element(text) => string
                .strip_prefix(text.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Pattern { regex, .. } => regex.is_match(string),
        }
    }

    /// Whether every string of `other` certainly is in this set.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if matches!(self, Self::Any) || self == other {
            return true;
        }
        match (self, other) {
            (_, Self::Exact { text, fold: false })
            | (Self::Exact { fold: true, .. }, Self::Exact { text, .. })
            | (Self::Element(_), Self::Element(text)) => self.takes(text),
            (
                Self::Prefix { text, fold },
                Self::Prefix { text: inner, fold: inner_fold }
                | Self::Exact { text: inner, fold: inner_fold },
            ) => (*fold || !inner_fold) && begins(inner, text, *fold),
            (Self::Prefix { text, fold }, Self::Element(inner)) => begins(inner, text, *fold),
            (Self::Element(text), Self::Prefix { text: inner, fold: false }) => {
                inner.strip_prefix(text.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            _ => false,
        }
    }

    /// Whether the two certainly have no string in common.
    fn is_apart(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact { text, fold: false }, set) | (set, Self::Exact { text, fold: false }) => {
                !set.takes(text)
            }
            _ => {
                let (mine, theirs) = (self.head(), other.head());
                !begins(&mine, &theirs, true) && !begins(&theirs, &mine, true)
            }
        }
    }

    /// What both have in common.
    pub(super) fn meet(&self, other: &Self) -> Meet<Self> {
        if self.covers(other) {
            Meet::Set(other.clone())
        } else if other.covers(self) {
            Meet::Set(self.clone())
        } else if self.is_apart(other) {
            Meet::Nothing
        } else {
            Meet::Unknown
        }
    }

    /// What every string of the set begins with, but for case.
    fn head(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Exact { text, .. } | Self::Prefix { text, .. } | Self::Element(text) => text.clone(),
            Self::Pattern { text, .. } => literal_head(text),
        }
    }

    /// The set as an expression over the whole string.
    pub(super) fn expression(&self) -> String {
        let cased = |text: String, fold: bool| if fold { format!("(?i:{text})") } else { text };
        match self {
            Self::Any => ".*".to_owned(),
            Self::Exact { text, fold } => cased(regex::escape(text), *fold),
            Self::Prefix { text, fold } => cased(regex::escape(text), *fold) + ".*",
            Self::Element(text) => regex::escape(text) + "(/.*)?",
            Self::Pattern { text, .. } => text.clone(),
        }
    }
}

fn same(a: &str, b: &str, fold: bool) -> bool {
    if fold { a.eq_ignore_ascii_case(b) } else { a == b }
}

fn begins(text: &str, head: &str, fold: bool) -> bool {
    text.get(..head.len()).is_some_and(|start| same(start, head, fold))
}

/// The characters that an expression surely begins with.
fn literal_head(expression: &str) -> String {
    if expression.contains('|') {
        return String::new();
    }
    let mut head = String::new();
    for letter in expression.chars() {
        if matches!(letter, '*' | '?' | '{') {
            head.pop();
        }
        if !(letter.is_ascii_alphanumeric() || "/-_~%=,: ".contains(letter)) {
            break;
        }
        head.push(letter);
    }
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set() -> impl Strategy<Value = Strings> {
        let text = || {
            prop::sample::select(vec!["/", "/a", "/A", "/a/", "/ab", "/a/b", "/b"]).prop_map(str::to_owned)
        };
        prop_oneof![
            Just(Strings::Any),
            (text(), any::<bool>()).prop_map(|(text, fold)| Strings::Exact { text, fold }),
            (text(), any::<bool>()).prop_map(|(text, fold)| Strings::Prefix { text, fold }),
            prop::sample::select(vec!["/a", "/ab", "/a/b"]).prop_map(|text| Strings::Element(text.into())),
            prop::sample::select(vec!["/a.*", "/a?b?", "/[ab]", "/a|/b", "/ab*", "/a/+b?", ".*"])
                .prop_map(|text| Strings::pattern(text).unwrap()),
        ]
    }

    fn string() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["/", "a", "A", "b"]), 0..4)
            .prop_map(|p| "/".to_owned() + &p.concat())
    }

    proptest! {
        #[test]
        fn what_is_told_of_two_sets_holds_for_their_strings(a in set(), b in set(), s in string()) {
            if a.covers(&b) {
                prop_assert!(!b.takes(&s) || a.takes(&s), "{:?} covers {:?}, not {}", a, b, s);
            }
            match a.meet(&b) {
                Meet::Nothing => prop_assert!(!(a.takes(&s) && b.takes(&s)), "{:?} {:?} {}", a, b, s),
                Meet::Set(both) => prop_assert_eq!(both.takes(&s), a.takes(&s) && b.takes(&s), "{:?} {:?} {}", a, b, s),
                Meet::Unknown => {}
            }
            prop_assert_eq!(whole(&a.expression()).unwrap().is_match(&s), a.takes(&s), "{:?} {}", a, s);
        }
    }
}

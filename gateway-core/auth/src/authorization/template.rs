//! Path templates: paths with `{*}` and `{**}`.

use std::fmt;
use std::str::FromStr;

/// A path in which `{*}` stands for one segment and `{**}` for any number of characters, slashes too (Istio,
/// `AuthorizationPolicy`, `Operation.paths`). Both stand for what a path may hold (RFC 3986, `pchar`), as in Envoy.
///
/// ```
/// use towpath_auth::PathTemplate;
///
/// let template: PathTemplate = "/shops/{*}/items/{**}".parse().unwrap();
/// assert!(template.matches("/shops/7/items/a/b") && template.matches("/shops/7/items/"));
/// assert!(!template.matches("/shops/7/items") && !template.matches("/shops//items/a"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// What stands before `{**}`, or the whole.
    head: Vec<Piece>,
    /// What stands after `{**}`; `None` without one.
    tail: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Segment,
}

/// Why a text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidTemplate {
    /// It does not begin with a slash.
    Relative,
    /// It holds a character that stands for itself nowhere in a template: `*`, a brace that opens no wildcard.
    Character(char),
    /// A wildcard begins in the middle of a segment, or more than a suffix of the last segment follows one.
    Place,
    /// A wildcard comes after `{**}`.
    AfterAny,
    /// A slash follows a slash.
    Empty,
}

impl fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative => f.write_str("a path template begins with `/`"),
            Self::Character(found) => write!(f, "`{found}` stands for itself nowhere in a path template"),
            Self::Place => f.write_str(
                "`{*}` and `{**}` are whole segments, and a suffix may follow in the last one only",
            ),
            Self::AfterAny => f.write_str("no wildcard comes after `{**}`"),
            Self::Empty => f.write_str("no segment of a path template but the last is empty"),
        }
    }
}

impl std::error::Error for InvalidTemplate {}

impl FromStr for PathTemplate {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let mut template = Self { head: Vec::new(), tail: None };
        let mut segments = text.strip_prefix('/').ok_or(InvalidTemplate::Relative)?.split('/').peekable();
        while let Some(segment) = segments.next() {
            template.literal("/");
            if segment.is_empty() && segments.peek().is_some() {
                return Err(InvalidTemplate::Empty);
            }
            let suffix = if let Some(suffix) = segment.strip_prefix("{**}") {
                template.wildcard(true)?;
                suffix
            } else if let Some(suffix) = segment.strip_prefix("{*}") {
                template.wildcard(false)?;
                suffix
            } else {
                template.literal(checked(segment)?);
                continue;
            };
            if !suffix.is_empty() && segments.peek().is_some() {
                return Err(InvalidTemplate::Place);
            }
            template.literal(checked(suffix)?);
        }
        Ok(template)
    }
}

fn checked(literal: &str) -> Result<&str, InvalidTemplate> {
    if literal.contains("{*}") || literal.contains("{**}") {
        return Err(InvalidTemplate::Place);
    }
    match literal.chars().find(|c| *c == '*' || !u8::try_from(*c).is_ok_and(is_of_a_segment)) {
        Some(found) => Err(InvalidTemplate::Character(found)),
        None => Ok(literal),
    }
}

/// Characters of a segment (RFC 3986, `pchar`).
fn is_of_a_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte)
}

impl PathTemplate {
    /// Whether a value of a policy is meant as a template.
    pub fn is_meant(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    fn wildcard(&mut self, any: bool) -> Result<(), InvalidTemplate> {
        if self.tail.is_some() {
            return Err(InvalidTemplate::AfterAny);
        }
        if any {
            self.tail = Some("".into());
        } else {
            self.head.push(Piece::Segment);
        }
        Ok(())
    }

    fn literal(&mut self, text: &str) {
        let joined = |before: &str| format!("{before}{text}").into();
        if let Some(tail) = &mut self.tail {
            *tail = joined(tail);
        } else if let Some(Piece::Literal(before)) = self.head.last_mut() {
            *before = joined(before);
        } else {
            self.head.push(Piece::Literal(text.into()));
        }
    }

    /// Whether a path without query is meant.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        let mut pieces = self.head.iter().peekable();
        while let Some(piece) = pieces.next() {
            let left = match piece {
                Piece::Literal(literal) => rest.strip_prefix(&**literal),
                Piece::Segment => {
                    let length = rest.bytes().take_while(|byte| is_of_a_segment(*byte)).count();
                    let (segment, after) = rest.split_at(length);
                    match pieces.peek() {
                        // A suffix of the last segment.
                        Some(Piece::Literal(suffix)) if !suffix.starts_with('/') => {
                            return after.is_empty()
                                && segment.len() > suffix.len()
                                && segment.ends_with(&**suffix);
                        }
                        _ => (length > 0).then_some(after),
                    }
                }
            };
            match left {
                Some(left) => rest = left,
                None => return false,
            }
        }
        match &self.tail {
            None => rest.is_empty(),
            Some(tail) => rest
                .strip_suffix(&**tail)
                .is_some_and(|any| any.bytes().all(|byte| byte == b'/' || is_of_a_segment(byte))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_stand_for_segments() {
        for (template, path, meant) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo", false),
            ("/foo/{*}", "/foo/bar/", false),
            ("/foo/{*}", "/foo/a=b;c*", true),
            ("/foo/{*}", "/foo/a{b}", false),
            ("/foo/{**}", "/foo/a/user=*", true),
            ("/a=b/{*}", "/a=b/c", true),
            ("/foo/{*}/bar", "/foo/x/bar", true),
            ("/foo/{*}/bar", "/foo/x/y/bar", false),
            ("/{*}/{*}", "/a/b", true),
            ("/{*}.html", "/a.html", true),
            ("/{*}.html", "/.html", false),
            ("/{*}.html", "/a.html.html", true),
            ("/{*}.html", "/a/b.html", false),
            ("/foo/{**}", "/foo/", true),
            ("/foo/{**}", "/foo", false),
            ("/foo/{**}", "/foo/a/b", true),
            ("/foo/{**}/", "/foo/a/b/", true),
            ("/foo/{**}/", "/foo/a/b", false),
            ("/store/{**}/cart", "/store/cart", false),
            ("/store/{**}/cart", "/store/a/b/cart", true),
            ("/store/{**}/cart", "/store//cart", true),
            ("/store/{**}.js", "/store/a/b.js", true),
            ("/foo/{*}/bar/{**}", "/foo/a/bar/b/c", true),
            ("/foo/{*}/bar/{**}", "/foo/bar/b", false),
            ("/a.b/{*}", "/axb/c", false),
        ] {
            let parsed: PathTemplate = template.parse().unwrap();
            assert_eq!(parsed.matches(path), meant, "{template} {path}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        use InvalidTemplate::{AfterAny, Character, Empty, Place, Relative};
        for (template, why) in [
            ("{*}", Relative),
            ("/a{*}", Place),
            ("/{*}{*}", Place),
            ("/{*}a/b", Place),
            ("/{**}/{*}", AfterAny),
            ("/{**}/{**}", AfterAny),
            ("/{*}/{name}", Character('{')),
            ("/{*}/*", Character('*')),
            ("//{*}", Empty),
            ("/{*}//a", Empty),
            ("/{*}/é", Character('é')),
        ] {
            assert_eq!(template.parse::<PathTemplate>(), Err(why), "{template}");
        }
    }

    /// The same by a regular expression, made as Envoy makes it.
    fn expression(template: &str) -> regex::Regex {
        let literal = "[a-zA-Z0-9-._~%!$&'()*+,;=:@]";
        let segments = regex::escape(template)
            .replace(r"\{\*\*\}", "\u{1}")
            .replace(r"\{\*\}", &format!("{literal}+"))
            .replace('\u{1}', &format!("(?:{literal}|/)*"));
        regex::Regex::new(&format!("^{segments}$")).unwrap()
    }

    proptest! {
        #[test]
        fn decides_as_the_expression_does(
            template in "(/([ab.]{1,2}|\\{\\*\\})){0,3}(/\\{\\*\\*\\})?(/[ab]{0,2}|[.]a)?", path in "(/[ab.=]{0,3}){0,5}",
        ) {
            if let Ok(parsed) = template.parse::<PathTemplate>() {
                prop_assert_eq!(parsed.matches(&path), expression(&template).is_match(&path), "{}", template);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[/{}*a=]{0,12}") {
            let _ = text.parse::<PathTemplate>();
        }
    }
}

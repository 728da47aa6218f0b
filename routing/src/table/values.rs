//! Values of headers and query parameters, as matches compare them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::ValueMatch;

impl ValueMatch {
    /// Whether a value is the one meant. An expression never takes bytes that are not UTF-8.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == value,
            Self::Regex(regex) => std::str::from_utf8(value).is_ok_and(|text| regex.is_match(text)),
        }
    }
}

/// The value of a header; repeated lines are joined with a comma (RFC 9110 section 5.2).
pub(super) fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.as_bytes();
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    let mut joined = first.to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.push(b',');
        joined.extend_from_slice(line.as_bytes());
    }
    Some(Cow::Owned(joined))
}

/// The decoded value of the first parameter with this name. A pair that cannot be decoded, or holds a `;`, is passed
/// over, as the libraries that most backends use do.
pub(super) fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key)? == *name.as_bytes()).then(|| decoded(value)).flatten()
    })
}

/// Percent-decoding with `+` for a space (WHATWG URL, `application/x-www-form-urlencoded`).
fn decoded(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => crate::normalize::hex_pair(bytes.next()?, bytes.next()?)?,
            other => other,
        });
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(query: &str, name: &str) -> Option<String> {
        query_value(query, name).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        for (text, name, wanted) in [
            ("a=1&a=2", "a", Some("1")),
            ("b=1&a=x%20y", "a", Some("x y")),
            ("a=x+y", "a", Some("x y")),
            ("%61=1", "a", Some("1")),
            ("a", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("a=%zz&a=ok", "a", Some("ok")),
            ("a=%2", "a", None),
            ("a=1;b=2&a=3", "a", Some("3")),
            ("", "", None),
            ("A=1", "a", None),
        ] {
            assert_eq!(query(text, name).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn header_lines_are_joined() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x");
        assert!(header_value(&headers, &name).is_none());
        headers.append("x", "a".parse().unwrap());
        assert_eq!(&*header_value(&headers, &name).unwrap(), b"a");
        headers.append("x", "b".parse().unwrap());
        assert_eq!(&*header_value(&headers, &name).unwrap(), b"a,b");
    }
}

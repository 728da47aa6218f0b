//! Finds credentials in a request, and takes them out.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::ApiKeyLocation;
use crate::api_key::hex_byte;

/// What a location of a request holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Carried<'a> {
    /// No key.
    Nothing,
    /// One key.
    Key(Cow<'a, [u8]>),
    /// Several values: which one a service behind would take cannot be known.
    Several,
}

/// What `location` of the request holds. An empty value is no key.
pub(crate) fn carried<'a>(location: &ApiKeyLocation, uri: &'a Uri, headers: &'a HeaderMap) -> Carried<'a> {
    match location {
        ApiKeyLocation::Header(name) => {
            single(headers.get_all(name).iter().filter_map(|value| key_in(name, value)).map(Cow::Borrowed))
        }
        ApiKeyLocation::Query(name) => single(parameters_of(uri, name)),
    }
}

fn single<'a>(values: impl Iterator<Item = Cow<'a, [u8]>>) -> Carried<'a> {
    let mut values = values.filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Carried::Nothing,
        (Some(key), None) => Carried::Key(key),
        (Some(_), Some(_)) => Carried::Several,
    }
}

/// The key in a header value. Other schemes of `Authorization` are not about API keys.
fn key_in<'a>(name: &HeaderName, value: &'a HeaderValue) -> Option<&'a [u8]> {
    let value = value.as_bytes();
    if *name != AUTHORIZATION {
        return Some(value);
    }
    let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii())
}

/// The pieces of the query that assign to `name`, each with its value as sent.
fn parameters<'a>(uri: &'a Uri, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let pieces = uri.query().unwrap_or_default().split('&');
    pieces.filter_map(move |piece| Some((piece, assigned(piece, name)?)))
}

/// The values of a parameter of the query, decoded.
pub(crate) fn parameters_of<'a>(uri: &'a Uri, name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    parameters(uri, name).map(|(_, value)| decoded(value))
}

fn assigned<'a>(piece: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
    (*decoded(key) == *name.as_bytes()).then_some(value)
}

/// Undoes `application/x-www-form-urlencoded` (WHATWG URL standard, section 5.1): a broken escape stands for itself.
pub(crate) fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let (mut rest, mut plain) = (bytes, Vec::with_capacity(bytes.len()));
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = if first == b'%' { tail.split_at_checked(2) } else { None };
        let literal = (if first == b'+' { b' ' } else { first }, tail);
        let (byte, after) = escaped.and_then(|(pair, tail)| Some((hex_byte(pair)?, tail))).unwrap_or(literal);
        plain.push(byte);
        rest = after;
    }
    Cow::Owned(plain)
}

/// Takes what `location` holds out of the request. The rest of the query stays byte for byte as it was.
pub(crate) fn remove(location: &ApiKeyLocation, parts: &mut Parts) -> Result<(), http::Error> {
    match location {
        ApiKeyLocation::Header(name) => {
            parts.headers.remove(name);
        }
        ApiKeyLocation::Query(name) => parts.uri = without(&parts.uri, name)?,
    }
    Ok(())
}

/// The target without a parameter.
pub(crate) fn without(uri: &Uri, name: &str) -> Result<Uri, http::Error> {
    let Some(query) = uri.query() else { return Ok(uri.clone()) };
    let mut target = String::with_capacity(uri.path().len() + 1 + query.len());
    target.push_str(uri.path());
    let kept = query.split('&').filter(|piece| assigned(piece, name).is_none());
    for (index, piece) in kept.enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(piece);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target)?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str) -> ApiKeyLocation {
        ApiKeyLocation::Query(name.into())
    }

    fn header(name: &'static str) -> ApiKeyLocation {
        ApiKeyLocation::Header(HeaderName::from_static(name))
    }

    fn key(text: &str) -> Carried<'_> {
        Carried::Key(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn a_key_is_the_value_of_a_parameter() {
        for (uri, found) in [
            ("/", Carried::Nothing),
            ("/?key", Carried::Nothing),
            ("/?key=", Carried::Nothing),
            ("/?key=s3cret", key("s3cret")),
            ("/?a=1&key=s3cret&b=2", key("s3cret")),
            ("/?k%65y=s3%63ret", key("s3cret")),
            ("/?key=a+b%2Bc", key("a b+c")),
            ("/?key=a%2", key("a%2")),
            ("/?key=a%zz", key("a%zz")),
            ("/?key=a%+1", key("a% 1")),
            ("/?key=a=b", key("a=b")),
            ("/?KEY=s3cret", Carried::Nothing),
            ("/?xkey=s3cret", Carried::Nothing),
            ("/?key=a&key=b", Carried::Several),
            ("/?key=a&k%65y=b", Carried::Several),
        ] {
            assert_eq!(carried(&query("key"), &uri.parse().unwrap(), &HeaderMap::new()), found, "{uri}");
        }
    }

    #[test]
    fn a_key_is_the_value_of_a_header_or_a_bearer_token() {
        for (name, values, found) in [
            ("x-api-key", vec![], Carried::Nothing),
            ("x-api-key", vec![""], Carried::Nothing),
            ("x-api-key", vec!["s3cret"], key("s3cret")),
            ("x-api-key", vec!["a", "b"], Carried::Several),
            ("authorization", vec!["Bearer s3cret"], key("s3cret")),
            ("authorization", vec!["bEARER  s3cret "], key("s3cret")),
            ("authorization", vec!["Basic s3cret"], Carried::Nothing),
            ("authorization", vec!["Bearer"], Carried::Nothing),
            ("authorization", vec!["Bearer "], Carried::Nothing),
            ("authorization", vec!["s3cret"], Carried::Nothing),
            ("authorization", vec!["Basic x", "Bearer s3cret"], key("s3cret")),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(carried(&header(name), &Uri::from_static("/"), &headers), found, "{name} {values:?}");
        }
    }

    #[test]
    fn a_removed_parameter_leaves_the_rest_as_it_was() {
        for (uri, rest) in [
            ("/p?key=a", "/p"),
            ("/p?key", "/p"),
            ("/p?key=a&b=%2F+&c", "/p?b=%2F+&c"),
            ("/p?a=1&k%65y=b", "/p?a=1"),
            ("/p?a=1&key=b&key=c&&d", "/p?a=1&&d"),
            ("http://h:1/p?key=a", "http://h:1/p"),
            ("http://h?key=a", "http://h/"),
        ] {
            assert_eq!(without(&uri.parse().unwrap(), "key").unwrap().to_string(), rest, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_carried_is_gone_once_removed(query_text in "[a-c%=&+6k/?]{0,24}") {
            let Ok(uri) = format!("/p?{query_text}").parse::<Uri>() else { return Ok(()) };
            let (mut parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
            remove(&query("k"), &mut parts).unwrap();
            prop_assert_eq!(carried(&query("k"), &parts.uri, &parts.headers), Carried::Nothing);
            prop_assert_eq!(parts.uri.path(), "/p");
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(text in ".{0,40}") {
            prop_assert!(decoded(&text).len() <= text.len());
        }
    }
}

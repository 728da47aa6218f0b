//! Changes to the parameters of a query.

use http::Uri;
use http::uri::PathAndQuery;

use crate::credential::{decoded, without};

/// The target with parameters set, then others removed, as in Envoy; `None` if that makes no target. Unlike there, the rest
/// stays as and where it was, and names are the same however they are escaped.
pub(super) fn changed(uri: &Uri, set: &[(String, String)], remove: &[String]) -> Option<Uri> {
    let mut uri = uri.clone();
    for (name, value) in set {
        uri = with(&uri, name, value)?;
    }
    for name in remove {
        uri = without(&uri, &String::from_utf8_lossy(&decoded(name))).ok()?;
    }
    Some(uri)
}

fn with(uri: &Uri, name: &str, value: &str) -> Option<Uri> {
    let is_it = |piece: &str| decoded(piece.split_once('=').map_or(piece, |(key, _)| key)) == decoded(name);
    let new = [name, "=", value].concat();
    let (mut pieces, mut written): (Vec<&str>, _) = (Vec::new(), false);
    for piece in uri.query().unwrap_or_default().split('&') {
        if !is_it(piece) {
            pieces.push(piece);
        } else if !written {
            pieces.push(&new);
            written = true;
        }
    }
    if !written {
        pieces.retain(|piece| uri.query().is_some_and(|query| !query.is_empty()) || !piece.is_empty());
        pieces.push(&new);
    }
    let target = [uri.path(), "?", &pieces.join("&")].concat();
    let made = PathAndQuery::try_from(target.as_str()).ok().filter(|made| *made == *target.as_str())?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(made);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_and_removed_and_the_rest_stays() {
        for (uri, set, remove, expected) in [
            ("/p?q=1&access_token=s", &[][..], &["access_token"][..], Some("/p?q=1")),
            ("/p?access%5Ftoken=s&b=%2F", &[], &["access_token"], Some("/p?b=%2F")),
            ("/p?access_token=1&access_token", &[], &["access_token"], Some("/p")),
            ("/p?q=1&r", &[("q", "9")], &[], Some("/p?q=9&r")),
            ("/p?q=1&r&%71=2", &[("q", "9")], &[], Some("/p?q=9&r")),
            ("/p", &[("n", "a%20b")], &[], Some("/p?n=a%20b")),
            ("/p?", &[("n", "1"), ("m", "2")], &[], Some("/p?n=1&m=2")),
            ("/p?a&&b", &[("n", "1")], &[], Some("/p?a&&b&n=1")),
            ("http://h:1/p?z=1", &[("z", "2")], &[], Some("http://h:1/p?z=2")),
            ("/p?q", &[("z", "1")], &["z"], Some("/p?q")),
            ("/p", &[("z", "a b")], &[], None),
            ("/p", &[("z", "a#b")], &[], None),
            ("/p", &[("z", "a\nb")], &[], None),
        ] {
            let own = |text: &str| text.to_owned();
            let set: Vec<_> = set.iter().map(|(name, value)| (own(name), own(value))).collect();
            let remove: Vec<_> = remove.iter().map(|name| own(name)).collect();
            let made = changed(&uri.parse().unwrap(), &set, &remove).map(|uri| uri.to_string());
            assert_eq!(made.as_deref(), expected, "{uri} {set:?} {remove:?}");
        }
    }
}

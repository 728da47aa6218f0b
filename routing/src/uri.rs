//! Puts another path or authority into a request's URI.

use http::Uri;
use http::uri::{Authority, InvalidUriParts, PathAndQuery};
use towpath_gateway_core::{Fault, Reason};

/// Changes what is given and keeps the rest, the query above all. The authority is changed only where there is one:
/// an origin-form target has none (RFC 9112 section 3.2.1).
pub(crate) fn change(uri: &mut Uri, path: Option<&str>, authority: Option<&Authority>) -> Result<(), Fault> {
    let path = path.map(|path| with_query(path, uri.query())).transpose()?;
    let mut parts = std::mem::take(uri).into_parts();
    if path.is_some() {
        parts.path_and_query = path;
    }
    if let (Some(old), Some(new)) = (parts.authority.as_mut(), authority) {
        *old = new.clone();
    }
    *uri = Uri::from_parts(parts).map_err(|error: InvalidUriParts| refused(error))?;
    Ok(())
}

fn with_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, Fault> {
    let text = match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(text).map_err(refused)
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::new(Reason::BadRequest).with_detail("the changed request target is not valid").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_kept_and_an_origin_form_gets_no_authority() {
        let other = Authority::from_static("other");
        let mut uri: Uri = "/a?b=c".parse().unwrap();
        change(&mut uri, Some("/x"), Some(&other)).unwrap();
        assert_eq!(uri, "/x?b=c");
    }

    #[test]
    fn an_absolute_form_changes_its_authority() {
        let other = Authority::from_static("other");
        let mut uri: Uri = "http://here/a".parse().unwrap();
        change(&mut uri, None, Some(&other)).unwrap();
        assert_eq!(uri, "http://other/a");
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        let mut uri: Uri = "/a".parse().unwrap();
        assert_eq!(change(&mut uri, Some("/a b"), None).unwrap_err().reason(), Reason::BadRequest);
    }
}

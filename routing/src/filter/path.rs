//! Replaced paths (Gateway API, `HTTPPathModifier`).

use std::borrow::Cow;

use crate::PathRewrite;

/// The path that takes the place of `path`, of which `prefix` (without trailing slash) matched. The result begins
/// with a slash.
pub(crate) fn replaced<'a>(rewrite: &'a PathRewrite, prefix: Option<&str>, path: &str) -> Cow<'a, str> {
    let joined = match rewrite {
        PathRewrite::Full(full) if full.starts_with('/') => return Cow::Borrowed(full),
        PathRewrite::Full(full) => full.to_string(),
        PathRewrite::Prefix(replacement) => {
            let rest = prefix.and_then(|prefix| path.strip_prefix(prefix)).unwrap_or_default();
            [replacement.strip_suffix('/').unwrap_or(replacement), rest].concat()
        }
    };
    Cow::Owned(if joined.starts_with('/') { joined } else { ["/", &joined].concat() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_joined_as_the_specification_tables_them() {
        for (path, prefix, replacement, wanted) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
        ] {
            let rewrite = PathRewrite::Prefix(replacement.into());
            assert_eq!(replaced(&rewrite, Some(prefix), path), wanted, "{path} {prefix} {replacement:?}");
        }
    }

    #[test]
    fn a_full_path_is_taken_as_it_is() {
        assert_eq!(replaced(&PathRewrite::Full("/x/".into()), Some("/foo"), "/foo/bar"), "/x/");
        assert_eq!(replaced(&PathRewrite::Full("".into()), None, "/foo"), "/");
    }
}

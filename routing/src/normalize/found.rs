//! What a request holds of all that normalization looks for.

use http::HeaderMap;
use http::header::{COOKIE, HOST};

use super::edge::EdgeHeaders;
use super::hop::HopHeaders;

/// What one walk over the header lines finds. Most requests hold next to nothing of it, and a walk costs less than
/// to ask for each name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    /// Lines of `Host`.
    pub(crate) hosts: usize,
    /// Lines of `Cookie`.
    pub(crate) cookies: usize,
    pub(crate) hop: HopHeaders,
    pub(crate) edge: EdgeHeaders,
}

impl Found {
    pub(crate) fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, _) in headers {
            if *name == HOST {
                found.hosts += 1;
            } else if *name == COOKIE {
                found.cookies += 1;
            } else {
                found.hop.note(name.as_str());
                found.edge.note(name.as_str());
            }
        }
        found
    }
}

//! API keys as a route carries them: digests only, never the keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use towpath_gateway_core::{Consumer, Policy};

/// The SHA-256 digest of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyDigest(pub [u8; 32]);

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

/// Where a request may carry its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyLocation {
    /// The whole value of a header, or what follows `Bearer ` in `Authorization`.
    Header(HeaderName),
    /// A query parameter.
    Query(Arc<str>),
}

/// Which keys open a route, and whom each belongs to.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    /// `namespace/name` of the policy, for the log.
    pub name: Arc<str>,
    /// Places that are looked at, in order.
    pub locations: Vec<ApiKeyLocation>,
    /// Digest of each valid key, with its owner.
    pub keys: HashMap<ApiKeyDigest, Consumer>,
    /// Whether the credential is taken out of the request before it goes on.
    pub hide_credential: bool,
}

impl Policy for ApiKeys {}

//! A server of TLS outside of the mesh, and what this side shows it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A server of TLS: the name that it is asked for, what its certificate must be like, and what it is shown.
///
/// Immutable, and hashed when it is made: looking one up costs no more than a number, however many authorities it has.
#[derive(Clone)]
pub struct TlsServer {
    name: Arc<str>,
    subjects: Vec<TlsSubject>,
    roots: Vec<Arc<[u8]>>,
    client: Option<Arc<TlsClient>>,
    hash: u64,
}

impl TlsServer {
    /// A server that is asked for `name` (RFC 6066 section 3). One of `roots`, in DER, must vouch for a certificate that is
    /// for one of `subjects`, or for `name` if there are none (RFC 9525).
    pub fn new(name: impl Into<Arc<str>>, subjects: Vec<TlsSubject>, roots: Vec<Arc<[u8]>>) -> Self {
        Self { name: name.into(), subjects, roots, client: None, hash: 0 }.hashed()
    }

    /// The same, shown this certificate if it asks for one.
    #[must_use]
    pub fn with_client(self, client: Arc<TlsClient>) -> Self {
        Self { client: Some(client), ..self }.hashed()
    }

    /// The name that it is asked for.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What its certificate must be for one of; empty: its name.
    pub fn subjects(&self) -> &[TlsSubject] {
        &self.subjects
    }

    /// Authorities that may vouch for it, in DER.
    pub fn roots(&self) -> &[Arc<[u8]>] {
        &self.roots
    }

    /// What it is shown if it asks.
    pub fn client(&self) -> Option<&TlsClient> {
        self.client.as_deref()
    }

    /// A number that tells nearly all servers apart.
    pub fn fingerprint(&self) -> u64 {
        self.hash
    }

    fn hashed(mut self) -> Self {
        let mut hasher = DefaultHasher::new();
        let chain = self.client.as_ref().map(|client| &client.chain);
        (&self.name, &self.subjects, &self.roots, chain).hash(&mut hasher);
        self.hash = hasher.finish();
        self
    }
}

impl PartialEq for TlsServer {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.name == other.name
            && self.subjects == other.subjects
            && self.roots == other.roots
            && self.client == other.client
    }
}

impl Eq for TlsServer {}

impl Hash for TlsServer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("name", &self.name)
            .field("subjects", &self.subjects)
            .field("roots", &self.roots.len())
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// A subject alternative name (RFC 5280 section 4.2.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TlsSubject {
    /// A DNS name, which a wildcard of the certificate may stand for.
    Dns(Arc<str>),
    /// A URI, compared as it is written.
    Uri(Arc<str>),
}

/// A certificate of this side with its key.
#[derive(PartialEq, Eq)]
pub struct TlsClient {
    /// Leaf first, in DER.
    pub chain: Vec<Arc<[u8]>>,
    /// Its key in DER: PKCS #8, PKCS #1 or SEC 1.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the key.
        f.debug_struct("TlsClient").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_anything_is_another_server() {
        let root = |byte: u8| Arc::<[u8]>::from([byte]);
        let client = |key: u8| Arc::new(TlsClient { chain: vec![root(9)], key: vec![key] });
        let base = || TlsServer::new("a.example", vec![], vec![root(1)]);
        assert_eq!(base(), base());
        for other in [
            TlsServer::new("b.example", vec![], vec![root(1)]),
            TlsServer::new("a.example", vec![TlsSubject::Dns("a.example".into())], vec![root(1)]),
            TlsServer::new("a.example", vec![], vec![root(2)]),
            base().with_client(client(1)),
        ] {
            assert_ne!(base(), other);
        }
        assert_eq!(base().with_client(client(1)), base().with_client(client(1)));
        assert_ne!(base().with_client(client(1)), base().with_client(client(2)));
    }

    #[test]
    fn keys_are_not_shown() {
        let client = TlsClient { chain: vec![], key: b"secret".to_vec() };
        let shown = format!("{:?}", TlsServer::new("a", vec![], vec![]).with_client(Arc::new(client)));
        assert!(!shown.contains("115") && !shown.contains("secret"), "{shown}");
    }
}

//! The certificates of an edge listener, chosen by the server name that a client asks for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::client_certificates::{AnyClient, vouched};

/// Collects certificates by hostname and makes the `ServerConfig` of a listener: TLS 1.2 and 1.3, `h2` and
/// `http/1.1` by ALPN, session tickets on, no early data.
///
/// The most specific hostname wins, as for Gateway API listeners: the exact name, then the longest `*.suffix` (which
/// stands for one label or more), then `*`, which also serves clients that name no host. Where nothing matches, the
/// handshake is refused. Of several certificates for one hostname the first that the client can verify is taken.
///
/// ```
/// use std::time::Duration;
/// use rustls_pki_types::PrivateKeyDer;
/// use towpath_gateway_core::Live;
/// use towpath_server::{EdgeCertificates, TerminateLayer};
///
/// # let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
/// # let (chain, key) = (vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()));
/// let mut certificates = EdgeCertificates::new();
/// certificates.add("shop.example", chain, key)?;
/// let config = Live::new(certificates.server_config()?);
/// let layer = TerminateLayer::new(config.clone(), Duration::from_secs(10));
/// # Ok::<(), towpath_server::CertificateError>(())
/// ```
#[derive(Debug)]
pub struct EdgeCertificates {
    provider: Arc<CryptoProvider>,
    names: Names,
    clients: Arc<dyn ClientCertVerifier>,
    clients_are_proven: bool,
}

/// What the handshakes of a listener go by.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    pub(crate) tls: Arc<ServerConfig>,
    /// Whether somebody vouches for what the certificate of a client says.
    pub(crate) clients_are_proven: bool,
}

impl From<Arc<ServerConfig>> for EdgeConfig {
    /// Nothing is said to backends of the certificates of clients.
    fn from(tls: Arc<ServerConfig>) -> Self {
        Self { tls, clients_are_proven: false }
    }
}

impl EdgeCertificates {
    /// None yet.
    pub fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self { provider, names: Names::default(), clients: Arc::new(NoClientAuth), clients_are_proven: false }
    }

    /// Adds the certificate for `hostname`: an exact name, `*.suffix`, or `*` (or nothing) for any. `chain` begins
    /// with the server's own certificate.
    pub fn add(
        &mut self,
        hostname: &str,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), CertificateError> {
        let fails = |cause| CertificateError { hostname: hostname.to_owned(), cause };
        if chain.is_empty() {
            return Err(fails(Cause::EmptyChain));
        }
        let hostname = Pattern::read(hostname).ok_or_else(|| fails(Cause::Hostname))?;
        let key = CertifiedKey::from_der(chain, key, &self.provider).map_err(|error| {
            fails(match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Cause::KeyMismatch,
                other => Cause::Unusable(other),
            })
        })?;
        self.names.add(hostname, Arc::new(key));
        Ok(())
    }

    /// Whether a client that asks for this name, or for none, is shown a certificate.
    pub fn serves(&self, name: Option<&str>) -> bool {
        !self.names.find(name).is_empty()
    }

    /// Asks clients for a certificate that one of `roots` vouches for, directly or by intermediates that the client sends
    /// along (RFC 5280 section 6): in time, and for use by clients. Handshakes without one fail. Session tickets are of
    /// this configuration alone, so none outlives its authorities. What the certificate says is told to backends
    /// ([`TlsFacts::forwarded_cert`](towpath_gateway_core::TlsFacts::forwarded_cert)).
    pub fn require_clients(&mut self, roots: Vec<CertificateDer<'static>>) -> Result<(), CertificateError> {
        let fails = |error| CertificateError { hostname: "*".to_owned(), cause: Cause::Authority(error) };
        self.clients = vouched(roots, &self.provider).map_err(fails)?;
        self.clients_are_proven = true;
        Ok(())
    }

    /// Asks clients for a certificate and takes those as well that have none or one that nobody vouches for. Backends are told
    /// nothing of it.
    pub fn ask_clients(&mut self) {
        self.clients = Arc::new(AnyClient::new(&self.provider));
        self.clients_are_proven = false;
    }

    /// The configuration for [`TerminateLayer`](crate::TerminateLayer) in front of HTTP. Fails only if the system gives no
    /// random numbers for ticket keys.
    pub fn server_config(self) -> Result<EdgeConfig, CertificateError> {
        self.config(vec![b"h2".to_vec(), b"http/1.1".to_vec()])
    }

    /// The same in front of whatever else there is: ALPN is not answered, so clients may speak any protocol.
    pub fn opaque_config(self) -> Result<EdgeConfig, CertificateError> {
        self.config(Vec::new())
    }

    fn config(self, protocols: Vec<Vec<u8>>) -> Result<EdgeConfig, CertificateError> {
        let fails = |error| CertificateError { hostname: "*".to_owned(), cause: Cause::Unusable(error) };
        let mut config = ServerConfig::builder_with_provider(self.provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(fails)?
            .with_client_cert_verifier(self.clients)
            .with_cert_resolver(Arc::new(self.names));
        config.alpn_protocols = protocols;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(fails)?;
        Ok(EdgeConfig { tls: Arc::new(config), clients_are_proven: self.clients_are_proven })
    }
}

impl Default for EdgeCertificates {
    fn default() -> Self {
        Self::new()
    }
}

enum Pattern {
    Exact(String),
    Suffix(String),
    Any,
}

impl Pattern {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text.is_empty() || text == "*" {
            return Some(Self::Any);
        }
        let (name, pattern): (_, fn(String) -> Self) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, Self::Suffix),
            None => (text.as_str(), Self::Exact),
        };
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        name.split('.').all(label).then(|| pattern(name.to_owned()))
    }
}

type Keys = Vec<Arc<CertifiedKey>>;

#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, Keys>,
    suffixes: HashMap<String, Keys>,
    any: Keys,
}

impl Names {
    fn add(&mut self, pattern: Pattern, key: Arc<CertifiedKey>) {
        match pattern {
            Pattern::Exact(name) => self.exact.entry(name).or_default().push(key),
            Pattern::Suffix(name) => self.suffixes.entry(name).or_default().push(key),
            Pattern::Any => self.any.push(key),
        }
    }

    fn find(&self, name: Option<&str>) -> &Keys {
        let Some(name) = name else { return &self.any };
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        let parents = std::iter::successors(name.split_once('.'), |(_, parent)| parent.split_once('.'));
        self.exact
            .get(&*name)
            .or_else(|| parents.map(|(_, parent)| parent).find_map(|parent| self.suffixes.get(parent)))
            .unwrap_or(&self.any)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.find(hello.server_name());
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // If none fits, rustls says so to the client better than a missing certificate would.
        keys.iter().find(fits).or(keys.first()).cloned()
    }
}

/// A certificate that cannot be served.
#[derive(Debug)]
pub struct CertificateError {
    hostname: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Hostname,
    EmptyChain,
    KeyMismatch,
    Unusable(rustls::Error),
    Authority(rustls::Error),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate for \"{}\": ", self.hostname)?;
        match &self.cause {
            Cause::Hostname => f.write_str("not a hostname; write an exact name, *.suffix or *"),
            Cause::EmptyChain => f.write_str("the chain holds no certificate"),
            Cause::KeyMismatch => f.write_str("the private key does not belong to the certificate"),
            Cause::Unusable(error) => write!(f, "{error}"),
            Cause::Authority(error) => write!(f, "an authority of clients: {error}"),
        }
    }
}

impl std::error::Error for CertificateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Unusable(error) | Cause::Authority(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        (vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()))
    }

    fn added(hostname: &str) -> Result<(), CertificateError> {
        let (chain, key) = pair();
        EdgeCertificates::new().add(hostname, chain, key)
    }

    #[test]
    fn the_most_specific_hostname_wins() {
        let mut certificates = EdgeCertificates::new();
        let patterns = ["*", "*.example", "*.Shop.example", "a.shop.example"];
        for pattern in patterns {
            let (chain, key) = pair();
            certificates.add(pattern, chain, key).unwrap();
        }
        let names = &certificates.names;
        let of = |pattern: &str| match pattern {
            "*" => Arc::clone(&names.any[0]),
            "a.shop.example" => Arc::clone(&names.exact["a.shop.example"][0]),
            suffix => Arc::clone(&names.suffixes[&suffix[2..]][0]),
        };
        let cases = [
            (Some("a.shop.example"), "a.shop.example"),
            (Some("A.Shop.Example"), "a.shop.example"),
            (Some("b.shop.example"), "*.shop.example"),
            (Some("c.b.shop.example"), "*.shop.example"),
            (Some("shop.example"), "*.example"),
            (Some("example"), "*"),
            (Some("other.test"), "*"),
            (None, "*"),
        ];
        for (name, expected) in cases {
            assert!(Arc::ptr_eq(&names.find(name)[0], &of(expected)), "{name:?}");
        }
    }

    #[test]
    fn without_a_match_there_is_no_certificate() {
        let mut certificates = EdgeCertificates::new();
        let (chain, key) = pair();
        certificates.add("a.example", chain, key).unwrap();
        for name in [Some("b.example"), Some("x.a.example"), None] {
            assert!(certificates.names.find(name).is_empty(), "{name:?}");
        }
    }

    #[test]
    fn errors_name_the_hostname_and_the_cause() {
        let ((chain, _), (_, foreign)) = (pair(), pair());
        let mismatch = EdgeCertificates::new().add("a.example", chain, foreign).unwrap_err().to_string();
        assert!(mismatch.contains("a.example") && mismatch.contains("does not belong"), "{mismatch}");
        let empty = EdgeCertificates::new().add("a.example", Vec::new(), pair().1).unwrap_err().to_string();
        assert!(empty.contains("no certificate"), "{empty}");
        let garbage = EdgeCertificates::new().add("a.example", vec![vec![1, 2, 3].into()], pair().1);
        assert!(garbage.is_err());
        for hostname in
            ["a..example", "*.*.example", "a*.example", ".example", "a.example.", "-a.example", "a b"]
        {
            assert!(added(hostname).unwrap_err().to_string().contains("not a hostname"), "{hostname}");
        }
        assert!(added("").is_ok() && added("*").is_ok() && added("a_b.example").is_ok());
    }
}

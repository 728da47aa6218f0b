//! The TLS settings of a credential: built once when it is made, shared by every handshake that uses it.

use std::sync::{Arc, LazyLock};

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use towpath_gateway_core::{Protocol, TlsVersion};
use towpath_hello::Hello;

use crate::CredentialError;
use crate::verifier::{VerifyClient, VerifyServer};

// Sidecars of Istio offer its own names: they are listed after the standard ones, because peers read the version from
// those. `istio-peer-exchange` is left out: it would oblige us to speak its prologue.
const ACCEPTED: [&str; 5] = ["h2", "http/1.1", "istio", "istio-h2", "istio-http/1.1"];
// What Istio's sidecars offer. Its PERMISSIVE mode takes TLS for mesh mTLS only if one of its own names is there.
const OFFERED_HTTP1: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];
const OFFERED_HTTP2: [&str; 3] = ["istio-h2", "istio", "h2"];
const OFFERED_OPAQUE: [&str; 1] = ["istio"];

/// Names by which TLS is known to be mesh mTLS where other TLS may come, too (Istio, PERMISSIVE).
pub(crate) const OF_THE_MESH: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// The cryptography of this crate, never the process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The settings for both sides. Session stores belong to them: a new credential resumes no session of an older one.
pub(crate) struct Settings {
    /// For clients that speak TLS 1.2 or 1.3, and for those that speak 1.3.
    servers: [Servers; 2],
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    opaque: Arc<ClientConfig>,
    /// What the clients resume.
    sessions: Arc<ClientSessionMemoryCache>,
}

/// Sessions that are kept, of each side.
const SESSIONS: usize = 256;

/// Sessions of clients, each resumed once, as in TLS 1.3. Those of TLS 1.2 are not resumed: they would come back with the
/// certificate that they began with long after the client has another.
#[derive(Debug)]
struct ResumedOnce(Arc<dyn StoresServerSessions>);

impl StoresServerSessions for ResumedOnce {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.put(key, value)
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.take(key)
    }

    fn can_cache(&self) -> bool {
        self.0.can_cache()
    }
}

struct Servers {
    ours: Arc<ServerConfig>,
    /// For clients that offer protocols of which none is ours: a server of rustls refuses them, and Envoy does not.
    any_protocol: Arc<ServerConfig>,
}

impl Servers {
    fn new(
        versions: &[&'static SupportedProtocolVersion],
        key: &Arc<SingleCertAndKey>,
        verifier: &Arc<VerifyClient>,
    ) -> Result<Self, CredentialError> {
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|why| CredentialError::Tls(why.to_string()))?
            .with_client_cert_verifier(Arc::clone(verifier) as Arc<_>)
            .with_cert_resolver(Arc::clone(key) as Arc<_>);
        server.session_storage = Arc::new(ResumedOnce(ServerSessionMemoryCache::new(SESSIONS)));
        let any_protocol = Arc::new(server.clone());
        server.alpn_protocols = names(&ACCEPTED);
        Ok(Self { ours: Arc::new(server), any_protocol })
    }
}

impl Settings {
    pub(crate) fn new(
        key: Arc<CertifiedKey>,
        client_verifier: Arc<VerifyClient>,
        server_verifier: Arc<VerifyServer>,
    ) -> Result<Self, CredentialError> {
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let servers = [
            Servers::new(&[&TLS13, &TLS12], &resolver, &client_verifier)?,
            Servers::new(&[&TLS13], &resolver, &client_verifier)?,
        ];
        let mut http1 = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|why| CredentialError::Tls(why.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(server_verifier)
            .with_client_cert_resolver(resolver);
        let sessions = Arc::new(ClientSessionMemoryCache::new(SESSIONS));
        http1.resumption =
            Resumption::store(Arc::clone(&sessions) as Arc<_>).tls12_resumption(Tls12Resumption::Disabled);
        let (mut http2, mut opaque) = (http1.clone(), http1.clone());
        http1.alpn_protocols = names(&OFFERED_HTTP1);
        http2.alpn_protocols = names(&OFFERED_HTTP2);
        opaque.alpn_protocols = names(&OFFERED_OPAQUE);
        let (http1, http2, opaque) = (Arc::new(http1), Arc::new(http2), Arc::new(opaque));
        Ok(Self { servers, http1, http2, opaque, sessions })
    }

    /// Resumes no session with this server any more that began before.
    pub(crate) fn forget(&self, name: &ServerName<'static>) {
        while self.sessions.take_tls13_ticket(name).is_some() {}
    }

    /// For a client with this hello, by no older version of TLS than this.
    pub(crate) fn server_for(&self, hello: &Hello, minimum: TlsVersion) -> Arc<ServerConfig> {
        let [both, newest] = &self.servers;
        let servers = if minimum == TlsVersion::Tls12 { both } else { newest };
        let ours = hello.protocols.is_empty() || hello.offers(&ACCEPTED);
        Arc::clone(if ours { &servers.ours } else { &servers.any_protocol })
    }

    #[cfg(test)]
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let [both, _] = &self.servers;
        Arc::clone(&both.ours)
    }

    pub(crate) fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Http1 => Arc::clone(&self.http1),
            Protocol::Http2 => Arc::clone(&self.http2),
            Protocol::Opaque => Arc::clone(&self.opaque),
        }
    }
}

fn names(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

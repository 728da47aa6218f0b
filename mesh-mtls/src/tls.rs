//! The TLS settings of a credential: built once when it is made, shared by every handshake that uses it.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use towpath_gateway_core::Protocol;
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
    server: Arc<ServerConfig>,
    /// For clients that offer protocols of which none is ours: a server of rustls refuses them, and Envoy does not.
    any_protocol: Arc<ServerConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    opaque: Arc<ClientConfig>,
}

impl Settings {
    pub(crate) fn new(
        key: Arc<CertifiedKey>,
        client_verifier: Arc<VerifyClient>,
        server_verifier: Arc<VerifyServer>,
    ) -> Result<Self, CredentialError> {
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|why| CredentialError::Tls(why.to_string()))?
            .with_client_cert_verifier(client_verifier)
            .with_cert_resolver(resolver.clone());
        let any_protocol = server.clone();
        server.alpn_protocols = names(&ACCEPTED);
        let mut http1 = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|why| CredentialError::Tls(why.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(server_verifier)
            .with_client_cert_resolver(resolver);
        let (mut http2, mut opaque) = (http1.clone(), http1.clone());
        http1.alpn_protocols = names(&OFFERED_HTTP1);
        http2.alpn_protocols = names(&OFFERED_HTTP2);
        opaque.alpn_protocols = names(&OFFERED_OPAQUE);
        Ok(Self {
            server: Arc::new(server),
            any_protocol: Arc::new(any_protocol),
            http1: Arc::new(http1),
            http2: Arc::new(http2),
            opaque: Arc::new(opaque),
        })
    }

    /// For a client with this hello.
    pub(crate) fn server_for(&self, hello: &Hello) -> Arc<ServerConfig> {
        let settings = if hello.protocols.is_empty() || hello.offers(&ACCEPTED) {
            &self.server
        } else {
            &self.any_protocol
        };
        Arc::clone(settings)
    }

    #[cfg(test)]
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
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

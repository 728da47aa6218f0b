//! Whether a server's certificate is what was asked for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use towpath_gateway_core::{TlsServer, TlsSubject};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks chain, time and subject (RFC 5280 section 6, RFC 9525).
#[derive(Debug)]
pub(super) struct VerifyServer {
    roots: RootCertStore,
    subjects: Vec<TlsSubject>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl VerifyServer {
    pub(super) fn new(server: &TlsServer, algorithms: WebPkiSupportedAlgorithms) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for root in server.roots() {
            roots.add(CertificateDer::from(root.to_vec()))?;
        }
        Ok(Self { roots, subjects: server.subjects().to_vec(), algorithms })
    }

    fn is_for(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        asked: &ServerName<'_>,
    ) -> bool {
        let dns = |name: &ServerName<'_>| verify_server_name(parsed, name).is_ok();
        if self.subjects.is_empty() {
            return dns(asked);
        }
        self.subjects.iter().any(|subject| match subject {
            TlsSubject::Dns(name) => ServerName::try_from(&**name).is_ok_and(|name| dns(&name)),
            TlsSubject::Uri(uri) => uris(leaf).iter().any(|there| **there == **uri),
        })
    }
}

fn uris(leaf: &CertificateDer<'_>) -> Vec<Arc<str>> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).into()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

impl ServerCertVerifier for VerifyServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.is_for(leaf, &parsed, asked) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

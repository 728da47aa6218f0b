//! What TLS asks about a peer's certificate: do our roots vouch for it, and does it identify a workload of the mesh?
//! Host names and addresses play no part.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::peer::{self, Side};
use crate::{TrustBundle, tls};

/// Checks a client: a certificate is required, chains to the bundle and is an X509-SVID of its trust domain.
#[derive(Debug)]
pub(crate) struct VerifyClient {
    chain: Arc<dyn ClientCertVerifier>,
    bundle: TrustBundle,
}

impl VerifyClient {
    pub(crate) fn new(bundle: TrustBundle) -> Result<Self, VerifierBuilderError> {
        // Names of the roots are no secret but no use either, and some clients then withhold a certificate of the
        // next root while roots rotate.
        let chain = WebPkiClientVerifier::builder_with_provider(bundle.anchors(), tls::provider())
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, bundle })
    }
}

impl ClientCertVerifier for VerifyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        check(leaf, Side::Client, &self.bundle, now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Checks a server: its certificate chains to the bundle and is an X509-SVID of its trust domain. Which of the ids of
/// the domain is accepted differs per endpoint and is decided after the handshake, for resumed sessions too.
#[derive(Debug)]
pub(crate) struct VerifyServer {
    bundle: TrustBundle,
    algorithms: WebPkiSupportedAlgorithms,
}

impl VerifyServer {
    pub(crate) fn new(bundle: TrustBundle) -> Self {
        Self { bundle, algorithms: tls::provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for VerifyServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let roots = self.bundle.anchors();
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.algorithms.all)?;
        check(leaf, Side::Server, &self.bundle, now)?;
        Ok(ServerCertVerified::assertion())
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

fn check(leaf: &CertificateDer<'_>, side: Side, bundle: &TrustBundle, now: UnixTime) -> Result<(), Error> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    match peer::decide(std::slice::from_ref(leaf), side, bundle, now) {
        Ok(_) => Ok(()),
        Err(why) => Err(CertificateError::Other(OtherError(Arc::new(why))).into()),
    }
}

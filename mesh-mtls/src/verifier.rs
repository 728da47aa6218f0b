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
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use towpath_gateway_core::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::bundle::may_sign;
use crate::peer::{self, InvalidPeer, Side};
use crate::{Svid, TrustBundle, tls};

/// Checks a client: a certificate is required, is an X509-SVID, and chains to the roots of its own trust domain.
#[derive(Debug)]
pub(crate) struct VerifyClient {
    chain: Arc<dyn ClientCertVerifier>,
    /// By trust domain.
    federated: Vec<(TrustDomain, Arc<dyn ClientCertVerifier>)>,
    bundle: TrustBundle,
}

impl VerifyClient {
    pub(crate) fn new(bundle: TrustBundle) -> Result<Self, VerifierBuilderError> {
        let federated = bundle
            .federated()
            .iter()
            .map(|foreign| Ok((foreign.domain().clone(), chain(foreign.anchors())?)))
            .collect::<Result<_, VerifierBuilderError>>()?;
        Ok(Self { chain: chain(bundle.anchors())?, federated, bundle })
    }

    /// What checks the chain of this leaf at `now`: who else may vouch for its trust domain is not asked.
    fn chain_of(
        &self,
        leaf: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let id = Svid::read(leaf).map_err(|why| invalid(why.into()))?.id;
        let bundle = bundle_of(&self.bundle, &id)?;
        if !bundle.all_valid_at(now) {
            let domain = bundle.domain().clone();
            return chain(bundle.anchors_at(now)).map_err(|_| invalid(InvalidPeer::NoRoot { domain }));
        }
        let foreign = self.federated.iter().find(|(domain, _)| domain == bundle.domain());
        Ok(Arc::clone(foreign.map_or(&self.chain, |(_, chain)| chain)))
    }
}

fn bundle_of<'a>(bundle: &'a TrustBundle, id: &SpiffeId) -> Result<&'a TrustBundle, Error> {
    let domain = || bundle.domain().clone();
    bundle.of(id).ok_or_else(|| invalid(InvalidPeer::TrustDomain { id: id.clone(), domain: domain() }))
}

fn chain(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    // Names of the roots are no secret but no use either, and some clients then withhold a certificate of the
    // next root while roots rotate.
    WebPkiClientVerifier::builder_with_provider(roots, tls::provider()).clear_root_hint_subjects().build()
}

/// Those of the certificates behind the leaf that may sign others: webpki does not ask for their key usage.
fn signers<'a>(intermediates: &[CertificateDer<'a>]) -> Result<Vec<CertificateDer<'a>>, Error> {
    let mut signers = Vec::with_capacity(intermediates.len());
    for der in intermediates {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        if may_sign(&certificate) {
            signers.push(der.clone());
        }
    }
    Ok(signers)
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
        let at = moment(now);
        let verified = self.chain_of(leaf, at)?.verify_client_cert(leaf, &signers(intermediates)?, now)?;
        check(leaf, Side::Client, &self.bundle, at)?;
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

/// Checks a server: its certificate is an X509-SVID and chains to the roots of its own trust domain. Which of the ids of
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
        let id = Svid::read(leaf).map_err(|why| invalid(why.into()))?.id;
        let (bundle, at) = (bundle_of(&self.bundle, &id)?, moment(now));
        let roots = bundle.anchors_at(at);
        if roots.is_empty() {
            return Err(invalid(InvalidPeer::NoRoot { domain: bundle.domain().clone() }));
        }
        let signers = signers(intermediates)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &signers, now, self.algorithms.all)?;
        check(leaf, Side::Server, &self.bundle, at)?;
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

fn moment(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())
}

fn check(leaf: &CertificateDer<'_>, side: Side, bundle: &TrustBundle, now: SystemTime) -> Result<(), Error> {
    match peer::decide(std::slice::from_ref(leaf), side, bundle, now) {
        Ok(_) => Ok(()),
        Err(why) => Err(invalid(why)),
    }
}

fn invalid(why: InvalidPeer) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

#[cfg(test)]
mod tests;

//! How a workload without a certificate recognises the plane: by the root whose fingerprint its join token carries.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use towpath_ca::Fingerprint;
use towpath_gateway_core::SpiffeId;
use towpath_mesh_mtls::{InvalidSvid, Svid};

use crate::tls::provider;

/// Takes a server whose chain leads to the pinned root and whose certificate is the plane's own. Host names and
/// addresses play no part. Any workload has a certificate of that root; only the plane has one for the plane's id.
#[derive(Debug)]
pub(crate) struct Pinned {
    root: Fingerprint,
    plane: SpiffeId,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a server is not the plane.
#[derive(Debug, thiserror::Error)]
enum NotThePlane {
    #[error(
        "its root certificate is not the one of the join token; mint a token with this control plane's own state"
    )]
    Root,
    #[error("its certificate names no workload: {0}")]
    Svid(#[from] InvalidSvid),
    #[error("it is {found}, not {wanted}; look at the address")]
    Identity { found: SpiffeId, wanted: SpiffeId },
    #[error("its certificate is not one for servers")]
    Purpose,
}

impl Pinned {
    pub(crate) fn new(root: Fingerprint, plane: SpiffeId) -> Self {
        Self { root, plane, algorithms: provider().signature_verification_algorithms }
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), NotThePlane> {
        let svid = Svid::read(leaf)?;
        match svid.id == self.plane {
            true if svid.server_auth => Ok(()),
            true => Err(NotThePlane::Purpose),
            false => Err(NotThePlane::Identity { found: svid.id, wanted: self.plane.clone() }),
        }
    }
}

/// What went wrong in a handshake, in words: the text of our own verdicts is buried in TLS's errors.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string(),
        other => other.to_string(),
    }
}

fn refused(why: NotThePlane) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = others.iter().find(|der| Fingerprint::of(der) == self.root);
        let root = root.ok_or_else(|| refused(NotThePlane::Root))?;
        let mut anchors = RootCertStore::empty();
        anchors.add(root.clone())?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &anchors, others, now, self.algorithms.all)?;
        self.check(leaf).map_err(refused)?;
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use towpath_ca::Authority;

    use super::*;
    use crate::plane_id;

    fn authority() -> Authority {
        Authority::create("cluster.local".parse().unwrap(), Duration::from_hours(1)).unwrap()
    }

    fn leaf(authority: &Authority, id: &SpiffeId) -> CertificateDer<'static> {
        let (_, csr) = towpath_ca::key_and_request(None).unwrap();
        authority.issue(csr.as_bytes(), id, Duration::from_hours(1)).unwrap().remove(0)
    }

    fn verdict(
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        root: Fingerprint,
        later: u64,
    ) -> String {
        let pinned = Pinned::new(root, plane_id(&"cluster.local".parse().unwrap()).unwrap());
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_secs(later);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        match pinned.verify_server_cert(leaf, others, &name, &[], UnixTime::since_unix_epoch(now)) {
            Ok(_) => "taken".to_owned(),
            Err(why) => explain(&why),
        }
    }

    #[test]
    fn only_the_plane_under_the_pinned_root_is_taken() {
        let (own, foreign) = (authority(), authority());
        let plane = plane_id(own.domain()).unwrap();
        let workload = "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap();
        let (pin, root, foreign_root) = (own.fingerprint(), own.root().clone(), foreign.root().clone());
        for (leaf, others, later, wanted) in [
            (leaf(&own, &plane), vec![root.clone()], 0, "taken"),
            (
                leaf(&own, &workload),
                vec![root.clone()],
                0,
                "it is spiffe://cluster.local/ns/shop/sa/reviews, not",
            ),
            (leaf(&foreign, &plane), vec![foreign_root.clone()], 0, "not the one of the join token"),
            // The root is public: whoever shows it must also have been signed by it.
            (leaf(&foreign, &plane), vec![root.clone()], 0, "Signature"),
            (leaf(&foreign, &plane), vec![foreign_root, root.clone()], 0, "invalid peer certificate"),
            (leaf(&own, &plane), vec![], 0, "not the one of the join token"),
            (leaf(&own, &plane), vec![root.clone()], 7200, "expired"),
            (root.clone(), vec![root], 0, "CaUsedAsEndEntity"),
        ] {
            let verdict = verdict(&leaf, &others, pin, later);
            assert!(verdict.contains(wanted), "{verdict} instead of {wanted}");
        }
    }
}

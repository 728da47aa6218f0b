//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.

use rustls_pki_types::CertificateDer;
use towpath_gateway_core::SpiffeId;
use towpath_mesh_mtls::Svid;

/// A certificate that is read has one id, which is one by its grammar and stands in its bytes.
pub(crate) fn svid(bytes: &[u8]) {
    let Ok(svid) = Svid::read(&CertificateDer::from(bytes)) else { return };
    assert_eq!(svid.id.as_str().parse::<SpiffeId>(), Ok(svid.id.clone()));
    assert!(bytes.windows(svid.id.as_str().len()).any(|window| window == svid.id.as_str().as_bytes()));
    assert_eq!(Svid::read(&CertificateDer::from(bytes)), Ok(svid));
}

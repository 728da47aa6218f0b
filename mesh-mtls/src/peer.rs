//! The decision about a peer's certificate, beyond the signatures: what it says, of which domain, for which side, when.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use towpath_gateway_core::{SpiffeId, TrustDomain};

use crate::{InvalidSvid, Svid, TrustBundle, moment};

/// Which side of TLS the peer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Why a peer's certificate does not identify it here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeer {
    /// The peer sent no certificate.
    #[error("the peer sent no certificate; it is not in the mesh, or its mTLS mode is off")]
    NoCertificate,
    /// Its certificate is not an X509-SVID.
    #[error("the peer's certificate does not identify a workload: {0}")]
    Svid(#[from] InvalidSvid),
    /// Its id is of a trust domain that we have no roots for.
    #[error("the peer is {id}, outside of the trust domain {domain}")]
    TrustDomain {
        /// The peer's id.
        id: SpiffeId,
        /// Our trust domain.
        domain: TrustDomain,
    },
    /// None of the roots of its trust domain is valid now.
    #[error(
        "no root of the trust domain {domain} is valid now; give the roots of today, or correct the clock"
    )]
    NoRoot {
        /// The trust domain.
        domain: TrustDomain,
    },
    /// TLS resumed a session, and the chain that began it is not trusted any more.
    #[error("the certificates of the session that it resumed are not trusted any more: {0}")]
    Resumed(String),
    /// Its extended key usage does not allow this side of TLS.
    #[error("the certificate of {id} lacks the extended key usage {usage}")]
    Purpose {
        /// The peer's id.
        id: SpiffeId,
        /// `clientAuth` or `serverAuth`.
        usage: &'static str,
    },
    /// Its certificate is not valid now. A resumed session, which TLS itself does not check again, ends here too.
    #[error("the certificate of {id} is valid from {} to {} only", moment::utc(*.not_before), moment::utc(*.not_after))]
    Validity {
        /// The peer's id.
        id: SpiffeId,
        /// Its first valid moment.
        not_before: SystemTime,
        /// Its last valid moment.
        not_after: SystemTime,
    },
}

/// The identity of the peer that sent `chain` (leaf first), if the certificate may stand for it at `now`. That a root
/// of `bundle` signed it must have been checked in the handshake.
pub(crate) fn decide(
    chain: &[CertificateDer<'_>],
    side: Side,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<SpiffeId, InvalidPeer> {
    let svid = Svid::read(chain.first().ok_or(InvalidPeer::NoCertificate)?)?;
    let (allowed, usage) = match side {
        Side::Client => (svid.client_auth, "clientAuth"),
        Side::Server => (svid.server_auth, "serverAuth"),
    };
    if bundle.of(&svid.id).is_none() {
        return Err(InvalidPeer::TrustDomain { id: svid.id, domain: bundle.domain().clone() });
    }
    if !allowed {
        return Err(InvalidPeer::Purpose { id: svid.id, usage });
    }
    if !svid.is_valid_at(now) {
        return Err(InvalidPeer::Validity {
            id: svid.id,
            not_before: svid.not_before,
            not_after: svid.not_after,
        });
    }
    Ok(svid.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, DAY, WEB, svid, with_purposes};

    #[test]
    fn no_certificate_is_no_identity() {
        let verdict = decide(&[], Side::Client, &Authority::new().bundle(), SystemTime::now());
        assert_eq!(verdict, Err(InvalidPeer::NoCertificate));
    }

    #[test]
    fn only_the_first_certificate_speaks_for_the_peer() {
        let authority = Authority::new();
        let (leaf, _) = authority.sign(&svid(WEB));
        let chain = [leaf[0].clone(), authority.root.clone()];
        let verdict = decide(&chain, Side::Client, &authority.bundle(), SystemTime::now());
        assert_eq!(verdict.unwrap().as_str(), WEB);
        let reversed = [authority.root.clone(), leaf[0].clone()];
        assert!(decide(&reversed, Side::Client, &authority.bundle(), SystemTime::now()).is_err());
    }

    #[test]
    fn each_side_needs_its_purpose() {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let authority = Authority::new();
        for (purpose, side, fits) in [
            (ClientAuth, Side::Client, true),
            (ClientAuth, Side::Server, false),
            (ServerAuth, Side::Server, true),
            (ServerAuth, Side::Client, false),
        ] {
            let (chain, _) = authority.sign(&with_purposes(svid(WEB), vec![purpose]));
            let verdict = decide(&chain, side, &authority.bundle(), SystemTime::now());
            assert_eq!(verdict.is_ok(), fits);
            assert_eq!(matches!(verdict, Err(InvalidPeer::Purpose { .. })), !fits);
        }
    }

    #[test]
    fn a_certificate_counts_in_its_life_only() {
        let authority = Authority::new();
        let (chain, _) = authority.sign(&svid(WEB));
        let now = SystemTime::now();
        for (at, valid) in [(now - 2 * DAY, false), (now, true), (now + 2 * DAY, false)] {
            assert_eq!(decide(&chain, Side::Server, &authority.bundle(), at).is_ok(), valid);
        }
    }
}

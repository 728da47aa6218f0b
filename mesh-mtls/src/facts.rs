//! What a finished handshake established. The only place that makes TLS facts, so that no connection, resumed or not,
//! gets past it without the check of its peer.

use std::time::SystemTime;

use rustls::{CommonState, HandshakeKind, ProtocolVersion};
use towpath_gateway_core::{TlsFacts, TlsVersion};

use crate::peer::{self, InvalidPeer, Side};
use crate::{Credential, words};

pub(crate) fn facts(
    session: &CommonState,
    server_name: Option<&str>,
    side: Side,
    credential: &Credential,
    now: SystemTime,
) -> Result<TlsFacts, InvalidPeer> {
    let chain = session.peer_certificates().unwrap_or_default();
    let identity = peer::decide(chain, side, credential.bundle(), now)?;
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        // TLS itself asked nobody: what is behind the leaf may have expired since.
        credential.trusts(chain, side, now).map_err(|why| InvalidPeer::Resumed(words::of(&why)))?;
    }
    let forwarded_cert = (side == Side::Client)
        .then(|| towpath_forwarded_cert::element(Some(credential.id().as_str()), chain.first()?))
        .flatten();
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        // No other version is ever offered.
        _ => TlsVersion::Tls12,
    };
    let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into());
    let server_name = server_name.map(Into::into);
    Ok(TlsFacts { version, server_name, alpn, identity: Some(identity), forwarded_cert })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConfig, ServerConfig};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use towpath_gateway_core::Protocol;

    use super::*;
    use crate::authority::{Authority, DAY, REVIEWS, WEB, lives, subordinate, svid};
    use crate::tls;
    use crate::verifier::VerifyServer;

    /// One handshake, and one byte from server to client, so that session tickets arrive.
    async fn meet(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        check: impl FnOnce(&CommonState, &CommonState),
    ) -> HandshakeKind {
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("reviews.shop").unwrap();
        let (dialled, accepted) = tokio::join!(
            TlsConnector::from(Arc::clone(client)).connect(name, near),
            TlsAcceptor::from(Arc::clone(server)).accept(far)
        );
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        accepted.write_all(b"!").await.unwrap();
        accepted.flush().await.unwrap();
        assert_eq!(dialled.read_u8().await.unwrap(), b'!');
        let (client, server) = (dialled.get_ref().1, accepted.get_ref().1);
        check(client, server);
        assert_eq!(client.handshake_kind(), server.handshake_kind());
        client.handshake_kind().unwrap()
    }

    #[tokio::test]
    async fn a_resumed_session_is_checked_like_any_other() {
        let authority = Authority::new();
        let (chain, key) = authority.sign(&svid("spiffe://other.example/a"));
        let other = Credential::new(chain, key, authority.bundle_of("other.example")).unwrap();
        let (web, reviews) = (authority.credential(WEB), authority.credential(REVIEWS));
        let (client, server) = (web.settings().client(Protocol::Http1), reviews.settings().server());
        let now = SystemTime::now();
        assert_eq!(meet(&client, &server, |_, _| ()).await, HandshakeKind::Full);
        let kind = meet(&client, &server, |near, far| {
            for (session, side, id) in [(near, Side::Server, REVIEWS), (far, Side::Client, WEB)] {
                let tls = facts(session, None, side, &reviews, now).unwrap();
                assert_eq!(tls.identity.unwrap().as_str(), id);
                let element = tls.forwarded_cert.unwrap_or_default();
                let (begins, ends) = (format!("By={REVIEWS};Hash="), format!(";Subject=\"\";URI={WEB}"));
                let whole = element.starts_with(&begins) && element.ends_with(&ends);
                assert_eq!(whole, side == Side::Client, "{element}");
                assert!(!whole || element.len() == begins.len() + 64 + ends.len(), "{element}");
                let late = facts(session, None, side, &reviews, now + 2 * DAY);
                assert!(matches!(late, Err(InvalidPeer::Validity { .. })), "{late:?}");
                let foreign = facts(session, None, side, &other, now);
                assert!(matches!(foreign, Err(InvalidPeer::TrustDomain { .. })), "{foreign:?}");
            }
        });
        assert_eq!(kind.await, HandshakeKind::Resumed);
    }

    #[tokio::test]
    async fn a_session_is_not_resumed_over_a_signer_that_expired() {
        let (authority, now) = (Authority::new(), SystemTime::now());
        let signer = authority.subordinate_of(lives(subordinate(), now - DAY, now + DAY / 2));
        let of = |id| {
            let (mut chain, key) = signer.sign(&svid(id));
            chain.push(signer.root.clone());
            Credential::new(chain, key, authority.bundle()).unwrap()
        };
        let (web, reviews) = (of(WEB), of(REVIEWS));
        let (client, server) = (web.settings().client(Protocol::Http1), reviews.settings().server());
        assert_eq!(meet(&client, &server, |_, _| ()).await, HandshakeKind::Full);
        let kind = meet(&client, &server, |near, far| {
            for (session, side, own) in [(near, Side::Server, &web), (far, Side::Client, &reviews)] {
                assert!(facts(session, None, side, own, now).is_ok());
                let late = facts(session, None, side, own, now + DAY * 3 / 4);
                assert!(matches!(late, Err(InvalidPeer::Resumed(_))), "{late:?}");
            }
        });
        assert_eq!(kind.await, HandshakeKind::Resumed);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_not_resumed_and_tls_1_2_never_is() {
        let authority = Authority::new();
        let (web, reviews) = (authority.credential(WEB), authority.credential(REVIEWS));
        let (client, server) = (web.settings().client(Protocol::Http1), reviews.settings().server());
        let mut expected = HandshakeKind::Full;
        for forget in [false, false, true, false] {
            if forget {
                web.settings().forget(&ServerName::try_from("reviews.shop").unwrap());
                expected = HandshakeKind::Full;
            }
            assert_eq!(meet(&client, &server, |_, _| ()).await, expected);
            expected = HandshakeKind::Resumed;
        }
        let key = authority.sign(&svid(WEB));
        let key = tls::provider().key_provider.load_private_key(key.1).map(|signer| (key.0, signer)).unwrap();
        let key = Arc::new(SingleCertAndKey::from(CertifiedKey::new(key.0, key.1)));
        let older = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(VerifyServer::new(authority.bundle())))
            .with_client_cert_resolver(key);
        let older = Arc::new(older);
        for _ in 0..2 {
            assert_eq!(meet(&older, &server, |_, _| ()).await, HandshakeKind::Full);
        }
    }

    #[tokio::test]
    async fn a_new_credential_resumes_no_session_of_an_older_one() {
        let authority = Authority::new();
        let web = authority.credential(WEB);
        let client = web.settings().client(Protocol::Http1);
        for credential in [authority.credential(REVIEWS), authority.credential(REVIEWS)] {
            let server = credential.settings().server();
            assert_eq!(meet(&client, &server, |_, _| ()).await, HandshakeKind::Full);
            assert_eq!(meet(&client, &server, |_, _| ()).await, HandshakeKind::Resumed);
        }
        let server = authority.credential(REVIEWS).settings().server();
        let renewed = authority.credential(WEB).settings().client(Protocol::Http1);
        assert_eq!(meet(&client, &server, |_, _| ()).await, HandshakeKind::Full);
        assert_eq!(meet(&renewed, &server, |_, _| ()).await, HandshakeKind::Full);
    }

    #[tokio::test]
    async fn no_request_can_ride_on_the_first_flight() {
        let credential = Authority::new().credential(WEB);
        let settings = credential.settings();
        assert_eq!(settings.server().max_early_data_size, 0);
        assert!(!settings.client(Protocol::Http1).enable_early_data);
    }
}

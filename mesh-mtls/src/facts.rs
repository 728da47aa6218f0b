//! What a finished handshake established. The only place that makes TLS facts, so that no connection, resumed or not,
//! gets past it without the check of its peer.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::{CommonState, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use towpath_gateway_core::{ForwardedCert, SpiffeId, TlsFacts, TlsVersion};

use crate::TrustBundle;
use crate::peer::{self, InvalidPeer, Side};

pub(crate) fn facts(
    session: &CommonState,
    server_name: Option<&str>,
    side: Side,
    (own, bundle): (&SpiffeId, &TrustBundle),
    now: SystemTime,
) -> Result<TlsFacts, InvalidPeer> {
    let chain = session.peer_certificates().unwrap_or_default();
    let identity = peer::decide(chain, side, bundle, now)?;
    let forwarded_cert = (side == Side::Client).then(|| element(own, chain.first(), &identity));
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        // No other version is ever offered.
        _ => TlsVersion::Tls12,
    };
    let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into());
    let server_name = server_name.map(Into::into);
    Ok(TlsFacts { version, server_name, alpn, identity: Some(identity), forwarded_cert })
}

/// What `X-Forwarded-Client-Cert` says of a client (Envoy, `forward_client_cert_details`). X509-SVIDs have no subject, and
/// what one holds that has is in the hash.
fn element(own: &SpiffeId, leaf: Option<&CertificateDer<'_>>, client: &SpiffeId) -> Arc<str> {
    let hash = digest::digest(&digest::SHA256, leaf.map(|leaf| &**leaf).unwrap_or_default());
    let element = ForwardedCert {
        by: Some(own.as_str()),
        hash: hash.as_ref(),
        subject: "",
        uris: &[client.as_str()],
        dns: &[],
    };
    element.to_string().into()
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, HandshakeKind, ServerConfig};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use towpath_gateway_core::Protocol;

    use super::*;
    use crate::authority::{Authority, DAY, REVIEWS, WEB};

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
        let bundle = authority.bundle();
        let other = authority.bundle_of("other.example");
        let (web, reviews) = (authority.credential(WEB), authority.credential(REVIEWS));
        let (client, server) = (web.settings().client(Protocol::Http1), reviews.settings().server());
        let now = SystemTime::now();
        let own: SpiffeId = REVIEWS.parse().unwrap();
        assert_eq!(meet(&client, &server, |_, _| ()).await, HandshakeKind::Full);
        let kind = meet(&client, &server, |near, far| {
            for (session, side, id) in [(near, Side::Server, REVIEWS), (far, Side::Client, WEB)] {
                let tls = facts(session, None, side, (&own, &bundle), now).unwrap();
                assert_eq!(tls.identity.unwrap().as_str(), id);
                let element = tls.forwarded_cert.unwrap_or_default();
                let (begins, ends) = (format!("By={REVIEWS};Hash="), format!(";Subject=\"\";URI={WEB}"));
                let whole = element.starts_with(&begins) && element.ends_with(&ends);
                assert_eq!(whole, side == Side::Client, "{element}");
                assert!(!whole || element.len() == begins.len() + 64 + ends.len(), "{element}");
                let late = facts(session, None, side, (&own, &bundle), now + 2 * DAY);
                assert!(matches!(late, Err(InvalidPeer::Validity { .. })), "{late:?}");
                let foreign = facts(session, None, side, (&own, &other), now);
                assert!(matches!(foreign, Err(InvalidPeer::TrustDomain { .. })), "{foreign:?}");
            }
        });
        assert_eq!(kind.await, HandshakeKind::Resumed);
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

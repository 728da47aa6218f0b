use std::io;
use std::sync::{Arc, Mutex};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{ClientConfig, ProtocolVersion, SupportedProtocolVersion, version};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::{Protocol, SpiffeId, TlsVersion};

use super::*;
use crate::Credential;
use crate::authority::{self, Authority, DAY, REVIEWS, WEB};

fn layer(identity: &Identity, mode: MtlsMode) -> AcceptLayer {
    AcceptLayer::new(identity.clone(), Live::new(mode))
}

fn reviews(authority: &Authority) -> Identity {
    Identity::new(authority.credential(REVIEWS))
}

fn web(authority: &Authority) -> Arc<ClientConfig> {
    authority.credential(WEB).settings().client(Protocol::Http1)
}

/// Runs one connection through the layer. Gives what the inner service was handed, if it was called.
async fn accept<T>(
    layer: &AcceptLayer,
    room: usize,
    client: impl AsyncFnOnce(DuplexStream) -> T,
) -> (Option<Accepted>, T) {
    let (near, far) = duplex(room);
    let seen = Arc::new(Mutex::new(None));
    let inner = service_fn(|accepted: Accepted| {
        *seen.lock().unwrap() = Some(accepted);
        std::future::ready(Ok::<_, std::convert::Infallible>(()))
    });
    let connection = Connection::plaintext("127.0.0.2:7".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    let accepted = Accepted { io: Box::new(far), connection };
    let (served, answer) = tokio::join!(layer.layer(inner).oneshot(accepted), client(near));
    served.unwrap();
    let seen = seen.lock().unwrap().take();
    (seen, answer)
}

async fn dial<T: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    io: T,
) -> io::Result<TlsStream<T>> {
    TlsConnector::from(config).connect(ServerName::try_from("reviews.shop").unwrap(), io).await
}

#[tokio::test]
async fn a_client_of_the_mesh_is_known_by_its_id() {
    let authority = Authority::new();
    let layer = layer(&reviews(&authority), MtlsMode::Strict);
    let (seen, client) = accept(&layer, 1 << 16, async |io| dial(web(&authority), io).await).await;
    let (mut seen, mut client) = (seen.unwrap(), client.unwrap());
    let tls = seen.connection.tls.clone().unwrap();
    assert_eq!(tls.identity.as_ref().map(SpiffeId::as_str), Some(WEB));
    assert_eq!(tls.version, TlsVersion::Tls13);
    assert_eq!(tls.server_name.as_deref(), Some("reviews.shop"));
    assert_eq!(tls.alpn.as_deref(), Some("http/1.1"));
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut bytes = [0; 4];
    seen.io.read_exact(&mut bytes).await.unwrap();
    assert_eq!((&bytes, layer.refusals().total()), (b"ping", 0));
}

#[tokio::test]
async fn every_forged_certificate_is_refused() {
    let authority = Authority::new();
    for (why, issued) in authority::forgeries(&authority, WEB) {
        let layer = layer(&reviews(&authority), MtlsMode::Permissive);
        let config = authority.settings(issued).client(Protocol::Http1);
        let (seen, client) = accept(&layer, 1 << 16, async |io| dial(config, io).await).await;
        assert!(seen.is_none(), "{why}");
        assert_eq!((layer.refusals().count(Refusal::Handshake), layer.refusals().total()), (1, 1), "{why}");
        // The client of TLS 1.3 learns of it with its first read.
        if let Ok(mut client) = client {
            assert!(client.read_u8().await.is_err(), "{why}");
        }
    }
}

#[tokio::test]
async fn a_server_certificate_is_no_client_certificate() {
    let authority = Authority::new();
    let issued = authority
        .sign(&authority::with_purposes(authority::svid(WEB), vec![ExtendedKeyUsagePurpose::ServerAuth]));
    let layer = layer(&reviews(&authority), MtlsMode::Strict);
    let config = authority.settings(issued).client(Protocol::Http1);
    let (seen, _) = accept(&layer, 1 << 16, async |io| dial(config, io).await).await;
    assert!(seen.is_none());
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let authority = Authority::new();
    let layer = layer(&reviews(&authority), MtlsMode::Strict);
    let (seen, _) = accept(&layer, 1 << 16, async |io| dial(authority.anonymous(), io).await).await;
    assert!(seen.is_none());
    assert_eq!(layer.refusals().count(Refusal::Handshake), 1);
}

#[tokio::test]
async fn strict_closes_plaintext_without_an_answer() {
    let layer = layer(&reviews(&Authority::new()), MtlsMode::Strict);
    let (seen, answer) = accept(&layer, 1 << 16, async |mut io| {
        io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        answer
    })
    .await;
    assert!(seen.is_none() && answer.is_empty());
    assert_eq!(layer.refusals().count(Refusal::Plaintext), 1);
}

#[tokio::test]
async fn permissive_and_disable_pass_plaintext_on_untouched() {
    for mode in [MtlsMode::Permissive, MtlsMode::Disable] {
        let layer = layer(&Identity::pending(), mode);
        let text = b"GET /a/rather/long/path HTTP/1.1\r\nhost: a\r\n\r\n";
        let (seen, ()) = accept(&layer, 1 << 16, async |mut io| io.write_all(text).await.unwrap()).await;
        let mut seen = seen.unwrap();
        assert_eq!(seen.connection.tls, None);
        let mut bytes = Vec::new();
        seen.io.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, text, "{mode:?}");
    }
}

#[tokio::test]
async fn disable_does_not_look_at_the_bytes() {
    let layer = layer(&Identity::pending(), MtlsMode::Disable);
    let hello = [0x16, 0x03, 0x01, 0x00, 0x05];
    let (seen, ()) = accept(&layer, 1 << 16, async |mut io| io.write_all(&hello).await.unwrap()).await;
    let mut bytes = Vec::new();
    seen.unwrap().io.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, hello);
}

#[tokio::test]
async fn a_change_of_mode_holds_for_the_next_connection() {
    let mode = Live::new(MtlsMode::Permissive);
    let layer = AcceptLayer::new(Identity::pending(), mode.clone());
    let knock = async |mut io: DuplexStream| io.write_all(b"GET").await.unwrap();
    assert!(accept(&layer, 64, knock).await.0.is_some());
    mode.store(MtlsMode::Strict);
    assert!(accept(&layer, 64, knock).await.0.is_none());
}

/// Writes one byte at a time, and lets the other side read it before the next.
struct Dribble {
    io: DuplexStream,
    rested: bool,
}

impl AsyncRead for Dribble {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.rested = !self.rested;
        if self.rested {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, &buf[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_is_the_same() {
    let authority = Authority::new();
    for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
        let layer = layer(&reviews(&authority), mode);
        let client = async |io| dial(web(&authority), Dribble { io, rested: false }).await;
        let (seen, client) = accept(&layer, 1 << 16, client).await;
        assert_eq!(seen.unwrap().connection.identity().map(SpiffeId::as_str), Some(WEB));
        client.unwrap();
    }
}

#[tokio::test]
async fn plaintext_that_comes_byte_by_byte_is_the_same() {
    let layer = layer(&Identity::pending(), MtlsMode::Permissive);
    let text = b"GET / HTTP/1.1\r\n";
    let client = async |io| Dribble { io, rested: false }.write_all(text).await.unwrap();
    let (seen, ()) = accept(&layer, 1 << 16, client).await;
    let mut bytes = Vec::new();
    seen.unwrap().io.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, text);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_in_time() {
    let identity = reviews(&Authority::new());
    for (mode, bytes) in [
        (MtlsMode::Strict, &b""[..]),
        (MtlsMode::Strict, &[0x16]),
        (MtlsMode::Permissive, &[0x16, 0x03, 0x01, 0x02]),
    ] {
        let layer = layer(&identity, mode);
        let begun = Instant::now();
        let (seen, _io) = accept(&layer, 64, async |mut io| {
            io.write_all(bytes).await.unwrap();
            io
        })
        .await;
        assert!(seen.is_none());
        assert_eq!(layer.refusals().count(Refusal::Timeout), 1);
        let waited = begun.elapsed();
        assert!((Duration::from_secs(10)..Duration::from_millis(10_010)).contains(&waited), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_the_server_is_one_of_plaintext() {
    for bytes in [&b""[..], &[0x16]] {
        let layer = layer(&Identity::pending(), MtlsMode::Permissive);
        let begun = Instant::now();
        let (seen, mut client) = accept(&layer, 64, async |mut io| {
            io.write_all(bytes).await.unwrap();
            io
        })
        .await;
        let mut seen = seen.unwrap();
        assert!(seen.connection.tls.is_none() && begun.elapsed() < Duration::from_secs(6));
        seen.io.write_all(b"220 hello").await.unwrap();
        let mut greeting = [0; 9];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 hello");
    }
}

#[tokio::test]
async fn a_probe_that_sends_nothing_is_no_refusal() {
    let layer = layer(&Identity::pending(), MtlsMode::Strict);
    let (seen, ()) = accept(&layer, 64, async |io| drop(io)).await;
    assert!(seen.is_none());
    assert_eq!(layer.refusals().total(), 0);
}

#[tokio::test]
async fn without_a_valid_credential_of_our_own_nobody_gets_in() {
    let authority = Authority::new();
    let (then, now) = (SystemTime::now() - 10 * DAY, SystemTime::now());
    let (chain, key) = authority.sign(&authority::lives(authority::svid(REVIEWS), then - DAY, now - DAY));
    let expired = Credential::new_at(chain, key, authority.bundle(), then).unwrap();
    for identity in [Identity::pending(), Identity::new(expired)] {
        assert!(!identity.is_ready(now));
        let layer = layer(&identity, MtlsMode::Permissive);
        let (seen, client) = accept(&layer, 1 << 16, async |io| dial(web(&authority), io).await).await;
        assert!(seen.is_none() && client.is_err());
        assert_eq!(layer.refusals().count(Refusal::NotReady), 1);
    }
}

fn dialect(
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
    authority: &Authority,
) -> Arc<ClientConfig> {
    let (chain, key) = authority.sign(&authority::svid(WEB));
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(crate::verifier::VerifyServer::new(authority.bundle())))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[tokio::test]
async fn what_sidecars_offer_is_accepted() {
    let authority = Authority::new();
    for (offered, agreed) in [
        (&["istio"][..], Some("istio")),
        (&["istio", "h2"], Some("h2")),
        (&["istio-http/1.1", "istio", "http/1.1"], Some("http/1.1")),
        (&["istio-h2", "istio", "h2"], Some("h2")),
        (&["istio-http/1.0", "istio", "http/1.0"], Some("istio")),
        (&["istio-http/1.1"], Some("istio-http/1.1")),
        (&["istio-peer-exchange", "istio"], Some("istio")),
        (&["istio-peer-exchange"], None),
        (&["spdy/3"], None),
        (&[], None),
    ] {
        let layer = layer(&reviews(&authority), MtlsMode::Strict);
        let config = dialect(rustls::DEFAULT_VERSIONS, offered, &authority);
        let (seen, _client) = accept(&layer, 1 << 16, async |io| dial(config, io).await).await;
        let tls = seen.unwrap().connection.tls.unwrap();
        assert_eq!(tls.alpn.as_deref(), agreed, "{offered:?}");
    }
}

#[tokio::test]
async fn permissive_leaves_tls_that_is_none_of_the_mesh_to_the_application() {
    let authority = Authority::new();
    for (offered, passed) in [
        (&[][..], true),
        (&["http/1.1"], true),
        (&["h2", "http/1.1"], true),
        (&["istio"], false),
        (&["istio-http/1.1", "http/1.1"], false),
        (&["istio-h2", "istio", "h2"], false),
    ] {
        let layer = layer(&reviews(&authority), MtlsMode::Permissive);
        let config = dialect(rustls::DEFAULT_VERSIONS, offered, &authority);
        // The hello alone: a client whose bytes are left as they are gets no answer here.
        let mut client =
            rustls::ClientConnection::new(config, ServerName::try_from("Reviews.shop").unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let (seen, ()) = accept(&layer, 1 << 16, async |mut io| io.write_all(&hello).await.unwrap()).await;
        assert_eq!(seen.is_some(), passed, "{offered:?}");
        let Some(mut seen) = seen else { continue };
        assert!(seen.connection.passed_through && seen.connection.tls.is_none());
        assert_eq!(seen.connection.server_name(), Some("reviews.shop"));
        let mut bytes = Vec::new();
        seen.io.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, hello);
    }
}

#[tokio::test]
async fn tls_1_2_is_accepted_and_checked_alike() {
    let authority = Authority::new();
    let layer = layer(&reviews(&authority), MtlsMode::Strict);
    let config = dialect(&[&version::TLS12], &[], &authority);
    let (seen, client) = accept(&layer, 1 << 16, async |io| dial(config, io).await).await;
    let tls = seen.unwrap().connection.tls.unwrap();
    assert_eq!((tls.version, tls.identity.unwrap().as_str()), (TlsVersion::Tls12, WEB));
    assert_eq!(client.unwrap().get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn the_mode_counts_that_is_in_force_when_the_client_speaks() {
    let mode = Live::new(MtlsMode::Permissive);
    let layer = AcceptLayer::new(Identity::pending(), mode.clone());
    let (seen, ()) = accept(&layer, 1 << 16, async |mut io| {
        mode.store(MtlsMode::Strict);
        io.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    })
    .await;
    assert!(seen.is_none());
    assert_eq!(layer.refusals().count(Refusal::Plaintext), 1);
}

#[tokio::test]
async fn a_connection_lives_for_as_long_as_a_root_vouches_for_its_client() {
    let (old, new) = (Authority::new(), Authority::new());
    let credential = |of: &Authority, roots: &[&Authority]| {
        let roots = roots.iter().map(|authority| authority.root.clone()).collect();
        let (chain, key) = of.sign(&authority::svid(REVIEWS));
        Credential::new(
            chain,
            key,
            crate::TrustBundle::new(authority::DOMAIN.parse().unwrap(), roots).unwrap(),
        )
        .unwrap()
    };
    let identity = Identity::new(credential(&old, &[&old]));
    let inner = service_fn(|mut accepted: Accepted| async move {
        let mut bytes = [0; 64];
        while let Ok(read @ 1..) = accepted.io.read(&mut bytes).await {
            accepted.io.write_all(&bytes[..read]).await.unwrap();
            accepted.io.flush().await.unwrap();
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let (near, far) = duplex(1 << 16);
    let connection = Connection::plaintext("127.0.0.2:7".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    let accepted = Accepted { io: Box::new(far), connection };
    let serving = tokio::spawn(layer(&identity, MtlsMode::Strict).layer(inner).oneshot(accepted));
    let mut client = dial(web(&old), near).await.unwrap();
    // A new leaf, then both roots, then a leaf of the new one: the client is known by the old root all the time.
    for next in [credential(&old, &[&old]), credential(&old, &[&old, &new]), credential(&new, &[&old, &new])]
    {
        identity.store(next);
        tokio::task::yield_now().await;
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).await.unwrap();
    }
    identity.store(credential(&new, &[&new]));
    let mut end = Vec::new();
    let _ = client.read_to_end(&mut end).await;
    assert!(end.is_empty());
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn tls_1_2_is_spoken_where_the_listener_says_so() {
    let authority = Authority::new();
    let older = {
        let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(crate::verifier::VerifyServer::new(
                authority.bundle(),
            )))
            .with_client_cert_resolver(Arc::clone(&web(&authority).client_auth_cert_resolver));
        config.alpn_protocols = vec![b"istio".to_vec()];
        Arc::new(config)
    };
    let minimum = Live::new(TlsVersion::Tls12);
    let layer = layer(&reviews(&authority), MtlsMode::Strict).minimum_version(minimum.clone());
    for (oldest, older_taken) in
        [(TlsVersion::Tls12, true), (TlsVersion::Tls13, false), (TlsVersion::Tls12, true)]
    {
        // Without a new listener.
        minimum.store(oldest);
        let (seen, _) = accept(&layer, 1 << 16, async |io| dial(Arc::clone(&older), io).await).await;
        assert_eq!(seen.is_some(), older_taken, "{oldest:?}");
        let (seen, _) = accept(&layer, 1 << 16, async |io| dial(web(&authority), io).await).await;
        let tls = seen.unwrap().connection.tls.clone().unwrap();
        assert_eq!(tls.version, TlsVersion::Tls13, "whoever knows 1.3 speaks it");
    }
}

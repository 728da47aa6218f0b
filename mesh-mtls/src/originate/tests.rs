use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::{Accepted, BoxIo, Live};

use super::*;
use crate::authority::{self, Authority, DAY, REVIEWS, WEB};
use crate::{AcceptLayer, MtlsMode, TrustBundle};

fn local() -> SocketAddr {
    "127.0.0.1:80".parse().unwrap()
}

fn to(endpoint: Endpoint) -> Destination {
    let protocol = endpoint.protocol;
    Destination { endpoint: Arc::new(endpoint), protocol }
}

fn only(ids: &[&str]) -> Destination {
    let ids: Vec<SpiffeId> = ids.iter().map(|id| id.parse().unwrap()).collect();
    to(Endpoint::plaintext(local()).with_mtls(ids))
}

fn web(authority: &Authority) -> OriginateLayer {
    OriginateLayer::new(Some(Identity::new(authority.credential(WEB))))
}

/// Reaches, in memory, a server that does `serve` with every connection.
async fn open<F>(
    layer: &OriginateLayer,
    to: Destination,
    serve: impl Fn(BoxIo) -> F,
) -> Result<Connected, Fault>
where
    F: Future<Output = ()> + Send + 'static,
{
    let connector = service_fn(|to: Destination| {
        let (near, far) = duplex(1 << 16);
        tokio::spawn(serve(Box::new(far)));
        let connection = Arc::new(Connection::plaintext(to.endpoint.address, local()));
        std::future::ready(Ok::<_, Fault>(Connected { io: Box::new(near), connection }))
    });
    layer.layer(connector).oneshot(to).await
}

/// A server that is a workload of the mesh and sends back what it gets.
fn echo(identity: &Identity) -> impl Fn(BoxIo) -> Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let layer = AcceptLayer::new(identity.clone(), Live::new(MtlsMode::Strict));
    move |io| {
        let inner = service_fn(|accepted: Accepted| async move {
            let (mut read, mut write) = tokio::io::split(accepted.io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            Ok::<_, Infallible>(())
        });
        let accepted = Accepted { io, connection: Connection::plaintext(local(), local()) };
        let served = layer.layer(inner).oneshot(accepted);
        Box::pin(async move { served.await.unwrap() })
    }
}

async fn says(io: &mut BoxIo, text: &str) {
    io.write_all(text.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
    let mut answer = vec![0; text.len()];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, text.as_bytes());
}

fn proved(connected: &Connected) -> &str {
    connected.connection.identity().unwrap().as_str()
}

#[tokio::test]
async fn an_endpoint_that_proves_its_id_is_reached() {
    let authority = Authority::new();
    let server = echo(&Identity::new(authority.credential(REVIEWS)));
    for (protocol, alpn) in [(Protocol::Http1, "http/1.1"), (Protocol::Http2, "h2")] {
        let to = Destination { protocol, ..only(&[WEB, REVIEWS]) };
        let mut connected = open(&web(&authority), to, &server).await.unwrap();
        assert_eq!(proved(&connected), REVIEWS);
        let tls = connected.connection.tls.clone().unwrap();
        assert_eq!(tls.alpn.as_deref(), Some(alpn));
        assert_eq!(tls.server_name.as_deref(), Some("outbound_.80_._.127-0-0-1.towpath.mesh"));
        says(&mut connected.io, "hello").await;
    }
}

#[tokio::test]
async fn another_workload_of_the_mesh_is_not_the_endpoint() {
    let authority = Authority::new();
    let server = echo(&Identity::new(authority.credential(REVIEWS)));
    let wanted = "spiffe://cluster.local/ns/shop/sa/ratings";
    let fault = open(&web(&authority), only(&[wanted, WEB]), &server).await.err().unwrap();
    assert_eq!((fault.reason(), fault.replay()), (Reason::PeerIdentity, Replay::Always));
    for id in [wanted, WEB, REVIEWS] {
        assert!(fault.detail().contains(id), "{fault}");
    }
}

#[tokio::test]
async fn every_forged_certificate_is_refused() {
    let authority = Authority::new();
    let wanted = REVIEWS.replace(authority::DOMAIN, "other.example");
    for (why, issued) in authority::forgeries(&authority, REVIEWS) {
        let acceptor = TlsAcceptor::from(authority.settings(issued).server());
        let server = move |io| {
            let acceptor = acceptor.clone();
            async move { drop(acceptor.accept(io).await) }
        };
        // Even an id that the endpoint may have is not enough if its domain is not that of the roots.
        let fault = open(&web(&authority), only(&[REVIEWS, &wanted]), server).await.err().unwrap();
        assert_eq!(fault.reason(), Reason::PeerIdentity, "{why}: {fault}");
    }
}

#[tokio::test]
async fn what_cannot_be_satisfied_is_not_even_connected_to() {
    let authority = Authority::new();
    let (then, now) = (SystemTime::now() - 10 * DAY, SystemTime::now());
    let (chain, key) = authority.sign(&authority::lives(authority::svid(WEB), then - DAY, now - DAY));
    let expired = Credential::new_at(chain, key, authority.bundle(), then).unwrap();
    let dials = Arc::new(AtomicUsize::new(0));
    for (layer, to, reason) in [
        (OriginateLayer::new(None), only(&[REVIEWS]), Reason::ConnectFailed),
        (OriginateLayer::new(Some(Identity::pending())), only(&[REVIEWS]), Reason::ConnectFailed),
        (OriginateLayer::new(Some(Identity::new(expired))), only(&[REVIEWS]), Reason::ConnectFailed),
        (web(&authority), only(&[]), Reason::PeerIdentity),
    ] {
        let counted = Arc::clone(&dials);
        let fault = open(&layer, to, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        });
        let fault = fault.await.err().unwrap();
        assert_eq!(
            (fault.reason(), fault.replay() == Replay::Never),
            (reason, reason == Reason::ConnectFailed)
        );
    }
    assert_eq!(dials.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn plaintext_endpoints_are_left_alone() {
    for layer in [OriginateLayer::new(None), web(&Authority::new())] {
        let server = |mut io: BoxIo| async move { io.write_all(b"plain").await.unwrap() };
        let mut connected = open(&layer, to(Endpoint::plaintext(local())), server).await.unwrap();
        assert_eq!(connected.connection.tls, None);
        let mut text = String::new();
        connected.io.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "plain");
    }
}

#[tokio::test]
async fn the_connectors_fault_is_passed_on() {
    let connector =
        service_fn(|_| std::future::ready(Err::<Connected, _>(Fault::new(Reason::ConnectTimeout))));
    let fault = web(&Authority::new()).layer(connector).oneshot(only(&[REVIEWS])).await.err().unwrap();
    assert_eq!(fault.reason(), Reason::ConnectTimeout);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_fails_the_connect() {
    let server = |mut io: BoxIo| async move {
        io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = io.read_to_end(&mut Vec::new()).await;
    };
    let fault = open(&web(&Authority::new()), only(&[REVIEWS]), server).await.err().unwrap();
    assert_eq!((fault.reason(), fault.replay()), (Reason::ConnectFailed, Replay::Always));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_costs_five_seconds() {
    let begun = tokio::time::Instant::now();
    let server = |io: BoxIo| async move {
        std::future::pending::<()>().await;
        drop(io);
    };
    let fault = open(&web(&Authority::new()), only(&[REVIEWS]), server).await.err().unwrap();
    assert_eq!(fault.reason(), Reason::ConnectTimeout);
    assert!((Duration::from_secs(5)..Duration::from_millis(5_010)).contains(&begun.elapsed()));
}

#[tokio::test]
async fn a_new_credential_holds_for_new_connections_and_drops_none() {
    const NEXT: &str = "spiffe://cluster.local/ns/shop/sa/reviews-v2";
    let authority = Authority::new();
    let identity = Identity::new(authority.credential(REVIEWS));
    let (layer, server) = (web(&authority), echo(&identity));
    let mut old = open(&layer, only(&[REVIEWS, NEXT]), &server).await.unwrap();
    says(&mut old.io, "before").await;

    let changed = identity.changed();
    identity.store(authority.credential(NEXT));
    changed.await;

    says(&mut old.io, "after").await;
    let mut new = open(&layer, only(&[REVIEWS, NEXT]), &server).await.unwrap();
    assert_eq!((proved(&old), proved(&new)), (REVIEWS, NEXT));
    says(&mut new.io, "new").await;
    assert_eq!(identity.id().unwrap().as_str(), NEXT);
}

#[tokio::test]
async fn a_change_of_roots_ends_trust_in_old_certificates() {
    let (old, new) = (Authority::new(), Authority::new());
    let identity = Identity::new(old.credential(REVIEWS));
    let (layer, server) = (web(&old), echo(&identity));
    // The echo brings the session tickets along, so that a resumption would be possible.
    says(&mut open(&layer, only(&[REVIEWS]), &server).await.unwrap().io, "ticket").await;
    identity.store(new.credential(REVIEWS));
    let fault = open(&layer, only(&[REVIEWS]), &server).await.err().unwrap();
    assert_eq!(fault.reason(), Reason::PeerIdentity);
}

#[tokio::test]
async fn while_roots_rotate_both_are_trusted() {
    let (old, new) = (Authority::new(), Authority::new());
    let both = TrustBundle::new(authority::DOMAIN.parse().unwrap(), vec![old.root.clone(), new.root.clone()])
        .unwrap();
    let of = |authority: &Authority, id| {
        let (chain, key) = authority.sign(&authority::svid(id));
        // The issuer's own root is not needed to prove an id of the other.
        Identity::new(Credential::new(chain, key, both.clone()).unwrap())
    };
    let server = echo(&of(&new, REVIEWS));
    let layer = OriginateLayer::new(Some(of(&old, WEB)));
    let mut connected = open(&layer, only(&[REVIEWS]), &server).await.unwrap();
    says(&mut connected.io, "across").await;
}

#[tokio::test]
async fn it_works_over_real_sockets() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = echo(&Identity::new(authority.credential(REVIEWS)));
    let server = tokio::spawn(async move { serve(Box::new(listener.accept().await.unwrap().0)).await });
    let connector = service_fn(|to: Destination| async move {
        let io = TcpStream::connect(to.endpoint.address).await.unwrap();
        let connection = Arc::new(Connection::plaintext(io.peer_addr().unwrap(), io.local_addr().unwrap()));
        Ok::<_, Fault>(Connected { io: Box::new(io), connection })
    });
    let id: SpiffeId = REVIEWS.parse().unwrap();
    let to = to(Endpoint::plaintext(address).with_mtls([id]));
    let mut connected = web(&authority).layer(connector).oneshot(to).await.unwrap();
    assert_eq!((proved(&connected), connected.connection.peer), (REVIEWS, address));
    says(&mut connected.io, "over a socket").await;
    drop(connected);
    server.await.unwrap();
}

#[tokio::test]
async fn a_kept_connection_stands_for_as_long_as_its_server_is_trusted() {
    let (old, new) = (Authority::new(), Authority::new());
    let roots = |of: &[&Authority]| {
        let roots = of.iter().map(|authority| authority.root.clone()).collect();
        TrustBundle::new(authority::DOMAIN.parse().unwrap(), roots).unwrap()
    };
    let web = |roots: TrustBundle| {
        let (chain, key) = new.sign(&authority::svid(WEB));
        Credential::new(chain, key, roots).unwrap()
    };
    let identity = Identity::new(web(roots(&[&old, &new])));
    let server = Identity::new({
        let (chain, key) = old.sign(&authority::svid(REVIEWS));
        Credential::new(chain, key, roots(&[&old, &new])).unwrap()
    });
    let layer = OriginateLayer::new(Some(identity.clone()));
    let mut connected = open(&layer, only(&[REVIEWS]), echo(&server)).await.unwrap();
    let standing = connected.connection.standing.clone();
    assert!(standing.holds());
    // A new leaf, and the same roots in another order, change nothing.
    for bundle in [roots(&[&old, &new]), roots(&[&new, &old])] {
        identity.store(web(bundle));
        assert!(standing.holds());
    }
    identity.store(web(roots(&[&new])));
    assert!(!standing.holds());
    // What is under way goes on.
    says(&mut connected.io, "still here").await;
    identity.store(web(roots(&[&new, &old])));
    assert!(standing.holds());
}

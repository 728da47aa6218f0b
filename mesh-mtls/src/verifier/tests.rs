use std::convert::Infallible;
use std::net::SocketAddr;

use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower::{Layer, ServiceExt, service_fn};
use towpath_gateway_core::{
    Accepted, Connected, Connection, Destination, Endpoint, Fault, Live, Protocol, Reason,
};

use super::*;
use crate::authority::{Authority, DAY, DOMAIN, REVIEWS, WEB, lives, root, svid};
use crate::{AcceptLayer, Credential, Identity, MtlsMode, OriginateLayer};

const PARTNER: &str = "spiffe://partner.example/ns/orders/sa/web";

/// Whose root it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Ours,
    Partners,
}

/// Both sides of TLS say the same, and this.
fn taken(bundle: &TrustBundle, chain: &[CertificateDer<'_>]) -> bool {
    let (leaf, intermediates) = chain.split_first().unwrap();
    let now = UnixTime::now();
    let name = ServerName::try_from("any.example").unwrap();
    let client = VerifyClient::new(bundle.clone()).unwrap().verify_client_cert(leaf, intermediates, now);
    let server = VerifyServer::new(bundle.clone()).verify_server_cert(leaf, intermediates, &name, &[], now);
    assert_eq!(client.is_ok(), server.is_ok(), "{client:?} {server:?}");
    client.is_ok()
}

#[test]
fn a_leaf_is_taken_by_the_roots_of_its_own_domain_alone() {
    use Root::{Ours, Partners};
    let [ours, partner, stranger] = [(); 3].map(|()| Authority::new());
    let (our_sub, their_sub) = (ours.subordinate(), partner.subordinate());
    let (our_sub_by_them, their_sub_by_us) = (partner.cross_sign(&our_sub), ours.cross_sign(&their_sub));
    // Who signs, what comes with the leaf, and which roots that leads to.
    let ways: [(&str, &Authority, Vec<&CertificateDer<'static>>, &[Root]); 13] = [
        ("our root", &ours, vec![], &[Ours]),
        ("their root", &partner, vec![], &[Partners]),
        ("a stranger", &stranger, vec![], &[]),
        ("a stranger, with our root beside it", &stranger, vec![&ours.root, &partner.root], &[]),
        ("our intermediate", &our_sub, vec![&our_sub.root], &[Ours]),
        ("our intermediate, which is not shown", &our_sub, vec![], &[]),
        ("their intermediate", &their_sub, vec![&their_sub.root], &[Partners]),
        ("their intermediate, signed by us", &their_sub, vec![&their_sub_by_us], &[Ours]),
        ("our intermediate, signed by them", &our_sub, vec![&our_sub_by_them], &[Partners]),
        (
            "our intermediate, signed by both",
            &our_sub,
            vec![&our_sub_by_them, &our_sub.root],
            &[Ours, Partners],
        ),
        ("theirs, signed by both", &their_sub, vec![&their_sub.root, &their_sub_by_us], &[Ours, Partners]),
        ("their root, with ours beside it", &partner, vec![&ours.root], &[Partners]),
        ("our root, with theirs beside it", &ours, vec![&partner.root], &[Ours]),
    ];
    let (alias, federated) = (|name: &str| [name.parse().unwrap()], partner.bundle_of("partner.example"));
    let bundles = [
        ("alone", ours.bundle(), [Some(Ours), None, None, None]),
        (
            "with an alias",
            ours.bundle().with_aliases(alias("old.example")),
            [Some(Ours), Some(Ours), None, None],
        ),
        (
            "federated",
            ours.bundle().with_federated([federated.clone()]),
            [Some(Ours), None, Some(Partners), None],
        ),
        (
            "both",
            ours.bundle().with_aliases(alias("old.example")).with_federated([federated.clone()]),
            [Some(Ours), Some(Ours), Some(Partners), None],
        ),
        (
            "an alias that a foreign bundle claims too",
            ours.bundle().with_aliases(alias("partner.example")).with_federated([federated]),
            [Some(Ours), None, Some(Ours), None],
        ),
        (
            "a foreign bundle that claims our domain",
            ours.bundle().with_federated([partner.bundle_of(DOMAIN)]),
            [Some(Ours), None, None, None],
        ),
    ];
    let ids = [WEB, "spiffe://old.example/ns/shop/sa/web", PARTNER, "spiffe://third.example/ns/shop/sa/web"];
    let mut accepted = 0;
    for (kind, bundle, roots) in &bundles {
        for (id, root) in ids.iter().zip(roots) {
            for (way, signer, intermediates, leads_to) in &ways {
                let mut chain = signer.sign(&svid(id)).0;
                chain.extend(intermediates.iter().copied().cloned());
                let expected = root.is_some_and(|root| leads_to.contains(&root));
                assert_eq!(taken(bundle, &chain), expected, "{kind}: {id} by {way}");
                accepted += usize::from(expected);
            }
        }
    }
    // Six ways lead to either root, and the bundles have eleven domains with one.
    assert_eq!(accepted, 6 * 11);
}

#[test]
fn a_root_that_expired_vouches_for_nobody() {
    let now = std::time::SystemTime::now();
    let (new, old) = (Authority::new(), Authority::rooted_in(lives(root(), now - 3 * DAY, now - DAY)));
    let both = TrustBundle::new(DOMAIN.parse().unwrap(), vec![old.root.clone(), new.root.clone()]).unwrap();
    for (kind, bundle) in [("alone", old.bundle()), ("beside another", both.clone())] {
        assert!(!taken(&bundle, &old.sign(&svid(WEB)).0), "{kind}");
    }
    assert!(taken(&both, &new.sign(&svid(WEB)).0));
    let federated = Authority::new().bundle().with_federated([old.bundle_of("partner.example")]);
    assert!(!taken(&federated, &old.sign(&svid(PARTNER)).0));
}

#[test]
fn a_foreign_root_makes_no_credential_of_ours() {
    let (ours, partner) = (Authority::new(), Authority::new());
    let bundle = ours.bundle().with_federated([partner.bundle_of("partner.example")]);
    for (signer, id) in [(&partner, PARTNER), (&partner, WEB), (&ours, PARTNER)] {
        let (chain, key) = signer.sign(&svid(id));
        assert!(Credential::new(chain, key, bundle.clone()).is_err(), "{id}");
    }
}

/// One handshake over a socket, and one byte from server to client, so that session tickets arrive.
async fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Option<HandshakeKind> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let mut stream =
            TlsAcceptor::from(Arc::clone(server)).accept(listener.accept().await.unwrap().0).await.ok()?;
        stream.write_all(b"!").await.ok()?;
        stream.flush().await.ok()
    };
    let dialling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("web.orders").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await.ok()?;
        stream.read_u8().await.ok()?;
        stream.get_ref().1.handshake_kind()
    };
    tokio::join!(accepting, dialling).1
}

/// An identity of `id` by `own`, which is federated with `foreign`.
fn identity(own: &Authority, id: &str, foreign: &[TrustBundle]) -> Identity {
    let (chain, key) = own.sign(&svid(id));
    let domain = id.parse::<towpath_gateway_core::SpiffeId>().unwrap().trust_domain().to_owned();
    let identity = Identity::new(Credential::new(chain, key, own.bundle_of(&domain)).unwrap());
    identity.set_trust(&[], foreign);
    identity
}

#[tokio::test]
async fn no_session_is_resumed_once_the_partners_root_is_gone_on_either_side() {
    let (ours, partner) = (Authority::new(), Authority::new());
    let (our_bundle, their_bundle) = (ours.bundle(), partner.bundle_of("partner.example"));
    let reviews = identity(&ours, REVIEWS, std::slice::from_ref(&their_bundle));
    let web = identity(&partner, PARTNER, std::slice::from_ref(&our_bundle));
    let server = || reviews.credential().unwrap().settings().server();
    let client = || web.credential().unwrap().settings().client(Protocol::Http1);
    let full_then_resumed = [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)];
    let (dialling, serving) = (client(), server());
    assert_eq!([meet(&dialling, &serving).await, meet(&dialling, &serving).await], full_then_resumed);
    reviews.set_trust(&[], &[]);
    assert_eq!(meet(&dialling, &server()).await, None);
    reviews.set_trust(&[], &[their_bundle]);
    let serving = server();
    assert_eq!([meet(&dialling, &serving).await, meet(&dialling, &serving).await], full_then_resumed);
    web.set_trust(&[], &[]);
    assert_eq!(meet(&client(), &serving).await, None);
    web.set_trust(&[], &[our_bundle]);
    assert_eq!(meet(&client(), &serving).await, Some(HandshakeKind::Full));
}

/// Serves connections at a socket as `identity`, and sends back what comes.
async fn echo(identity: &Identity) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = service_fn(|accepted: Accepted| async move {
        let (mut read, mut write) = tokio::io::split(accepted.io);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        Ok::<_, Infallible>(())
    });
    let accept = AcceptLayer::new(identity.clone(), Live::new(MtlsMode::Strict)).layer(inner);
    tokio::spawn(async move {
        loop {
            let (io, peer) = listener.accept().await.unwrap();
            let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(peer, address) };
            tokio::spawn(accept.clone().oneshot(accepted));
        }
    });
    address
}

async fn open(identity: &Identity, id: &str, address: SocketAddr) -> Result<Connected, Fault> {
    let connector = service_fn(|to: Destination| async move {
        let io = TcpStream::connect(to.endpoint.address).await.unwrap();
        let connection = Arc::new(Connection::plaintext(io.peer_addr().unwrap(), io.local_addr().unwrap()));
        Ok::<_, Fault>(Connected { io: Box::new(io), connection })
    });
    let endpoint = Endpoint::plaintext(address).with_mtls([id.parse().unwrap()]);
    let to = Destination { endpoint: Arc::new(endpoint), protocol: Protocol::Http1 };
    OriginateLayer::new(Some(identity.clone())).layer(connector).oneshot(to).await
}

/// Whether what is sent comes back.
async fn answers(connected: &mut Connected) -> bool {
    let mut answer = [0; 4];
    connected.io.write_all(b"ping").await.is_ok()
        && connected.io.flush().await.is_ok()
        && connected.io.read_exact(&mut answer).await.is_ok()
}

#[tokio::test]
async fn meshes_meet_over_sockets_until_one_side_trusts_the_other_no_more() {
    let (ours, partner) = (Authority::new(), Authority::new());
    let (our_bundle, their_bundle) = (ours.bundle(), partner.bundle_of("partner.example"));
    let reviews = identity(&ours, REVIEWS, std::slice::from_ref(&their_bundle));
    let web = identity(&partner, PARTNER, std::slice::from_ref(&our_bundle));
    let (reviews_at, web_at) = (echo(&reviews).await, echo(&web).await);
    // Each way, and inside of each mesh.
    let mut to_us = open(&web, REVIEWS, reviews_at).await.unwrap();
    let mut to_them = open(&reviews, PARTNER, web_at).await.unwrap();
    let mut inside = open(&identity(&ours, WEB, &[]), REVIEWS, reviews_at).await.unwrap();
    for connected in [&mut to_us, &mut to_them, &mut inside] {
        assert!(answers(connected).await);
    }
    // The right root and the wrong id.
    let fault = open(&reviews, "spiffe://partner.example/ns/orders/sa/other", web_at).await.err().unwrap();
    assert_eq!(fault.reason(), Reason::PeerIdentity);
    // A root more of the partner's changes nothing for who is connected.
    let both = TrustBundle::new(
        "partner.example".parse().unwrap(),
        vec![Authority::new().root, partner.root.clone()],
    );
    reviews.set_trust(&[], &[both.unwrap()]);
    tokio::task::yield_now().await;
    assert!(answers(&mut to_us).await && answers(&mut inside).await);
    // Nobody vouches for the partner any more: its live connections end, and no other.
    reviews.set_trust(&[], &[]);
    let mut rest = Vec::new();
    let _ = to_us.io.read_to_end(&mut rest).await;
    assert!(rest.is_empty() && answers(&mut inside).await);
    let refused = open(&web, REVIEWS, reviews_at).await;
    if let Ok(mut connected) = refused {
        assert!(!answers(&mut connected).await);
    }
    let fault = open(&reviews, PARTNER, web_at).await.err().unwrap();
    assert_eq!(fault.reason(), Reason::PeerIdentity);
}

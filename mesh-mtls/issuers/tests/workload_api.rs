//! A workload and a server in the role of an agent of the Workload API, over a real Unix socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use support::agent::{Agent, X509Svid, X509SvidResponse, svid};
use support::grpc::{Answer, Handler, framed};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use towpath_ca::{Authority, RenewalEvent, RenewalSettings};
use towpath_issuers::{WorkloadEndpoint, follow};
use towpath_mesh_mtls::Identity;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const BOOKS: &str = "spiffe://cluster.local/ns/shop/sa/books";

fn authority() -> Authority {
    Authority::create("cluster.local".parse().unwrap(), Duration::from_hours(24)).unwrap()
}

fn message(svids: Vec<X509Svid>) -> Bytes {
    framed(&X509SvidResponse { svids, crl: vec![b"a list".to_vec()], ..Default::default() }).into()
}

/// Hands out one prepared answer a call; with none left, calls are refused as the agent being busy.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<Answer>>>);

impl Script {
    /// Prepares an answer whose messages the test sends.
    fn stream(&self) -> mpsc::UnboundedSender<Bytes> {
        let (sender, bytes) = mpsc::unbounded_channel();
        self.0.lock().unwrap().push(Answer { bytes, status: "0" });
        sender
    }

    fn refusal(&self, status: &'static str) {
        self.0.lock().unwrap().push(Answer::refusal(status));
    }

    fn handler(&self) -> Handler {
        let script = self.clone();
        Arc::new(move |head, _| {
            assert_eq!(head.uri.path(), "/SpiffeWorkloadAPI/FetchX509SVID");
            if head.headers.get("workload.spiffe.io").is_none_or(|value| value != "true") {
                return Answer::refusal("3");
            }
            let mut answers = script.0.lock().unwrap();
            if answers.is_empty() { Answer::refusal("14") } else { answers.remove(0) }
        })
    }
}

struct World {
    dir: TempDir,
    identity: Identity,
    events: mpsc::UnboundedReceiver<RenewalEvent>,
    _task: JoinSet<()>,
}

impl World {
    /// A workload that follows `endpoint`, or the socket of the directory.
    fn follows(dir: TempDir, endpoint: Option<WorkloadEndpoint>, wanted: Option<&str>) -> Self {
        let identity = Identity::pending();
        let (sender, events) = mpsc::unbounded_channel();
        let settings = RenewalSettings {
            wanted: wanted.map(|id| id.parse().unwrap()),
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(50),
            timeout: Duration::from_millis(500),
            ..RenewalSettings::default()
        };
        let endpoint = endpoint.unwrap_or_else(|| WorkloadEndpoint::Unix(socket(&dir)));
        let following = follow(identity.clone(), endpoint, settings, move |event| {
            let _ = sender.send(event);
        });
        let mut task = JoinSet::new();
        task.spawn(async move { match following.await {} });
        Self { dir, identity, events, _task: task }
    }

    fn new(wanted: Option<&str>) -> Self {
        Self::follows(tempfile::tempdir().unwrap(), None, wanted)
    }

    fn agent(&self, script: &Script) -> Agent {
        Agent::start(&socket(&self.dir), script.handler())
    }

    async fn event(&mut self) -> RenewalEvent {
        tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await.unwrap().unwrap()
    }

    /// Waits for a credential, and says whose it is.
    async fn issued(&mut self) -> String {
        loop {
            match self.event().await {
                RenewalEvent::Issued { id, .. } => return id.to_string(),
                RenewalEvent::Waiting { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for a failure of which this is said; whether a credential is in use all the same.
    async fn fails(&mut self, says: &str) -> bool {
        loop {
            match self.event().await {
                RenewalEvent::Waiting { why, not_after, .. } if why.contains(says) => {
                    return not_after.is_some();
                }
                RenewalEvent::Waiting { .. } => {}
                other => panic!("{other:?} instead of `{says}`"),
            }
        }
    }

    fn chain(&self) -> Vec<u8> {
        self.identity.credential().unwrap().chain()[0].to_vec()
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("agent.sock")
}

#[tokio::test]
async fn every_message_takes_the_place_of_the_one_before() {
    let (authority, script) = (authority(), Script::default());
    let pushes = script.stream();
    let mut world = World::new(None);
    let _agent = world.agent(&script);
    for _ in 0..3 {
        let svid = svid(&authority, WEB);
        let der = svid.chain.clone();
        pushes.send(message(vec![svid])).unwrap();
        assert_eq!(world.issued().await, WEB);
        assert_eq!(world.chain(), der);
    }
    assert_eq!(world.identity.credential().unwrap().bundle(), &authority.bundle().unwrap());
    // Another root comes with its message.
    let other = self::authority();
    pushes.send(message(vec![svid(&other, WEB)])).unwrap();
    world.issued().await;
    assert_eq!(world.identity.credential().unwrap().bundle(), &other.bundle().unwrap());
}

#[tokio::test]
async fn foreign_roots_come_along_and_go_with_the_next_message() {
    let (authority, partner, script) = (self::authority(), self::authority(), Script::default());
    let pushes = script.stream();
    let mut world = World::new(None);
    let _agent = world.agent(&script);
    let told = |bundles: &[(&str, &[u8])]| -> Bytes {
        let federated_bundles =
            bundles.iter().map(|(id, roots)| ((*id).to_owned(), roots.to_vec())).collect();
        let svids = vec![svid(&authority, WEB)];
        framed(&X509SvidResponse { svids, federated_bundles, ..Default::default() }).into()
    };
    for (bundles, trusted) in [
        (vec![("spiffe://partner.example", partner.root().as_ref())], vec!["partner.example"]),
        // What is broken, or of our own domain, takes nothing else down.
        (
            vec![
                ("spiffe://a.example", partner.root().as_ref()),
                ("spiffe://b.example", &b"junk"[..]),
                ("spiffe://cluster.local", partner.root().as_ref()),
                ("not a domain", partner.root().as_ref()),
            ],
            vec!["a.example"],
        ),
        (vec![], vec![]),
    ] {
        pushes.send(told(&bundles)).unwrap();
        assert_eq!(world.issued().await, WEB);
        let bundle = world.identity.credential().unwrap().bundle().clone();
        let found: Vec<_> = bundle.federated().iter().map(|bundle| bundle.domain().to_string()).collect();
        assert_eq!(found, trusted, "{bundles:?}");
    }
}

#[tokio::test]
async fn the_first_svid_is_the_default_and_a_wanted_id_chooses() {
    let (authority, script) = (authority(), Script::default());
    for (wanted, taken) in [(None, BOOKS), (Some(WEB), WEB)] {
        let pushes = script.stream();
        let mut world = World::new(wanted);
        let _agent = world.agent(&script);
        pushes.send(message(vec![svid(&authority, BOOKS), svid(&authority, WEB)])).unwrap();
        assert_eq!(world.issued().await, taken);
    }
}

#[tokio::test]
async fn what_is_broken_keeps_the_old_one_and_is_told() {
    let (authority, script) = (authority(), Script::default());
    let mut world = World::new(Some(WEB));
    let _agent = world.agent(&script);
    let good = || svid(&authority, WEB);
    let garbage = |change: fn(&mut X509Svid)| {
        let mut svid = good();
        change(&mut svid);
        message(vec![svid])
    };
    let claims = X509Svid { spiffe_id: WEB.to_owned(), ..svid(&authority, BOOKS) };
    let foreign = X509Svid { bundle: self::authority().root().to_vec(), ..good() };
    let cases = [
        (message(Vec::new()), "holds no SVID"),
        (garbage(|s| s.chain = b"garbage".to_vec()), "it is not certificates in DER"),
        (garbage(|s| s.chain.push(1)), "it is not certificates in DER"),
        (garbage(|s| s.chain.clear()), "no certificate was found"),
        (garbage(|s| s.key = b"garbage".to_vec()), "private key cannot be used"),
        (garbage(|s| s.key = rcgen::KeyPair::generate().unwrap().serialize_der()), "does not fit"),
        (garbage(|s| s.bundle.clear()), "no root certificate"),
        (garbage(|s| s.bundle = b"garbage".to_vec()), "its bundle is not certificates"),
        (message(vec![foreign]), "peers would refuse the chain"),
        (message(vec![claims]), "the certificate is for spiffe://cluster.local/ns/shop/sa/books"),
        (Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff]), "cannot be read"),
        (Bytes::from_static(&[1, 0, 0, 0, 0]), "compressed"),
        (Bytes::from_static(&[0, 0x7f, 0, 0, 0]), "at most 4194304"),
    ];
    for (broken, says) in cases {
        let pushes = script.stream();
        let good = good();
        let der = good.chain.clone();
        pushes.send(message(vec![good])).unwrap();
        world.issued().await;
        pushes.send(broken).unwrap();
        assert!(world.fails(says).await, "{says}");
        assert_eq!(world.chain(), der, "{says}");
    }
}

#[tokio::test]
async fn an_agent_that_goes_away_is_found_again_and_costs_nothing_meanwhile() {
    let (authority, script) = (authority(), Script::default());
    let mut world = World::new(Some(WEB));
    // It is not there yet.
    assert!(!world.fails("cannot be reached").await);
    let pushes = script.stream();
    let agent = world.agent(&script);
    pushes.send(message(vec![svid(&authority, WEB)])).unwrap();
    world.issued().await;
    let before = world.chain();
    agent.end().await;
    std::fs::remove_file(socket(&world.dir)).unwrap();
    assert!(world.fails("cannot be reached").await);
    assert_eq!(world.chain(), before);
    let pushes = script.stream();
    let _agent = world.agent(&script);
    pushes.send(message(vec![svid(&authority, WEB)])).unwrap();
    world.issued().await;
    assert_ne!(world.chain(), before);
    // An end in good order is no reason to stay away either.
    drop(pushes);
    assert!(world.fails("the agent ended the stream").await);
}

#[tokio::test]
async fn what_the_agent_takes_back_is_used_no_more() {
    let (authority, script) = (authority(), Script::default());
    let mut world = World::new(Some(WEB));
    let _agent = world.agent(&script);
    // A message without the wanted SVID, then a refusal.
    for by_message in [true, false] {
        let pushes = script.stream();
        pushes.send(message(vec![svid(&authority, WEB)])).unwrap();
        world.issued().await;
        if by_message {
            pushes.send(message(vec![svid(&authority, BOOKS)])).unwrap();
        } else {
            script.refusal("7");
            drop(pushes);
            assert!(world.fails("ended the stream").await);
        }
        let event = world.event().await;
        assert_eq!(event, RenewalEvent::Withdrawn { id: WEB.parse().unwrap() });
        assert!(world.identity.credential().is_none());
        let says =
            if by_message { "but for spiffe://cluster.local/ns/shop/sa/books" } else { "registration" };
        assert!(!world.fails(says).await);
    }
    // It may be given again.
    script.stream().send(message(vec![svid(&authority, WEB)])).unwrap();
    world.issued().await;
}

#[tokio::test]
async fn a_client_that_is_told_to_be_at_fault_asks_no_more() {
    for status in ["3", "12"] {
        let script = Script::default();
        script.refusal(status);
        let mut world = World::new(None);
        let _agent = world.agent(&script);
        let stopped = loop {
            match world.event().await {
                RenewalEvent::Waiting { why, .. } => assert!(why.contains("cannot be reached"), "{why}"),
                other => break other,
            }
        };
        let RenewalEvent::Stopped { why, not_after: None } = stopped else { panic!("{stopped:?}") };
        assert!(why.contains("start this process anew"), "{why}");
    }
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(socket(&dir)).unwrap();
    let mut world = World::follows(dir, None, None);
    assert!(!world.fails("did not answer within 500ms").await);
}

#[tokio::test]
async fn a_tcp_socket_of_this_host_does_as_well() {
    let (authority, script) = (authority(), Script::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let pushes = script.stream();
    let mut world = World::follows(tempfile::tempdir().unwrap(), Some(endpoint), None);
    pushes.send(message(vec![svid(&authority, WEB)])).unwrap();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        support::grpc::serve(stream, script.handler()).await;
    };
    tokio::select! {
        () = serving => panic!("the connection ended"),
        id = world.issued() => assert_eq!(id, WEB),
    }
}

//! A workload and a server in the role of istiod, over real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use support::grpc::{Answer, Handler, framed};
use support::istiod::{CertificateRequest, CertificateResponse, Istiod};
use tempfile::TempDir;
use tokio::sync::mpsc;
use towpath_ca::{Authority, RenewalEvent, RenewalSettings, keep_fresh, request};
use towpath_gateway_core::SpiffeId;
use towpath_issuers::{IstioCa, IstioCaSettings};
use towpath_mesh_mtls::{Credential, Identity};

const TOKEN: &str = "header.claims.signature";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn authority() -> Authority {
    Authority::create("cluster.local".parse().unwrap(), Duration::from_hours(24)).unwrap()
}

/// Leaf and root as istiod sends them, for `id`.
fn signed(authority: &Authority, message: &[u8], id: &str, ttl: Duration) -> Vec<String> {
    support::istiod::signed(authority, message, &id.parse().unwrap(), ttl)
}

fn respond(cert_chain: Vec<String>) -> Answer {
    Answer::of(framed(&CertificateResponse { cert_chain }))
}

struct World {
    dir: TempDir,
    istiod: Istiod,
}

impl World {
    async fn new(handler: Handler) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let istiod = Istiod::start(address, &dir.path().join("roots.pem"), handler).await;
        Self { dir, istiod }
    }

    fn settings(&self) -> IstioCaSettings {
        IstioCaSettings {
            address: self.istiod.address.to_string(),
            roots: self.dir.path().join("roots.pem"),
            token: self.dir.path().join("token"),
            ..IstioCaSettings::default()
        }
    }

    async fn ask(&self, settings: IstioCaSettings) -> Result<Credential, String> {
        let id: SpiffeId = WEB.parse().unwrap();
        let ca = IstioCa::new(settings, &id).unwrap();
        request(&ca, Some(&id), SystemTime::now).await.map_err(|why| why.to_string())
    }
}

#[tokio::test]
async fn a_certificate_is_had_for_a_token() {
    let (authority, (seen, mut calls)) = (authority(), mpsc::unbounded_channel());
    let root = authority.root().clone();
    let world = World::new(Arc::new(move |head, message| {
        seen.send((head.clone(), CertificateRequest::decode(message).unwrap())).unwrap();
        respond(signed(&authority, message, WEB, Duration::from_hours(1)))
    }))
    .await;
    let settings = IstioCaSettings { cluster_id: Some("Kubernetes".to_owned()), ..world.settings() };
    let credential = world.ask(settings).await.unwrap();
    assert_eq!(credential.id().as_str(), WEB);
    assert_eq!(credential.bundle().roots(), [root]);
    let (head, asked) = calls.recv().await.unwrap();
    assert_eq!(head.uri.path(), "/istio.v1.auth.IstioCertificateService/CreateCertificate");
    assert_eq!(head.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(head.headers["clusterid"], "Kubernetes");
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(asked.validity_duration, 86_400);
    // Kubernetes puts another token into the file from time to time.
    std::fs::write(world.dir.path().join("token"), "another").unwrap();
    world.ask(world.settings()).await.unwrap();
    let (head, _) = calls.recv().await.unwrap();
    assert_eq!(head.headers["authorization"], "Bearer another");
    assert!(!head.headers.contains_key("clusterid"));
}

#[tokio::test]
async fn what_the_ca_refuses_is_told_with_what_to_do() {
    for (status, says) in [
        ("16", "UNAUTHENTICATED (because of this); look at the token in"),
        ("7", "PERMISSION_DENIED (because of this); the CA signs nothing for the bearer"),
        ("14", "UNAVAILABLE (because of this); it is not ready"),
        ("12", "UNIMPLEMENTED (because of this); it is no Istio CA"),
        ("3", "INVALID_ARGUMENT (because of this); it does not take the request"),
        ("13", "INTERNAL (because of this)"),
    ] {
        let world = World::new(Arc::new(move |_, _| Answer::refusal(status))).await;
        let error = world.ask(world.settings()).await.unwrap_err();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }
}

#[tokio::test]
async fn answers_that_cannot_be_used_are_refused() {
    let cases: Vec<(&str, fn(&Authority, &[u8]) -> Answer)> = vec![
        ("0 certificate texts", |_, _| respond(Vec::new())),
        ("1 certificate texts", |a, m| respond(signed(a, m, WEB, Duration::from_hours(1))[..1].to_vec())),
        ("not a readable CA certificate", |a, m| {
            let [leaf, _] = signed(a, m, WEB, Duration::from_hours(1)).try_into().unwrap();
            respond(vec![leaf.clone(), leaf])
        }),
        ("peers would refuse the chain", |a, m| {
            let [leaf, _] = signed(a, m, WEB, Duration::from_hours(1)).try_into().unwrap();
            respond(vec![leaf, authority().bundle().unwrap().to_pem()])
        }),
        ("issued a certificate for spiffe://cluster.local/ns/shop/sa/other", |a, m| {
            respond(signed(a, m, "spiffe://cluster.local/ns/shop/sa/other", Duration::from_hours(1)))
        }),
        ("outside of the trust domain cluster.local", |_, m| {
            let a = Authority::create("evil.example".parse().unwrap(), Duration::from_hours(24)).unwrap();
            respond(signed(&a, m, "spiffe://evil.example/ns/shop/sa/web", Duration::from_hours(1)))
        }),
        ("no certificate was found", |a, _| {
            respond(vec!["nothing".to_owned(), a.bundle().unwrap().to_pem()])
        }),
        ("cannot be read", |_, _| Answer::of([&[0, 0, 0, 0, 4][..], &[0xff; 4]].concat())),
        ("not one whole message", |_, _| Answer::of(vec![0, 0, 0, 0, 9, 1])),
        ("not one whole message", |_, _| Answer::of(Vec::new())),
        ("not one whole message", |_, _| Answer::of(vec![0; 10])),
        ("compressed", |_, _| Answer::of(vec![1, 0, 0, 0, 0])),
        ("at most 1048576", |_, _| Answer::of([&[0, 0, 0x20, 0, 0][..], &[0; 100]].concat())),
    ];
    for (says, answer) in cases {
        let authority = authority();
        let world = World::new(Arc::new(move |_, message| answer(&authority, message))).await;
        let error = world.ask(world.settings()).await.unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_to_be_the_ca_is_shown_no_token() {
    let world = World::new(Arc::new(|_, _| panic!("it was called"))).await;
    let other = World::new(Arc::new(|_, _| panic!("it was called"))).await;
    let roots = other.settings().roots;
    let error = world.ask(IstioCaSettings { roots, ..world.settings() }).await.unwrap_err();
    assert!(error.contains("did not prove to be istiod.istio-system.svc"), "{error}");
    let server_name = "ca.example".to_owned();
    let error = world.ask(IstioCaSettings { server_name, ..world.settings() }).await.unwrap_err();
    assert!(error.contains("did not prove to be ca.example"), "{error}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let world = World::new(Arc::new(|_, _| panic!("it was called"))).await;
    let file = |name: &str, text: &str| {
        let path = world.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let absent = world.dir.path().join("absent");
    for token in [absent.clone(), file("empty", "\n"), file("two", "a\nb"), file("long", &"a".repeat(70_000))]
    {
        let name = token.file_name().unwrap().to_str().unwrap().to_owned();
        let error = world.ask(IstioCaSettings { token, ..world.settings() }).await.unwrap_err();
        assert!(error.contains("cannot read the token") && error.contains(&name), "{error}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for roots in [absent, file("no-roots", "nothing"), file("broken", broken)] {
        let name = roots.file_name().unwrap().to_str().unwrap().to_owned();
        let error = world.ask(IstioCaSettings { roots, ..world.settings() }).await.unwrap_err();
        assert!(error.contains("cannot read the roots") && error.contains(&name), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    // Neither an answer nor an end: the sender lives on.
    let (kept, bytes) = mpsc::unbounded_channel::<Bytes>();
    let bytes = std::sync::Mutex::new(Some(bytes));
    let world = World::new(Arc::new(move |_, _| Answer {
        bytes: bytes.lock().unwrap().take().unwrap(),
        status: "0",
    }))
    .await;
    let deadline = Duration::from_millis(200);
    let error = world.ask(IstioCaSettings { deadline, ..world.settings() }).await.unwrap_err();
    assert!(error.contains("did not answer within 200ms"), "{error}");
    drop(kept);
}

#[tokio::test]
async fn it_is_renewed_at_half_of_its_life_and_a_ca_that_went_away_is_found_again() {
    let handler: Handler = {
        let authority = authority();
        Arc::new(move |_, message| respond(signed(&authority, message, WEB, Duration::from_secs(4))))
    };
    let world = World::new(Arc::clone(&handler)).await;
    let (settings, identity, id) = (world.settings(), Identity::pending(), WEB.parse::<SpiffeId>().unwrap());
    let ca = IstioCa::new(settings.clone(), &id).unwrap();
    let (sender, mut events) = mpsc::unbounded_channel();
    let renewal = RenewalSettings { wanted: Some(id), ..RenewalSettings::default() };
    let task = tokio::spawn(keep_fresh(identity.clone(), ca, renewal, move |event| {
        let _ = sender.send(event);
    }));
    assert!(matches!(events.recv().await, Some(RenewalEvent::Issued { .. })));
    let first = identity.credential().unwrap();
    let World { dir, istiod } = world;
    let address = istiod.address;
    drop(istiod);
    let Some(RenewalEvent::Waiting { why, not_after: Some(_), .. }) = events.recv().await else { panic!() };
    assert!(why.contains("cannot reach the Istio CA"), "{why}");
    assert_eq!(identity.credential().unwrap().chain(), first.chain());
    let _istiod = Istiod::start(address, &settings.roots, handler).await;
    loop {
        match events.recv().await.unwrap() {
            RenewalEvent::Issued { .. } => break,
            RenewalEvent::Waiting { .. } | RenewalEvent::Expired { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_ne!(identity.credential().unwrap().chain(), first.chain());
    task.abort();
    drop(dir);
}

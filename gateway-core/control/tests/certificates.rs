//! Workloads get and keep certificates from a plane over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod harness;

use std::time::{Duration, SystemTime};

use harness::{State, id};
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use towpath_ca::{
    JoinToken, RenewalEvent, RenewalSettings, Signer, SignerError, SigningAnswer, SigningRequest, TokenKey,
    keep_fresh, request,
};
use towpath_control::{PlaneClient, PlaneError};
use towpath_mesh_mtls::Identity;

const HOUR: Duration = Duration::from_hours(1);

type Events = mpsc::UnboundedReceiver<RenewalEvent>;

fn keep(identity: &Identity, client: PlaneClient) -> (Events, tokio::task::JoinHandle<()>) {
    let (sender, events) = mpsc::unbounded_channel();
    let settings = RenewalSettings { wanted: Some(client.id().clone()), ..RenewalSettings::default() };
    let loops = keep_fresh(identity.clone(), client, settings, move |event| drop(sender.send(event)));
    (events, tokio::spawn(async move { match loops.await {} }))
}

async fn next(events: &mut Events) -> RenewalEvent {
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("an event in time").unwrap()
}

async fn refusal(client: &PlaneClient) -> PlaneError {
    let error = request(client, None, SystemTime::now).await.unwrap_err();
    let towpath_ca::RequestError::Signer(why) = error else { panic!("{error}") };
    *why.downcast().unwrap()
}

#[tokio::test]
async fn a_workload_gets_the_identity_of_its_token() {
    let state = State::new(HOUR);
    let plane = state.start().await;
    let reviews = id("ns/shop/sa/reviews");
    let identity = Identity::pending();
    let (mut events, task) = keep(&identity, state.client(plane.address, &reviews));
    let RenewalEvent::Issued { id, not_after } = next(&mut events).await else { panic!() };
    assert_eq!(id, reviews);
    let left = not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left <= HOUR && left > HOUR.mul_f64(0.9), "{left:?}");
    let credential = identity.credential().unwrap();
    assert_eq!(credential.bundle(), &state.authority().bundle().unwrap());
    task.abort();
}

#[tokio::test]
async fn a_workload_that_starts_first_says_that_it_waits_and_then_gets_its_identity() {
    let state = State::new(HOUR);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let identity = Identity::pending();
    let (mut events, task) = keep(&identity, state.client(address, &id("ns/shop/sa/reviews")));
    let RenewalEvent::Waiting { why, not_after: None, .. } = next(&mut events).await else { panic!() };
    assert!(why.contains(&address.to_string()) && why.contains("start it"), "{why}");
    assert!(!identity.is_ready(SystemTime::now()));
    let _plane = state.serve(TcpListener::bind(address).await.unwrap());
    identity.ready().await;
    loop {
        match next(&mut events).await {
            RenewalEvent::Issued { .. } => break,
            RenewalEvent::Waiting { .. } => {}
            event => panic!("{event:?} cannot have happened"),
        }
    }
    task.abort();
}

#[tokio::test]
async fn a_short_lived_certificate_rotates_before_it_expires() {
    let state = State::new(Duration::from_secs(2));
    let plane = state.start().await;
    let reviews = id("ns/shop/sa/reviews");
    let identity = Identity::pending();
    let client = state.client(plane.address, &reviews).with_identity(identity.clone());
    let (mut events, task) = keep(&identity, client);
    let mut chains = Vec::new();
    for _ in 0..4 {
        let RenewalEvent::Issued { .. } = next(&mut events).await else { panic!("rotation failed") };
        assert!(identity.is_ready(SystemTime::now()));
        chains.push(identity.credential().unwrap().chain().to_vec());
    }
    chains.dedup();
    assert_eq!(chains.len(), 4);
    task.abort();
}

#[tokio::test]
async fn a_certificate_renews_itself_without_any_token() {
    let state = State::new(HOUR);
    let plane = state.start().await;
    let reviews = id("ns/shop/sa/reviews");
    let first = request(&state.client(plane.address, &reviews), None, SystemTime::now).await.unwrap();
    // The token names the root, but its MAC is not one of this plane.
    let forged = TokenKey::generate().unwrap().mint(
        &id("ns/shop/sa/other"),
        state.authority().fingerprint(),
        HOUR,
        SystemTime::now(),
    );
    let client = PlaneClient::new(&plane.address.to_string(), JoinToken::parse(&forged).unwrap()).unwrap();
    assert!(matches!(refusal(&client).await, PlaneError::Refused { status: StatusCode::UNAUTHORIZED, .. }));
    let client = client.with_identity(Identity::new(first));
    let second = request(&client, None, SystemTime::now).await.unwrap();
    assert_eq!(second.id(), &reviews, "the certificate counts, not the token");
}

#[tokio::test]
async fn bad_tokens_are_refused_with_a_text() {
    let state = State::new(HOUR);
    let plane = state.start().await;
    let (reviews, root) = (id("ns/shop/sa/reviews"), state.authority().fingerprint());
    let now = SystemTime::now();
    let expired = state.tokens().mint(&reviews, root, Duration::from_mins(1), now - HOUR);
    let forged = TokenKey::generate().unwrap().mint(&reviews, root, HOUR, now);
    for (token, text) in [(expired, "expired"), (forged, "not minted by this control plane")] {
        let token = JoinToken::parse(&token).unwrap();
        let client = PlaneClient::new(&plane.address.to_string(), token).unwrap();
        let error = refusal(&client).await;
        let PlaneError::Refused { status, detail, .. } = &error else { panic!("{error}") };
        assert_eq!(*status, StatusCode::UNAUTHORIZED);
        assert!(detail.contains(text) && error.to_string().contains(&plane.address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn the_planes_own_identity_is_not_handed_out() {
    let state = State::new(HOUR);
    let plane = state.start().await;
    let error = refusal(&state.client(plane.address, &id("ns/towpath-system/sa/control-plane"))).await;
    assert!(matches!(error, PlaneError::Refused { status: StatusCode::FORBIDDEN, .. }), "{error}");
}

#[tokio::test]
async fn a_server_with_another_root_is_not_trusted() {
    let (state, other) = (State::new(HOUR), State::new(HOUR));
    let impostor = other.start().await;
    let error = refusal(&state.client(impostor.address, &id("ns/shop/sa/reviews"))).await;
    assert!(matches!(error, PlaneError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("not the one of the join token"), "{error}");
}

/// Signs as its client does, and adds roots to the bundle.
struct MoreRoots(PlaneClient, String);

impl Signer for MoreRoots {
    async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
        let answer = self.0.sign(request).await?;
        Ok(SigningAnswer { bundle: answer.bundle + &self.1, ..answer })
    }
}

#[tokio::test]
async fn a_client_certificate_of_another_root_is_refused_by_the_plane() {
    let (state, other) = (State::new(HOUR), State::new(HOUR));
    let (plane, foreign) = (state.start().await, other.start().await);
    let reviews = id("ns/shop/sa/reviews");
    // It trusts the plane, so that the plane is the one to refuse.
    let trusting =
        MoreRoots(other.client(foreign.address, &reviews), state.authority().bundle().unwrap().to_pem());
    let stranger = request(&trusting, None, SystemTime::now).await.unwrap();
    let client = state.client(plane.address, &reviews).with_identity(Identity::new(stranger));
    let error = refusal(&client).await;
    assert!(matches!(error, PlaneError::Broken { .. }), "{error}");
}

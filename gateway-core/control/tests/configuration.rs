//! Workloads get configuration from a plane over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod harness;

use std::fs;
use std::time::{Duration, SystemTime};

use harness::{State, id};
use http::{Request, StatusCode};
use tower::ServiceExt;
use towpath_ca::{JoinToken, TokenKey, request};
use towpath_control::{Configuration, Plane, PlaneClient, PlaneError};
use towpath_gateway_core::Body;
use towpath_mesh_mtls::Identity;

const HOUR: Duration = Duration::from_hours(1);
const SECRET: &str = "kind: Secret\nmetadata: {namespace: shop}\nstringData: {key: hunter2}\n";

#[tokio::test]
async fn a_long_poll_returns_when_the_configuration_changes() {
    let state = State::new(HOUR);
    fs::write(state.config().join("a.yaml"), "kind: Service\n").unwrap();
    let plane = state.start().await;
    let client = state.client(plane.address, &id("ns/shop/sa/reviews"));
    let first = client.fetch_config(None).await.unwrap();
    assert_eq!(first.files[0].text, "kind: Service\n");
    let poll = tokio::spawn({
        let (client, known) = (client.clone(), first.version.clone());
        async move { client.fetch_config(Some(&known)).await }
    });
    fs::write(state.config().join("a.yaml"), "kind: HTTPRoute\n").unwrap();
    let second = tokio::time::timeout(Duration::from_secs(10), poll).await.unwrap().unwrap().unwrap();
    assert_eq!(second.files[0].text, "kind: HTTPRoute\n");
    assert_ne!(second.version, first.version);
    let at_once = client.fetch_config(Some("another")).await.unwrap();
    assert_eq!(at_once, second);
}

#[tokio::test]
async fn secrets_reach_their_own_namespace_alone() {
    let state = State::new(HOUR);
    fs::write(state.config().join("a.yaml"), format!("kind: Service\n---\n{SECRET}---\nkind: HTTPRoute\n"))
        .unwrap();
    fs::write(state.config().join("broken.yaml"), "kind: Gateway\n  spec: [\n").unwrap();
    let plane = state.start().await;
    let text = |account: &'static str| {
        let client = state.client(plane.address, &id(account));
        async move {
            let files = client.fetch_config(None).await.unwrap().files;
            files.into_iter().map(|file| file.text).collect::<String>()
        }
    };
    assert!(text("ns/shop/sa/reviews").await.contains("hunter2"));
    for other in ["ns/edge/sa/gateway", "vm/one", "ns/sho/sa/p"] {
        let seen = text(other).await;
        assert!(
            !seen.contains("hunter2") && seen.contains("HTTPRoute") && seen.contains("Gateway"),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_as_good_as_a_token() {
    let state = State::new(HOUR);
    fs::write(state.config().join("s.yaml"), SECRET).unwrap();
    let plane = state.start().await;
    let reviews = state.client(plane.address, &id("ns/shop/sa/reviews"));
    let credential = request(&reviews, None, SystemTime::now).await.unwrap();
    let forged = TokenKey::generate().unwrap().mint(
        &id("ns/edge/sa/gateway"),
        state.authority().fingerprint(),
        HOUR,
        SystemTime::now(),
    );
    let client = PlaneClient::new(&plane.address.to_string(), JoinToken::parse(&forged).unwrap()).unwrap();
    let error = client.fetch_config(None).await.unwrap_err();
    assert!(matches!(error, PlaneError::Refused { status: StatusCode::UNAUTHORIZED, .. }), "{error}");
    let client = client.with_identity(Identity::new(credential));
    assert!(client.fetch_config(None).await.unwrap().files[0].text.contains("hunter2"));
}

fn plane(state: &State) -> Plane {
    let configuration = Configuration::read([state.config()]).unwrap();
    Plane::new(state.authority().into(), state.tokens(), configuration)
}

fn get(state: &State, path: &str) -> http::request::Builder {
    let token = state.token(&id("ns/shop/sa/reviews"));
    Request::get(path).header("authorization", format!("Bearer {}", token.as_str()))
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_a_change_ends_after_thirty_seconds() {
    let state = State::new(HOUR);
    let plane = plane(&state);
    let first = plane.clone().oneshot(get(&state, "/v1/config").body(Body::empty()).unwrap()).await.unwrap();
    let etag = first.headers()["etag"].clone();
    let version = etag.to_str().unwrap().trim_matches('"').to_owned();
    let began = tokio::time::Instant::now();
    let path = format!("/v1/config?wait={version}");
    let second = plane.clone().oneshot(get(&state, &path).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!((second.status(), &second.headers()["etag"]), (StatusCode::NOT_MODIFIED, &etag));
    assert_eq!(began.elapsed().as_secs(), 30);
    let request = get(&state, "/v1/config").header("if-none-match", &etag).body(Body::empty()).unwrap();
    assert_eq!(plane.oneshot(request).await.unwrap().status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_is_not_served_is_told() {
    let state = State::new(HOUR);
    let plane = plane(&state);
    let long = "x".repeat(40_000);
    for (method, path, body, status) in [
        ("GET", "/", "", StatusCode::NOT_FOUND),
        ("GET", "/v1/certificates", "", StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", "/v1/config", "", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/v1/certificates", "", StatusCode::BAD_REQUEST),
        ("POST", "/v1/certificates", "{\"csr\": \"nonsense\"}", StatusCode::BAD_REQUEST),
        ("POST", "/v1/certificates", &long, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = get(&state, path).method(method).body(Body::from(body.to_owned())).unwrap();
        assert_eq!(plane.clone().oneshot(request).await.unwrap().status(), status, "{method} {path}");
    }
    let foreign = "spiffe://other/ns/shop/sa/reviews".parse().unwrap();
    let bearer = format!("Bearer {}", state.token(&foreign).as_str());
    let request = Request::get("/v1/config").header("authorization", bearer).body(Body::empty()).unwrap();
    assert_eq!(plane.clone().oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
    let bare = plane.oneshot(Request::get("/v1/config").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    assert!(bare.headers().contains_key("www-authenticate"));
}

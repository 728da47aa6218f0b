use http::{HeaderName, Response, StatusCode};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock;
use towpath_gateway_core::{Body, Policies, RescueLayer, RouteName};

use super::*;

fn keys(hide_credential: bool) -> ApiKeys {
    let owner = |key: &str, name: &str| (ApiKeyDigest::of(key), Consumer::new(name));
    ApiKeys {
        name: "shop/keys".into(),
        locations: vec![
            ApiKeyLocation::Header(HeaderName::from_static("x-api-key")),
            ApiKeyLocation::Header(http::header::AUTHORIZATION),
            ApiKeyLocation::Query("key".into()),
        ],
        keys: [owner("alices", "shop/alice"), owner("bobs", "shop/bob")].into(),
        hide_credential,
    }
}

/// What came of a request, and what the inner service saw of it.
async fn send(layer: &ApiKeyLayer, request: Request<()>) -> Result<Request<()>, Fault> {
    layer.layer(service_fn(|request: Request<()>| async { Ok::<_, Fault>(request) })).oneshot(request).await
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let builder =
        headers.iter().fold(Request::get(uri), |builder, (name, value)| builder.header(*name, *value));
    builder.body(()).unwrap()
}

fn consumer(request: &Request<()>) -> Option<&str> {
    Context::find(request.extensions())?.consumer().map(|consumer| &*consumer.name)
}

#[tokio::test]
async fn a_valid_key_names_its_consumer_wherever_it_stands() {
    for (uri, headers, name) in [
        ("/", vec![("x-api-key", "alices")], "shop/alice"),
        ("/", vec![("authorization", "bearer bobs")], "shop/bob"),
        ("/?key=bobs", vec![], "shop/bob"),
        ("/?key=bobs", vec![("x-api-key", "alices")], "shop/alice"),
        ("/?key=bobs", vec![("authorization", "Basic YTpi")], "shop/bob"),
    ] {
        let seen = send(&ApiKeyLayer::with(keys(false)), request(uri, &headers)).await.unwrap();
        assert_eq!(consumer(&seen), Some(name), "{uri} {headers:?}");
        assert_eq!(seen.uri(), uri);
        assert_eq!(seen.headers().len(), headers.len());
    }
}

#[tokio::test]
async fn without_a_valid_key_the_request_ends() {
    for (uri, headers, reason) in [
        ("/", vec![], Reason::CredentialMissing),
        ("/?key=", vec![("authorization", "Basic alices")], Reason::CredentialMissing),
        ("/", vec![("x-api-key", "eves")], Reason::CredentialInvalid),
        ("/", vec![("x-api-key", "Alices")], Reason::CredentialInvalid),
        ("/?key=alices", vec![("x-api-key", "eves")], Reason::CredentialInvalid),
        ("/?key=eves&key=alices", vec![], Reason::CredentialInvalid),
        ("/", vec![("x-api-key", "alices"), ("x-api-key", "alices")], Reason::CredentialInvalid),
    ] {
        let fault = send(&ApiKeyLayer::with(keys(true)), request(uri, &headers)).await.unwrap_err();
        assert_eq!(fault.reason(), reason, "{uri} {headers:?}");
        assert_eq!(fault.policy().map(|name| &**name), Some("shop/keys"));
        assert_eq!(fault.challenge(), Some("Bearer"));
        assert!(!fault.to_string().contains("alices") && !fault.to_string().contains("eves"));
    }
}

#[tokio::test]
async fn a_hidden_key_goes_no_further_and_the_rest_does() {
    for (uri, headers, seen_uri, seen_headers) in [
        ("/a?x=1&key=alices", vec![], "/a?x=1", vec![]),
        ("/a?key=alices", vec![("x-api-key", "alices")], "/a", vec![]),
        ("/a", vec![("x-api-key", "alices"), ("authorization", "Bearer a.b.c")], "/a", vec!["authorization"]),
        ("/a?key=other", vec![("x-api-key", "alices")], "/a?key=other", vec![]),
        ("/a?key=other&key=alices", vec![("x-api-key", "alices")], "/a", vec![]),
        ("/a", vec![("authorization", "Bearer alices"), ("accept", "*/*")], "/a", vec!["accept"]),
    ] {
        let seen = send(&ApiKeyLayer::with(keys(true)), request(uri, &headers)).await.unwrap();
        assert_eq!(seen.uri(), seen_uri, "{uri} {headers:?}");
        let names: Vec<_> = seen.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, seen_headers, "{uri} {headers:?}");
    }
}

#[tokio::test]
async fn the_routes_keys_come_before_the_layers() {
    let route = ApiKeys { keys: [(ApiKeyDigest::of("routes"), Consumer::new("r"))].into(), ..keys(false) };
    let layer = ApiKeyLayer::with(keys(false));
    for (key, passes) in [("routes", true), ("alices", false)] {
        let context = Context::new();
        context.set_route(RouteName::new("r", "0"), Policies::builder().with(route.clone()).build()).unwrap();
        let mut request = request("/", &[("x-api-key", key)]);
        request.extensions_mut().insert(context);
        assert_eq!(send(&layer, request).await.is_ok(), passes, "{key}");
    }
}

#[tokio::test]
async fn without_settings_requests_pass_untouched() {
    let seen = send(&ApiKeyLayer::new(), request("/?key=eves", &[("x-api-key", "eves")])).await.unwrap();
    assert_eq!(
        (seen.uri().to_string().as_str(), seen.headers().len(), consumer(&seen)),
        ("/?key=eves", 1, None)
    );
}

#[tokio::test]
async fn two_layers_that_name_a_consumer_are_a_fault_of_the_stack() {
    let twice =
        ServiceBuilder::new().layer(ApiKeyLayer::with(keys(false))).layer(ApiKeyLayer::with(keys(false)));
    let service = twice.service(service_fn(|request: Request<()>| async { Ok::<_, Fault>(request) }));
    let fault = service.oneshot(request("/", &[("x-api-key", "alices")])).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::Internal);
}

#[tokio::test]
async fn a_refused_request_never_reaches_the_inner_service() {
    let (inner, mut handle) = mock::pair::<Request<()>, Response<()>>();
    let mut service = ApiKeyLayer::with(keys(false))
        .layer(inner.map_err(|error| Fault::new(Reason::Internal).with_source(error)));
    handle.allow(1);
    assert!(service.ready().await.unwrap().call(request("/", &[])).await.is_err());
    drop(service);
    assert!(handle.next_request().await.is_none());
}

#[tokio::test]
async fn the_answer_to_a_stranger_is_401_with_a_challenge() {
    let only_header = ApiKeys {
        locations: vec![ApiKeyLocation::Header(HeaderName::from_static("x-api-key"))],
        ..keys(false)
    };
    let service = ServiceBuilder::new()
        .layer(RescueLayer::new())
        .layer(ApiKeyLayer::with(only_header))
        .service(service_fn(|_: Request<()>| async { Ok::<_, Fault>(Response::new(Body::empty())) }));
    let response = service.oneshot(request("/", &[])).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()[http::header::WWW_AUTHENTICATE], "ApiKey");
}

//! Requests and responses on their way through normalization.

use std::sync::Arc;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Version};
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::Connection;

use super::*;

/// The target and the headers, sorted by name, that the inner service sees.
async fn seen(layer: NormalizeLayer, request: Request<()>) -> Result<String, Reason> {
    let inner = service_fn(|request: Request<()>| async move {
        let lines = request.headers().iter().map(|(n, v)| format!(" {n}={}", v.to_str().unwrap()));
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        Ok::<_, Fault>(Response::new(format!("{}{}", request.uri(), lines.concat())))
    });
    let answer = layer.layer(inner).oneshot(request).await;
    answer.map(Response::into_body).map_err(|fault| fault.reason())
}

fn get(target: &str, lines: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::builder().uri(target).header(HOST, "a").body(()).unwrap();
    for (name, value) in lines {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

fn from_client(mut request: Request<()>) -> Request<()> {
    let connection = Connection::plaintext("127.0.0.7:1".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    request.extensions_mut().insert(Context::on(Arc::new(connection)));
    request
}

#[tokio::test]
async fn the_normal_path_is_what_the_inner_service_sees() {
    let target = "/x/..//%61%2f?q=/../%41";
    let (edge, mesh) = (NormalizeLayer::edge(), NormalizeLayer::mesh());
    assert_eq!(seen(edge, get(target, &[])).await, Ok("/a%2F?q=/../%41 host=a".to_owned()));
    assert_eq!(seen(mesh.clone(), get(target, &[])).await, Ok("//a%2f?q=/../%41 host=a".to_owned()));
    let settings = Live::new(Normalization { paths: PathNormalization::None, ..Normalization::mesh() });
    let live = mesh.with(settings.clone());
    assert_eq!(seen(live.clone(), get(target, &[])).await, Ok(format!("{target} host=a")));
    settings.store(Normalization { paths: PathNormalization::MergeSlashes, ..Normalization::mesh() });
    assert_eq!(seen(live, get(target, &[])).await, Ok("/a%2f?q=/../%41 host=a".to_owned()));
}

#[tokio::test]
async fn the_client_is_who_trusted_proxies_tell() {
    for (trusted_proxies, client) in [(0, None), (1, Some("203.0.113.7")), (2, None)] {
        let settings = Live::new(Normalization { trusted_proxies, ..Normalization::edge() });
        let mut request = from_client(get("/", &[("x-forwarded-for", "203.0.113.7")]));
        let context = Context::of(request.extensions_mut());
        seen(NormalizeLayer::edge().with(settings), request).await.unwrap();
        assert_eq!(
            context.client().copied(),
            client.map(|client| client.parse().unwrap()),
            "{trusted_proxies}"
        );
    }
}

#[tokio::test]
async fn what_has_no_normal_form_is_refused() {
    for target in ["/%00", "/%zz", "/..;/a"] {
        assert_eq!(seen(NormalizeLayer::edge(), get(target, &[])).await, Err(Reason::BadRequest), "{target}");
    }
    for lines in [&[("host", "b")][..], &[("connection", "host")], &[("x_y", "1")]] {
        assert_eq!(seen(NormalizeLayer::edge(), get("/", lines)).await, Err(Reason::BadRequest), "{lines:?}");
    }
}

#[tokio::test]
async fn targets_without_a_path_pass() {
    let request = |method: &str, target: &str| {
        Request::builder().method(method).uri(target).header(HOST, "a:1").body(()).unwrap()
    };
    assert_eq!(seen(NormalizeLayer::edge(), request("OPTIONS", "*")).await, Ok("* host=a:1".to_owned()));
    assert_eq!(seen(NormalizeLayer::edge(), request("CONNECT", "a:1")).await, Ok("a:1 host=a:1".to_owned()));
}

#[tokio::test]
async fn the_edge_writes_the_forwarding_headers_and_the_mesh_keeps_them() {
    let lines = [("x-forwarded-for", "10.0.0.1"), ("x-envoy-a", "1"), ("x-forwarded-proto", "https")];
    let request = || from_client(get("/", &lines));
    assert_eq!(
        seen(NormalizeLayer::edge(), request()).await,
        Ok("/ host=a x-forwarded-for=10.0.0.1, 127.0.0.7 x-forwarded-proto=http".to_owned())
    );
    assert_eq!(
        seen(NormalizeLayer::mesh(), request()).await,
        Ok("/ host=a x-envoy-a=1 x-forwarded-for=10.0.0.1 x-forwarded-proto=https".to_owned())
    );
}

#[tokio::test]
async fn a_client_cannot_have_the_forwarding_headers_stripped() {
    let request =
        from_client(get("/", &[("connection", "x-forwarded-for"), ("x-forwarded-for", "10.0.0.1")]));
    assert_eq!(
        seen(NormalizeLayer::edge(), request).await,
        Ok("/ host=a x-forwarded-for=127.0.0.7 x-forwarded-proto=http".to_owned())
    );
}

#[tokio::test]
async fn host_is_set_from_the_authority() {
    let mut request = Request::builder().uri("https://b.example/").body(()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    assert_eq!(
        seen(NormalizeLayer::mesh(), request).await,
        Ok("https://b.example/ host=b.example".to_owned())
    );
}

#[tokio::test]
async fn cookie_lines_become_one() {
    let request = get("/", &[("cookie", "a=1"), ("cookie", "b=2")]);
    assert_eq!(seen(NormalizeLayer::mesh(), request).await, Ok("/ cookie=a=1; b=2 host=a".to_owned()));
}

/// The answer to a request, to which the backend answered `status` with headers of one hop.
async fn answered(request: Request<()>, status: StatusCode) -> Result<Vec<String>, Reason> {
    let inner = service_fn(move |_: Request<()>| async move {
        let response =
            Response::builder().status(status).header(CONNECTION, "Upgrade, x-hop").header("x-hop", "1");
        Ok::<_, Fault>(response.header(UPGRADE, "websocket").header("x-end", "1").body(()).unwrap())
    });
    let response =
        NormalizeLayer::mesh().layer(inner).oneshot(request).await.map_err(|fault| fault.reason())?;
    let mut names: Vec<_> = response.headers().keys().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn responses_lose_what_concerns_one_hop() {
    let websocket = || get("/", &[("connection", "upgrade"), ("upgrade", "websocket")]);
    let plain = Ok(vec!["x-end".to_owned()]);
    assert_eq!(answered(get("/", &[]), StatusCode::OK).await, plain);
    assert_eq!(answered(websocket(), StatusCode::UPGRADE_REQUIRED).await, plain);
    let kept = Ok(["connection", "upgrade", "x-end"].map(str::to_owned).to_vec());
    assert_eq!(answered(websocket(), StatusCode::SWITCHING_PROTOCOLS).await, kept);
    assert_eq!(answered(get("/", &[]), StatusCode::SWITCHING_PROTOCOLS).await, Err(Reason::UpstreamInvalid));
}

//! The layer between a backend and a service that answers in every way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::{Backend, Body, Policies, RouteName};

use super::*;
use crate::{ExternalAuthProtocol, ExternalHttp, HeaderNames, Pattern};

type Log = Arc<Mutex<Vec<String>>>;

fn auth(max_body: usize) -> ExternalAuth {
    let to_backend = HeaderNames::Listed(vec![Pattern::new("x-user")]);
    let protocol = ExternalAuthProtocol::Http(ExternalHttp { to_backend, ..ExternalHttp::default() });
    let backend = Arc::new(Backend::unresolved("shop/auth:80"));
    ExternalAuth { max_body, ..ExternalAuth::new("shop/web", backend, protocol) }
}

/// The answer's status or the fault, and what service and backend saw: who, `x-user`, body.
async fn through(
    auth: Option<ExternalAuth>,
    mut request: Request,
    answer: fn() -> Result<Response, Fault>,
) -> (Result<Response, Fault>, Context, Vec<String>) {
    let log = Log::default();
    let noting = |log: &Log| {
        let log = Arc::clone(log);
        move |request: Request| {
            let log = Arc::clone(&log);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let user = head.headers.get("x-user").map_or("-", |user| user.to_str().unwrap());
                let who = Context::find(&head.extensions)
                    .and_then(Context::backend)
                    .map_or("backend".into(), |b| b.name.clone());
                log.lock().unwrap().push(format!("{who} {user} {}", String::from_utf8_lossy(&body)));
            }
        }
    };
    let (seen_there, seen_here) = (noting(&log), noting(&log));
    let client = service_fn(move |question| {
        let seen = seen_there(question);
        async move {
            seen.await;
            answer()
        }
    });
    let inner = service_fn(move |request| {
        let seen = seen_here(request);
        async move {
            seen.await;
            Ok::<_, Fault>(Response::new(Body::from("backend")))
        }
    });
    let context = Context::new();
    let policies = Policies::builder();
    let policies = if let Some(auth) = auth { policies.with(auth) } else { policies };
    context.set_route(RouteName::new("shop/web", "0"), policies.build()).unwrap();
    request.extensions_mut().insert(context.clone());
    let answer = ExternalAuthLayer::new(client).layer(inner).oneshot(request).await;
    let log = log.lock().unwrap().clone();
    (answer, context, log)
}

fn request(body: Body) -> Request {
    let mut request = Request::new(body);
    request.headers_mut().insert("x-user", HeaderValue::from_static("forged"));
    request
}

fn status(code: u16) -> Result<Response, Fault> {
    let response = http::Response::builder().status(code).header("x-user", "alice");
    response
        .body(Body::from("of the service"))
        .map_err(|error| Fault::new(Reason::Internal).with_source(error))
}

fn stream(parts: usize) -> Body {
    let frames = (0..parts).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))));
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

#[tokio::test(start_paused = true)]
async fn a_route_without_the_policy_is_not_asked_about() {
    let (answer, _, seen) = through(None, request(Body::from("b")), || status(403)).await;
    assert_eq!((answer.unwrap().status(), seen), (StatusCode::OK, vec!["backend forged b".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_is_allowed_goes_on_with_the_services_headers() {
    for (max, body, shown) in [
        (0, Body::from("abc"), ""),
        (3, Body::from("abc"), "abc"),
        (3, stream(3), "xxx"),
        (3, Body::empty(), ""),
    ] {
        let there = if shown.is_empty() { body.bytes().unwrap() } else { Bytes::from(shown) };
        let (answer, context, seen) = through(Some(auth(max)), request(body), || status(200)).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
        assert_eq!(
            seen,
            [format!("shop/auth:80 - {shown}"), format!("backend alice {}", String::from_utf8_lossy(&there))]
        );
        assert!(context.fault().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_services_own_and_the_log_knows() {
    for (code, seen) in [(401, 401), (302, 302), (204, 403), (404, 404)] {
        let answer: fn() -> Result<Response, Fault> = match code {
            401 => || status(401),
            302 => || status(302),
            204 => || status(204),
            _ => || status(404),
        };
        let (response, context, log) = through(Some(auth(0)), request(Body::empty()), answer).await;
        let response = response.unwrap();
        assert_eq!((response.status().as_u16(), log.len()), (seen, 1), "the backend saw nothing");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "of the service");
        let fault = context.fault().unwrap();
        assert_eq!(
            (fault.reason(), fault.policy().map(|name| &**name)),
            (Reason::ExternalDenied, Some("shop/web"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_client_is_refused_in_its_own_form() {
    let mut request = request(Body::empty());
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let (response, ..) = through(Some(auth(0)), request, || status(401)).await;
    let response = response.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &HeaderValue::from_static("16"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_asked_refuses() {
    for answer in [
        (|| status(500)) as fn() -> Result<Response, Fault>,
        || status(503),
        || Err(Fault::new(Reason::ConnectFailed)),
    ] {
        let (answer, _, seen) = through(Some(auth(0)), request(Body::empty()), answer).await;
        let fault = answer.unwrap_err();
        assert_eq!(
            (fault.reason(), fault.status(), seen.len()),
            (Reason::ExternalAuthFailed, StatusCode::FORBIDDEN, 1)
        );
    }
    let silent = service_fn(|_: Request| std::future::pending::<Result<Response, Fault>>());
    let inner = service_fn(|_: Request| async { Ok::<_, Fault>(Response::new(Body::empty())) });
    let layer = ExternalAuthLayer::new(silent)
        .default_policy(ExternalAuth { status_on_error: StatusCode::BAD_GATEWAY, ..auth(0) });
    let began = tokio::time::Instant::now();
    let fault = layer.layer(inner).oneshot(request(Body::empty())).await.unwrap_err();
    assert_eq!((fault.status(), fault.detail()), (StatusCode::BAD_GATEWAY, "no answer within 5s"));
    assert!(began.elapsed().abs_diff(ExternalAuth::TIMEOUT) < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_refused_unasked() {
    let mut stated = request(stream(1));
    stated.headers_mut().insert("content-length", HeaderValue::from_static("4"));
    for request in [request(Body::from("four")), request(stream(4)), stated] {
        let (answer, _, seen) = through(Some(auth(3)), request, || status(200)).await;
        assert_eq!((answer.unwrap_err().reason(), seen.len()), (Reason::BodyTooLarge, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_longer_body_the_beginning_is_shown_and_all_goes_on() {
    let partly = || ExternalAuth { partial_body: true, ..auth(3) };
    for (body, shown, whole) in [
        (Body::from("abcdef"), "abc", "abcdef"),
        (stream(5), "xxx", "xxxxx"),
        (stream(3), "xxx", "xxx"),
        (Body::from("ab"), "ab", "ab"),
    ] {
        let (answer, _, seen) = through(Some(partly()), request(body), || status(200)).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
        assert_eq!(seen, [format!("shop/auth:80 - {shown}"), format!("backend alice {whole}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_end_is_not_seen_is_not_called_whole() {
    let auth = ExternalAuth { partial_body: true, ..auth(3) };
    for (body, partial) in
        [(Body::from("abc"), false), (Body::from("ab"), false), (stream(2), false), (stream(3), true)]
    {
        let mut request = request(body);
        assert_eq!(super::shown::shown(&auth, &mut request).await.unwrap().partial, partial);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_answer_that_is_too_long_refuses_even_if_failures_pass() {
    let grpc = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
    let open = ExternalAuth { fail_open: true, protocol: grpc, ..auth(0) };
    let (answer, _, seen) = through(Some(open), request(Body::empty()), || {
        let answer = http::Response::builder().header("content-type", "application/grpc");
        Ok(answer.header("grpc-status", "0").body(Body::from(vec![0; (1 << 20) + 1])).unwrap())
    })
    .await;
    let fault = answer.unwrap_err();
    assert_eq!((fault.reason(), seen.len()), (Reason::ExternalAuthFailed, 1));
    assert!(fault.detail().contains("more than 1 MiB"), "{}", fault.detail());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_body_does_not_come_is_one_within_the_time() {
    let began = tokio::time::Instant::now();
    let (response, context, seen) = through(Some(auth(0)), request(Body::empty()), || {
        let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        Ok(http::Response::builder().status(403).body(Body::new(never)).unwrap())
    })
    .await;
    assert!(began.elapsed().abs_diff(ExternalAuth::TIMEOUT) < Duration::from_millis(10));
    let response = response.unwrap();
    assert_eq!((response.status(), seen.len()), (StatusCode::FORBIDDEN, 1));
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(context.fault().unwrap().reason(), Reason::ExternalDenied);
}

#[tokio::test(start_paused = true)]
async fn what_passes_unasked_carries_nothing_of_the_services() {
    let open = ExternalAuth { fail_open: true, ..auth(0) };
    let (answer, _, seen) = through(Some(open), request(Body::empty()), || status(503)).await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert_eq!(seen, ["shop/auth:80 - ", "backend - "]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_carried_out_refuses_even_if_failures_pass() {
    let grpc = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
    let open = ExternalAuth { fail_open: true, protocol: grpc, ..auth(0) };
    let (answer, _, seen) = through(Some(open), request(Body::empty()), || {
        // `OkHttpResponse` with the header `x-user: b\n`.
        let message: &[u8] = b"\0\0\0\0\x12\x1a\x10\x12\x0e\x0a\x0c\x0a\x06x-user\x12\x02b\n";
        let answer = http::Response::builder().header("content-type", "application/grpc");
        Ok(answer.header("grpc-status", "0").body(Body::from(Bytes::from_static(message))).unwrap())
    })
    .await;
    let fault = answer.unwrap_err();
    assert_eq!((fault.reason(), fault.status()), (Reason::ExternalAuthFailed, StatusCode::FORBIDDEN));
    assert!(fault.detail().contains("the value of `x-user` cannot be written"), "{}", fault.detail());
    assert_eq!(seen.len(), 1, "the backend saw nothing");
}

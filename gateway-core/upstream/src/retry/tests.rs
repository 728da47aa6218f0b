//! The layer under paused time, against services that fail in every way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::{
    Backend, Balance, Body, Policies, Replay, RetryBudget, RetryConstraint, RouteName,
};

use super::*;

type Answer = Result<Response<Body>, Fault>;

fn status(code: u16) -> Answer {
    let response = Response::builder().status(code).body(Body::empty());
    response.map_err(|error| Fault::new(Reason::Internal).with_source(error))
}

fn reset(replay: Replay) -> Answer {
    Err(Fault::new(Reason::UpstreamReset).with_replay(replay))
}

fn request(method: Method, body: Body) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    request
}

fn layer() -> RetryLayer {
    let backoff = Duration::from_millis(25);
    let default = Retry { attempts: 2, codes: vec![StatusCode::SERVICE_UNAVAILABLE], backoff };
    RetryLayer::new().with_default(default).with_random(|_| 0)
}

/// Runs `request` against `answers`, given in turn; how many tries there were.
async fn run(layer: RetryLayer, request: Request, answers: Vec<Answer>) -> (Answer, u32) {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let service = layer.layer(service_fn(move |_: Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let answer = answers.lock().unwrap().next().expect("one try too many");
        async move { answer }
    }));
    let answer = service.oneshot(request).await;
    (answer, tries.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_failed_get_is_sent_again_after_the_wait() {
    let began = Instant::now();
    let answers = vec![reset(Replay::IfIdempotent), status(200)];
    let (answer, tries) = run(layer(), request(Method::GET, Body::empty()), answers).await;
    assert_eq!((answer.unwrap().status(), tries), (StatusCode::OK, 2));
    assert!(began.elapsed() >= Duration::from_millis(25));
}

#[tokio::test(start_paused = true)]
async fn a_post_is_sent_again_only_if_nobody_saw_it() {
    let post = || request(Method::POST, Body::from("order"));
    let (answer, tries) = run(layer(), post(), vec![reset(Replay::IfIdempotent)]).await;
    assert_eq!((answer.unwrap_err().reason(), tries), (Reason::UpstreamReset, 1));
    let (answer, tries) = run(layer(), post(), vec![reset(Replay::Always), status(201)]).await;
    assert_eq!((answer.unwrap().status().as_u16(), tries), (201, 2));
    let (answer, tries) = run(layer(), post(), vec![status(503)]).await;
    assert_eq!((answer.unwrap().status().as_u16(), tries), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_counts_when_the_tries_are_used_up() {
    let answers = vec![status(503), reset(Replay::Always), status(503)];
    let (answer, tries) = run(layer(), request(Method::GET, Body::empty()), answers).await;
    assert_eq!((answer.unwrap().status().as_u16(), tries), (503, 3));
}

#[tokio::test(start_paused = true)]
async fn the_route_overrules_the_layer() {
    let context = Context::new();
    let policies = Policies::builder().with(Retry { attempts: 0, ..Retry::default() }).build();
    context.set_route(RouteName::new("shop/web", "0"), policies).unwrap();
    let mut request = request(Method::GET, Body::empty());
    request.extensions_mut().insert(context);
    let (_, tries) = run(layer(), request, vec![reset(Replay::Always)]).await;
    assert_eq!(tries, 1);
}

#[tokio::test(start_paused = true)]
async fn no_try_begins_at_or_after_the_deadline() {
    let context = Context::new();
    context.set_deadline((Instant::now() + Duration::from_millis(40)).into_std()).unwrap();
    let mut request = request(Method::GET, Body::empty());
    request.extensions_mut().insert(context);
    // The second wait (50 ms) would end after the deadline.
    let answers = vec![reset(Replay::Always), reset(Replay::Always)];
    let (answer, tries) = run(layer(), request, answers).await;
    assert_eq!((answer.unwrap_err().reason(), tries), (Reason::UpstreamReset, 2), "what happened is said");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_to_be_retried_and_cannot_be_is_a_timeout() {
    let context = Context::new();
    context.set_deadline((Instant::now() + Duration::from_millis(40)).into_std()).unwrap();
    let mut request = request(Method::GET, Body::empty());
    request.extensions_mut().insert(context);
    let (answer, tries) = run(layer(), request, vec![status(503), status(503)]).await;
    assert_eq!((answer.unwrap_err().reason(), tries), (Reason::UpstreamTimeout, 2));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_sent_once() {
    let mut request = request(Method::GET, Body::empty());
    request.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("websocket"));
    let (_, tries) = run(layer(), request, vec![reset(Replay::Always)]).await;
    assert_eq!(tries, 1);
}

#[tokio::test(start_paused = true)]
async fn every_try_carries_the_same_request_and_record() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let service = layer().layer(service_fn(move |mut request: Request| {
        let log = Arc::clone(&log);
        async move {
            let tries = Context::of(request.extensions_mut()).attempt_count();
            Context::of(request.extensions_mut()).begin_attempt(endpoint());
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            log.lock().unwrap().push((parts.method, parts.uri, parts.headers, body));
            if tries == 0 { reset(Replay::IfIdempotent) } else { status(200) }
        }
    }));
    let mut request = request(Method::PUT, Body::from("whole"));
    *request.uri_mut() = "http://shop.example/cart?x=1".parse().unwrap();
    request.headers_mut().insert("x-id", http::HeaderValue::from_static("7"));
    service.oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1].3, "whole");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_again_only_untouched() {
    for touched in [false, true] {
        let tries = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&tries);
        let service = layer().layer(service_fn(move |mut request: Request| {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if n == 0 && !touched {
                    return reset(Replay::Always);
                }
                let frame = request.body_mut().frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), "streamed");
                if n == 0 { reset(Replay::Always) } else { status(200) }
            }
        }));
        let frame = Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from("streamed")));
        let body = Body::new(StreamBody::new(futures_util::stream::iter([frame])));
        let answer = service.oneshot(request(Method::PUT, body)).await;
        assert_eq!(answer.is_ok(), !touched);
        assert_eq!(tries.load(Ordering::Relaxed), if touched { 1 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_that_hangs_makes_room_for_the_next() {
    let context = Context::new();
    let mut request = request(Method::GET, Body::empty());
    request.extensions_mut().insert(context.clone());
    let service = layer().with_try_timeout(Duration::from_secs(1)).layer(service_fn(
        |mut request: Request| async move {
            let context = Context::of(request.extensions_mut());
            context.begin_attempt(endpoint());
            if context.attempt_count() == 1 {
                std::future::pending::<()>().await;
            }
            status(200)
        },
    ));
    let began = Instant::now();
    assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(2));
    let outcome = context.attempts()[0].outcome().map(|(outcome, _)| outcome);
    assert_eq!(outcome, Some(towpath_gateway_core::Outcome::Fault(Reason::UpstreamTimeout)));
}

fn endpoint() -> Arc<towpath_gateway_core::Endpoint> {
    Arc::new(towpath_gateway_core::Endpoint::plaintext(([127, 0, 0, 1], 1).into()))
}

#[tokio::test(start_paused = true)]
async fn a_backend_whose_budget_is_spent_gets_no_retry() {
    let second = Duration::from_secs(1);
    let constraint = RetryConstraint { percent: 0, interval: second, min_retries: 1, min_interval: second };
    let backend = Backend::new("n/s:80", Balance::default(), Vec::new())
        .with_retry_budget(Some(Arc::new(RetryBudget::new(constraint))));
    let backend = Arc::new(backend);
    let to = |backend: &Arc<Backend>| {
        let mut request = request(Method::GET, Body::empty());
        Context::of(request.extensions_mut()).set_backend(Arc::clone(backend)).unwrap();
        request
    };
    let (answer, tries) = run(layer(), to(&backend), vec![status(503), status(503)]).await;
    assert_eq!((answer.unwrap().status().as_u16(), tries), (503, 2), "one retry is always allowed");
    // The client gets the answer that there is.
    let (answer, tries) = run(layer(), to(&backend), vec![status(503)]).await;
    assert_eq!((answer.unwrap().status().as_u16(), tries), (503, 1));
    let (answer, tries) = run(layer(), to(&backend), vec![reset(Replay::Always)]).await;
    assert_eq!((answer.unwrap_err().reason(), tries), (Reason::UpstreamReset, 1));
    tokio::time::advance(2 * second).await;
    let (answer, tries) = run(layer(), to(&backend), vec![status(503), status(200)]).await;
    assert_eq!((answer.unwrap().status().as_u16(), tries), (200, 2));
}

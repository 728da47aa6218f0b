//! Recording a request without an access log costs one allocation, whatever its body.

#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Body, BodyError, Context};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, RecordLayer, Recorder};

/// Answers with a body that was made before.
struct Answer(Option<Body>);

impl Service<Request<Body>> for Answer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(self.0.take().unwrap_or_default())))
    }
}

fn streamed() -> Body {
    let frames = [Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"hello")))];
    Body::new(StreamBody::new(stream::iter(frames)))
}

fn allocations(recorder: &Recorder, body: fn() -> Body) -> u64 {
    let mut service = RecordLayer::new(recorder.clone()).layer(Answer(Some(body())));
    let mut request = Request::new(Body::empty());
    Context::of(request.extensions_mut());
    allocation_counter::measure(|| {
        let response = service.call(request).now_or_never().unwrap().unwrap();
        let mut body = response.into_body();
        while body.frame().now_or_never().flatten().is_some() {}
    })
    .count_total
}

#[test]
fn a_request_costs_one_allocation() {
    let metrics = Metrics::new();
    let facts = ProcessFacts::new("gateway", "shop/gateway", "home");
    let recorder = Recorder::new(facts, metrics.shard(), AccessLog::off()).listener("public");
    // The first request opens the series.
    allocations(&recorder, Body::empty);
    for body in [Body::empty, || Body::from("hello"), streamed] {
        assert_eq!(allocations(&recorder, body), 1);
    }
    let text = metrics.encode().unwrap();
    assert!(text.contains("code=\"200\",reason=\"none\"} 4"), "{text}");
}

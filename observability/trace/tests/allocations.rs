//! The layers of this crate allocate the value of `traceparent`, and nothing else.

#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::Request;
use tower::ServiceBuilder;
use tower_service::Service;
use towpath_gateway_core::{Context, Endpoint};
use towpath_trace::{SpanLayer, TraceLayer};

#[derive(Clone)]
struct Check;

impl Service<Request<()>> for Check {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(request.headers().contains_key("traceparent"));
        ready(Ok(()))
    }
}

fn allocations(trace: TraceLayer) -> u64 {
    let mut stack = ServiceBuilder::new().layer(trace).layer(SpanLayer::new()).service(Check);
    let request = || {
        let mut request = Request::new(());
        request.headers_mut().reserve(4);
        let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()));
        Context::of(request.extensions_mut()).begin_attempt(endpoint);
        request
    };
    // The first pass fills what threads keep.
    drop(stack.call(request()));
    let request = request();
    allocation_counter::measure(|| drop(stack.call(request))).count_total
}

#[test]
fn each_layer_costs_one_header_value_and_only_where_it_writes_one() {
    assert_eq!(allocations(TraceLayer::new()), 2);
    assert_eq!(allocations(TraceLayer::new().header(false)), 1);
}

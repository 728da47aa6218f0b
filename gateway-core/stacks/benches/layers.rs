//! What each layer costs, beside the bare leaf that stands below it: `cargo bench -p towpath-stacks`.
//!
//! Nothing here waits: the leaf answers at once, so that a request is one call and one poll. Divide a layer's time by that
//! of `leaf` with the same preparation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use support::{entry, parts};
use tower::{Layer, Service};
use towpath_auth::{ApiKeyLayer, AuthorizeLayer};
use towpath_gateway_core::{Body, Connection, Context, HttpService, Request, RescueLayer, Response};
use towpath_observability::RecordLayer;
use towpath_rate_limit::RateLimitLayer;
use towpath_routing::{FilterLayer, NormalizeLayer, RequestFacts, RouteLayer};
use towpath_stacks::{Entry, Parts, gateway};
use towpath_trace::{SpanLayer, TraceLayer};
use towpath_upstream::{BalanceLayer, DeadlineLayer, RetryLayer};

#[derive(Clone)]
struct Leaf;

impl Service<Request> for Leaf {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}

/// How far a request has come before the layer sees it.
#[derive(Clone, Copy)]
enum Prepared {
    Fresh,
    Routed,
    /// The backend is chosen.
    Backed,
    Tried,
}

struct Ground {
    entry: Entry,
    connection: Arc<Connection>,
}

impl Ground {
    fn new() -> Self {
        let address = "127.0.0.1:1".parse().unwrap();
        Self { entry: entry(address), connection: Arc::new(Connection::plaintext(address, address)) }
    }

    fn request(&self, prepared: Prepared) -> Request {
        let mut request = http::Request::get("/r7/books?page=2").body(Body::empty()).unwrap();
        request.headers_mut().insert("host", http::HeaderValue::from_static("shop.example"));
        request.headers_mut().insert("accept", http::HeaderValue::from_static("*/*"));
        let context = Context::on(Arc::clone(&self.connection));
        if !matches!(prepared, Prepared::Fresh) {
            self.route(&request, &context);
        }
        if matches!(prepared, Prepared::Backed | Prepared::Tried) {
            let action = context.policy::<towpath_routing::RuleAction>().unwrap();
            let backend = Arc::clone(&action.backends()[0].backend);
            context.set_backend(Arc::clone(&backend)).unwrap();
            if matches!(prepared, Prepared::Tried) {
                context.begin_attempt(Arc::clone(&backend.endpoints().unwrap()[0]));
            }
        }
        request.extensions_mut().insert(context);
        request
    }

    fn route(&self, request: &Request, context: &Context) {
        let facts = RequestFacts {
            host: "shop.example",
            path: request.uri().path(),
            query: "",
            method: request.method(),
            headers: request.headers(),
        };
        let routes = self.entry.routes.load();
        let matched = routes.decide(&facts).unwrap();
        context.set_route(matched.name.clone(), matched.policies.clone()).unwrap();
    }
}

fn layers(criterion: &mut Criterion) {
    let (ground, parts) = (Ground::new(), parts());
    let mut bench = Bench { criterion, ground: &ground };
    bench.run("leaf/fresh", Prepared::Fresh, Leaf);
    bench.run("trace", Prepared::Fresh, TraceLayer::new().header(false).layer(Leaf));
    bench.run("record", Prepared::Fresh, RecordLayer::new(parts.recorder.clone()).layer(Leaf));
    bench.run("rescue", Prepared::Fresh, RescueLayer::new().layer(Leaf));
    bench.run("normalize", Prepared::Fresh, NormalizeLayer::edge().layer(Leaf));
    bench.run("route", Prepared::Fresh, RouteLayer::new(ground.entry.routes.clone()).layer(Leaf));
    bench.run("seam", Prepared::Fresh, HttpService::new(Leaf));
    bench.run("leaf/routed", Prepared::Routed, Leaf);
    bench.run("api-key", Prepared::Routed, ApiKeyLayer::new().layer(Leaf));
    let policies = ground.entry.authorization.clone();
    bench.run("authorize", Prepared::Routed, AuthorizeLayer::new(policies).port(80).layer(Leaf));
    bench.run("rate-limit", Prepared::Routed, RateLimitLayer::new(Arc::clone(&parts.limits)).layer(Leaf));
    bench.run("filter", Prepared::Routed, FilterLayer::new().layer(Leaf));
    bench.run("leaf/backed", Prepared::Backed, Leaf);
    bench.run("deadline", Prepared::Backed, DeadlineLayer::new().layer(Leaf));
    bench.run("retry", Prepared::Backed, RetryLayer::new().layer(Leaf));
    bench.run("balance", Prepared::Backed, BalanceLayer::new().layer(Leaf));
    bench.run("leaf/tried", Prepared::Tried, Leaf);
    bench.run("span", Prepared::Tried, SpanLayer::new().layer(Leaf));
    let whole = gateway(Parts { upstream: HttpService::new(Leaf), ..parts }, ground.entry.clone());
    bench.run("gateway, all layers", Prepared::Fresh, whole);
}

struct Bench<'a> {
    criterion: &'a mut Criterion,
    ground: &'a Ground,
}

impl Bench<'_> {
    fn run<S>(&mut self, name: &str, prepared: Prepared, mut service: S)
    where
        S: Service<Request, Response: Send>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || self.ground.request(prepared),
                |request| {
                    let mut task = Task::from_waker(Waker::noop());
                    assert!(service.poll_ready(&mut task).is_ready());
                    let answer = pin!(service.call(request)).poll(&mut task);
                    assert!(matches!(answer, Poll::Ready(Ok(_))), "the leaf answers at once");
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);

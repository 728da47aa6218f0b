//! The layers of this crate allocate what they add to a request, and nothing else.

#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Request, Response};
use tower::ServiceBuilder;
use tower_service::Service;
use towpath_gateway_core::{Backend, Balance, Connection, Context, Endpoint, Live, RouteName};
use towpath_routing::{
    FilterLayer, Hostname, Listener, NormalizeLayer, RequestMatch, Route, RouteLayer, Routes, Rule,
    WeightedBackend,
};

#[derive(Clone)]
struct Answer;

impl Service<Request<()>> for Answer {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(Context::find(request.extensions()).is_some_and(|context| context.backend().is_some()));
        ready(Ok(Response::new(())))
    }
}

/// A hundred routes by prefix, on one host.
fn table() -> Routes {
    let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()));
    let backend = Arc::new(Backend::new("shop/b:1", Balance::default(), vec![endpoint]));
    let route = |n: usize| {
        let name = format!("shop/r{n}");
        let matches = vec![RequestMatch::prefix(format!("/r{n}"))];
        let rule =
            Rule::new(RouteName::new(&*name, "0"), matches, vec![WeightedBackend::new(backend.clone(), 1)]);
        Route::new(name, vec![rule])
    };
    Routes::new(vec![Listener {
        name: "shop/edge/http".into(),
        hostname: Hostname::Exact("shop.example".into()),
        port: 80,
        https: false,
        routes: (0..100).map(route).collect(),
    }])
}

fn request() -> Request<()> {
    let request = Request::get("/r50/x?y=1").header("host", "shop.example:8080").header("user-agent", "test");
    let mut request = request.header("accept", "*/*").body(()).unwrap();
    request.headers_mut().reserve(8);
    let addresses = ("127.0.0.9:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    let context = Context::on(Arc::new(Connection::plaintext(addresses.0, addresses.1)));
    request.extensions_mut().insert(context);
    request
}

#[test]
fn an_edge_request_costs_one_header_value() {
    let mut stack = ServiceBuilder::new()
        .layer(NormalizeLayer::edge())
        .layer(RouteLayer::new(Live::new(table())))
        .layer(FilterLayer::new())
        .service(Answer);
    // The first pass fills what threads keep.
    stack.call(request()).now_or_never().unwrap().unwrap();
    let request = request();
    let counted = allocation_counter::measure(|| {
        assert!(stack.call(request).now_or_never().is_some_and(|answer| answer.is_ok()));
    });
    assert_eq!(counted.count_total, 1, "`X-Forwarded-For`");
}

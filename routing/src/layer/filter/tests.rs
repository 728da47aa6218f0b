//! Requests on their way through a route and its filters.

use http::{HeaderName, HeaderValue, StatusCode, Version};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use towpath_gateway_core::{Backend, Balance, Live};

use super::*;
use crate::table::fixture::{listener, route, rule};
use crate::{
    Filters, HeaderModifier, PathMatch, PathRewrite, RequestMatch, Rewrite, RouteLayer, Routes, Rule,
};

/// What the backend saw, and the context of the request.
struct Seen {
    answer: Result<Response<String>, Fault>,
    context: Context,
}

async fn through(rule: Rule, draw: fn(u64) -> u64, mut request: Request<()>) -> Seen {
    let context = Context::of(request.extensions_mut());
    let routes = Live::new(Routes::new(vec![listener("*", vec![route("n/r", &[], vec![rule])])]));
    // The backend echoes target and headers, and sends headers that filters may change.
    let backend = service_fn(|request: Request<()>| async move {
        let lines = request.headers().iter().map(|(n, v)| format!(" {n}={}", v.to_str().unwrap()));
        let mut response = Response::new(format!("{}{}", request.uri(), lines.collect::<String>()));
        response.headers_mut().insert("from", HeaderValue::from_static("backend"));
        Ok::<_, Fault>(response)
    });
    let stack = ServiceBuilder::new().layer(RouteLayer::new(routes)).layer(FilterLayer::with_draw(draw));
    Seen { answer: stack.service(backend).oneshot(request).await, context }
}

fn to(name: &str, weight: u32) -> WeightedBackend {
    WeightedBackend::new(Arc::new(Backend::new(name, Balance::default(), Vec::new())), weight)
}

fn with(filters: Filters) -> Rule {
    Rule { filters, backends: vec![to("b", 1)], ..rule("0", &["/p"]) }
}

fn add(name: &'static str, value: &'static str) -> HeaderModifier {
    let line = (HeaderName::from_static(name), HeaderValue::from_static(value));
    HeaderModifier { add: vec![line], ..HeaderModifier::default() }
}

fn get(target: &str) -> Request<()> {
    Request::builder().uri(target).header(HOST, "a.example").body(()).unwrap()
}

fn redirect(path: Option<PathRewrite>) -> Redirect {
    Redirect {
        scheme: Some("https".into()),
        host: None,
        port: None,
        path,
        status: StatusCode::MOVED_PERMANENTLY,
    }
}

#[tokio::test]
async fn the_backend_is_chosen_by_weight_and_written_down() {
    for (draw, wanted) in [((|_| 0) as fn(u64) -> u64, "b"), (|bound| bound - 1, "c")] {
        let backends = vec![to("a", 0), to("b", 1), to("c", 9)];
        let seen = through(Rule { backends, ..rule("0", &["/"]) }, draw, get("/")).await;
        assert_eq!(seen.answer.unwrap().status(), StatusCode::OK);
        assert_eq!(seen.context.backend().map(|backend| &*backend.name), Some(wanted));
    }
}

#[tokio::test]
async fn what_cannot_be_resolved_ends_as_500_and_is_never_served() {
    let unresolved = WeightedBackend { backend: Arc::new(Backend::unresolved("x")), ..to("x", 1) };
    let regex_rule = Rule {
        matches: vec![RequestMatch { path: PathMatch::Exact("/p".into()), ..RequestMatch::default() }],
        ..with(Filters {
            redirect: Some(redirect(Some(PathRewrite::Prefix("/x".into())))),
            ..Filters::default()
        })
    };
    let rewrite = |rewrite| with(Filters { rewrite: Some(rewrite), ..Filters::default() });
    for rule in [
        with(Filters { unresolved: true, ..Filters::default() }),
        with(Filters { unresolved: true, redirect: Some(redirect(None)), ..Filters::default() }),
        Rule { backends: Vec::new(), ..with(Filters::default()) },
        Rule { backends: vec![to("a", 0)], ..with(Filters::default()) },
        Rule { backends: vec![unresolved], ..with(Filters::default()) },
        regex_rule,
        rewrite(Rewrite { host: Some("not a host".into()), path: None }),
        rewrite(Rewrite { host: None, path: Some(PathRewrite::Full("/x?y".into())) }),
        rewrite(Rewrite { host: None, path: Some(PathRewrite::Full("/x#y".into())) }),
        rewrite(Rewrite { host: None, path: Some(PathRewrite::Full("/x y".into())) }),
    ] {
        let fault = through(rule.clone(), |_| 0, get("/p")).await.answer.unwrap_err();
        assert_eq!(fault.reason(), Reason::Unresolved, "{rule:?}");
    }
}

#[tokio::test]
async fn headers_change_on_the_way_in_and_in_reverse_on_the_way_out() {
    let mut rule = with(Filters {
        request_headers: add("x", "rule"),
        response_headers: add("from", "rule"),
        ..Filters::default()
    });
    rule.backends[0].request_headers = add("x", "ref");
    rule.backends[0].response_headers = add("from", "ref");
    let response = through(rule, |_| 0, get("/p")).await.answer.unwrap();
    let from: Vec<_> = response.headers().get_all("from").iter().collect();
    assert_eq!(from, ["backend", "ref", "rule"]);
    assert_eq!(response.body(), "/p host=a.example x=rule x=ref");
}

#[tokio::test]
async fn the_changes_of_the_chosen_backend_alone_are_made() {
    let mut rule = Rule { backends: vec![to("a", 1), to("b", 1)], ..with(Filters::default()) };
    rule.backends[0].response_headers = add("from", "a");
    rule.backends[1].response_headers = add("from", "b");
    let response = through(rule, |_| 1, get("/p")).await.answer.unwrap();
    assert_eq!(response.headers().get_all("from").iter().collect::<Vec<_>>(), ["backend", "b"]);
}

#[tokio::test]
async fn host_and_path_are_rewritten_and_the_query_is_kept() {
    let rewrite = Rewrite { host: Some("other".into()), path: Some(PathRewrite::Prefix("/q".into())) };
    let rule = with(Filters { rewrite: Some(rewrite), ..Filters::default() });
    let response = through(rule.clone(), |_| 0, get("/p/x?y=z")).await.answer.unwrap();
    assert_eq!(response.body(), "/q/x?y=z host=other");
    let mut absolute = get("http://a.example/p/x");
    *absolute.version_mut() = Version::HTTP_2;
    let response = through(rule, |_| 0, absolute).await.answer.unwrap();
    assert_eq!(response.body(), "http://other/q/x host=other");
}

#[tokio::test]
async fn a_redirect_answers_without_a_backend() {
    let filters = Filters {
        redirect: Some(redirect(Some(PathRewrite::Full("/new".into())))),
        response_headers: add("from", "rule"),
        ..Filters::default()
    };
    let seen = through(Rule { backends: Vec::new(), ..with(filters) }, |_| 0, get("/p?q=1")).await;
    let response = seen.answer.unwrap();
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.headers()[LOCATION], "https://a.example/new?q=1");
    assert_eq!((&response.headers()["from"], &**response.body()), (&HeaderValue::from_static("rule"), ""));
    assert!(seen.context.backend().is_none());
}

#[tokio::test]
async fn a_backend_rewrites_and_redirects_for_its_own_share() {
    let rewrite = |host: Option<&str>, path: Option<&str>| {
        Some(Rewrite { host: host.map(Into::into), path: path.map(|path| PathRewrite::Prefix(path.into())) })
    };
    let mut rule = Rule {
        backends: vec![to("a", 1), to("b", 1), to("c", 1)],
        ..with(Filters { rewrite: rewrite(Some("rule"), Some("/rule")), ..Filters::default() })
    };
    rule.backends[1].rewrite = rewrite(None, Some("/own"));
    rule.backends[2].redirect = Some(redirect(None));
    let response = through(rule.clone(), |_| 0, get("/p/x")).await.answer.unwrap();
    assert_eq!(response.body(), "/rule/x host=rule");
    let response = through(rule.clone(), |_| 1, get("/p/x")).await.answer.unwrap();
    assert_eq!(response.body(), "/own/x host=rule", "its own path, and the rule's host");
    let response = through(rule.clone(), |_| 2, get("/p/x")).await.answer.unwrap();
    assert_eq!(response.headers()[LOCATION], "https://a.example/p/x");
    rule.backends[0].rewrite = rewrite(Some("not a host"), None);
    let fault = through(rule, |_| 0, get("/p")).await.answer.unwrap_err();
    assert_eq!(fault.reason(), Reason::Unresolved);
}

#[tokio::test]
async fn a_redirect_needs_a_host() {
    let filters = Filters { redirect: Some(redirect(None)), ..Filters::default() };
    let request = Request::builder().uri("/p").body(()).unwrap();
    let fault = through(with(filters), |_| 0, request).await.answer.unwrap_err();
    assert_eq!(fault.reason(), Reason::BadRequest);
}

#[tokio::test]
async fn a_request_without_rule_is_a_fault_of_the_stack() {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Fault>(Response::new(())) });
    let fault = FilterLayer::new().layer(inner).oneshot(get("/")).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::Internal);
}

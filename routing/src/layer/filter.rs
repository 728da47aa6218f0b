//! Carries out the action of the rule that took a request.
//!
//! - **reads** the rule's [`RuleAction`] in the context's route; the session; the host for redirects
//! - **writes** the context's backend; the request's headers, `Host` and path; the response's headers
//! - **ends a request with** a redirect; 500 if a filter or the chosen backend is unresolved, or no backend has a share
//! - **settings** those of the rule; the source of random numbers
//! - **place** the last before the seam to the backend: authentication and authorization see the request unchanged

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::header::{HOST, LOCATION};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Reason};

use super::host::host_of;
use crate::filter::Draw;
use crate::filter::path::replaced;
use crate::filter::redirect::location;
use crate::{Redirect, RuleAction, WeightedBackend, uri};

/// Applies [`Filter`].
///
/// ```
/// use axum::{Router, http::StatusCode, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Live, Policies, RescueLayer, RouteName};
/// use towpath_routing::{FilterLayer, Filters, Hostname, Listener, Redirect, Route, RouteLayer, Routes, Rule};
///
/// // Sends every client to HTTPS.
/// let redirect =
///     Redirect { scheme: Some("https".into()), host: None, port: None, path: None, status: StatusCode::FOUND };
/// let rule = Rule {
///     name: RouteName::new("shop/to-https", "0"),
///     matches: Vec::new(), // every path
///     filters: Filters { redirect: Some(redirect), ..Filters::default() },
///     backends: Vec::new(),
///     policies: Policies::default(),
/// };
/// let route = Route { name: "shop/to-https".into(), created: 0, hostnames: Vec::new(), rules: vec![rule] };
/// let listener = Listener {
///     name: "shop/gateway/http".into(),
///     hostname: Hostname::Any,
///     port: 80,
///     https: false,
///     routes: vec![route],
/// };
///
/// let stack = ServiceBuilder::new()
///     .layer(RescueLayer::new())
///     .layer(RouteLayer::new(Live::new(Routes::new(vec![listener]))))
///     .layer(FilterLayer::new());
/// let app: Router = Router::new().route("/", get(|| async { "never seen" })).layer(stack);
/// # use axum::{body::Body, extract::Request};
/// # use tower::ServiceExt as _;
/// # let request = Request::builder().uri("/?a=b").header("host", "shop.example").body(Body::empty()).unwrap();
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let response = runtime.block_on(app.oneshot(request)).unwrap();
/// # assert_eq!(response.headers()["location"], "https://shop.example/?a=b");
/// ```
#[derive(Debug, Clone)]
pub struct FilterLayer<D = fn(u64) -> u64> {
    draw: D,
}

impl FilterLayer {
    /// A layer that chooses backends with [`fastrand`].
    pub fn new() -> Self {
        Self { draw: |bound| fastrand::u64(..bound) }
    }
}

impl Default for FilterLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Draw> FilterLayer<D> {
    /// A layer that chooses backends with the numbers of `draw`.
    pub fn with_draw(draw: D) -> Self {
        Self { draw }
    }
}

impl<S, D: Clone> Layer<S> for FilterLayer<D> {
    type Service = Filter<S, D>;

    fn layer(&self, inner: S) -> Filter<S, D> {
        Filter { inner, draw: self.draw.clone() }
    }
}

/// Redirects, or changes a request and chooses its backend. `Host` is changed in the header, and in the URI where it
/// names an authority. The response body has to have an empty form, for redirects.
#[derive(Debug, Clone)]
pub struct Filter<S, D = fn(u64) -> u64> {
    inner: S,
    draw: D,
}

impl<S, B, R, D> Service<Request<B>> for Filter<S, D>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
    R: Default,
    D: Draw,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = FilterFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let state = match carry_out(&context, &mut request, &self.draw) {
            Ok(Next::Pass(changes)) => State::Passed { answer: self.inner.call(request), changes },
            Ok(Next::Answer(response)) => State::Ended { end: Some(Ok(response)) },
            Err(fault) => State::Ended { end: Some(Err(fault)) },
        };
        FilterFuture { state }
    }
}

enum Next<R> {
    /// To the backend; the answer's headers are changed if there is something here.
    Pass(Option<Changes>),
    Answer(Response<R>),
}

/// Where the changes to an answer are found again: the context's route, and the place of the backend in it.
struct Changes(Context, usize);

fn carry_out<B, R: Default>(
    context: &Context,
    request: &mut Request<B>,
    draw: &impl Draw,
) -> Result<Next<R>, Fault> {
    let Some(action) = context.policy::<RuleAction>() else {
        let detail = "the request has no rule: a route layer has to stand before the filter layer";
        return Err(Fault::new(Reason::Internal).with_detail(detail));
    };
    if !action.sound {
        return Err(unresolved("a filter of the rule could not be resolved"));
    }
    if let Some(redirect) = &action.filters().redirect {
        return redirected(redirect, action, request).map(Next::Answer);
    }
    let (place, chosen) = choose(context, action, draw)?;
    if let Some(redirect) = &chosen.redirect {
        return redirected(redirect, action, request).map(Next::Answer);
    }
    action.filters().request_headers.apply(request.headers_mut());
    chosen.request_headers.apply(request.headers_mut());
    rewrite(action, place, chosen, request)?;
    context.set_backend(Arc::clone(&chosen.backend))?;
    let silent = chosen.response_headers.is_empty() && action.filters().response_headers.is_empty();
    Ok(Next::Pass((!silent).then(|| Changes(context.clone(), place))))
}

fn unresolved(detail: &'static str) -> Fault {
    Fault::new(Reason::Unresolved).with_detail(detail)
}

fn choose<'a>(
    context: &Context,
    action: &'a RuleAction,
    draw: &impl Draw,
) -> Result<(usize, &'a WeightedBackend), Fault> {
    let home = context.session().and_then(|session| {
        action.backends().iter().position(|own| Arc::ptr_eq(&own.backend, &session.backend))
    });
    let place = home
        .or_else(|| action.rule.split.choose(draw))
        .ok_or_else(|| unresolved("the rule has no backend with a weight"))?;
    match action.backends().get(place) {
        Some(chosen) if chosen.backend.endpoints().is_some() => Ok((place, chosen)),
        _ => Err(unresolved("the backend reference could not be resolved")),
    }
}

fn redirected<B, R: Default>(
    redirect: &Redirect,
    action: &RuleAction,
    request: &Request<B>,
) -> Result<Response<R>, Fault> {
    let location = location(redirect, action, &host_of(request), request.uri()).ok_or_else(|| {
        Fault::new(Reason::BadRequest).with_detail("the request names no host to redirect to")
    })?;
    let mut response = Response::new(R::default());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    action.filters().response_headers.apply(response.headers_mut());
    Ok(response)
}

/// What the backend has of its own comes before what the rule has.
fn rewrite<B>(
    action: &RuleAction,
    place: usize,
    chosen: &WeightedBackend,
    request: &mut Request<B>,
) -> Result<(), Fault> {
    let both = [&chosen.rewrite, &action.filters().rewrite];
    if both.iter().all(|rewrite| rewrite.is_none()) {
        return Ok(());
    }
    let host = action.rule.own_hosts.get(place).and_then(Option::as_ref).or(action.rule.host.as_ref());
    if let Some((host, _)) = host {
        request.headers_mut().insert(HOST, host.clone());
    }
    let path = both.into_iter().flatten().find_map(|rewrite| rewrite.path.as_ref());
    let prefix = action.prefix.as_deref();
    let path = path.map(|path| replaced(path, prefix, request.uri().path()).into_owned());
    uri::change(request.uri_mut(), path.as_deref(), host.map(|(_, authority)| authority))
}

impl Changes {
    // The backend's first, then the rule's: the reverse of the way in.
    fn apply<R>(&self, response: &mut Response<R>) {
        let Some(action) = self.0.policy::<RuleAction>() else { return };
        if let Some(chosen) = action.backends().get(self.1) {
            chosen.response_headers.apply(response.headers_mut());
        }
        action.filters().response_headers.apply(response.headers_mut());
    }
}

pin_project! {
    /// The answer of [`Filter`].
    pub struct FilterFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> {
        Passed { #[pin] answer: F, changes: Option<Changes> },
        Ended { end: Option<Result<Response<R>, Fault>> },
    }
}

impl<F, R, E> Future for FilterFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response<R>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProjection::Ended { end } => end.take().unwrap_or_else(|| Err(Fault::new(Reason::Internal))),
            StateProjection::Passed { answer, changes } => {
                let mut answer = ready!(answer.poll(cx)).map_err(Into::into);
                if let (Ok(response), Some(changes)) = (&mut answer, changes) {
                    changes.apply(response);
                }
                answer
            }
        })
    }
}

#[cfg(test)]
mod tests;

//! Answers requests in place of a backend.
//!
//! - **reads** the route's [`DirectResponse`] and the [`RuleAction`] with the changes to its answer's headers
//! - **writes** nothing in the record; the answer's headers, as the rule's `ResponseHeaderModifier` says
//! - **ends a request with** the answer, if there is one and the rule's filters are all resolved
//! - **settings** the route's; the layer's own for services without routes
//! - **place** right outside of the filter layer: who may ask and how often has been decided, and faults are injected
//!   before it

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Body, Context, Fault, Reason, is_grpc};

use crate::{DirectResponse, RuleAction};

/// Applies [`RespondDirectly`].
///
/// ```
/// use axum::{Router, http::StatusCode, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Body, RescueLayer};
/// use towpath_routing::{DirectResponse, RespondLayer};
///
/// let closed = DirectResponse {
///     status: StatusCode::SERVICE_UNAVAILABLE,
///     body: "back at noon".into(),
///     content_type: Some("text/plain".parse()?),
/// };
/// let app: Router = Router::new().route("/", get(|| async { "never seen" })).layer(
///     ServiceBuilder::new()
///         .layer(RescueLayer::new())
///         .layer(RespondLayer::new().default_policy(closed))
///         .map_response(|response: axum::response::Response| response.map(Body::new)),
/// );
/// # use tower::ServiceExt as _;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let request = axum::extract::Request::new(axum::body::Body::empty());
/// # assert_eq!(runtime.block_on(app.oneshot(request)).unwrap().status(), 503);
/// # Ok::<(), axum::http::header::InvalidHeaderValue>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct RespondLayer {
    default: Option<Arc<DirectResponse>>,
}

impl RespondLayer {
    /// Requests of routes without [`DirectResponse`] pass untouched.
    pub fn new() -> Self {
        Self::default()
    }

    /// What holds for routes that carry none, and for services without routing.
    #[must_use]
    pub fn default_policy(self, policy: DirectResponse) -> Self {
        Self { default: Some(Arc::new(policy)) }
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = RespondDirectly<S>;

    fn layer(&self, inner: S) -> RespondDirectly<S> {
        RespondDirectly { inner, default: self.default.clone() }
    }
}

/// Answers what has a fixed answer, and passes the rest on.
#[derive(Debug, Clone)]
pub struct RespondDirectly<S> {
    inner: S,
    default: Option<Arc<DirectResponse>>,
}

impl<S, B> Service<Request<B>> for RespondDirectly<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error: Into<Fault>>,
{
    type Response = Response<Body>;
    type Error = Fault;
    type Future = RespondFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let action = context.policy::<RuleAction>();
        let direct = context.policy::<DirectResponse>().or(self.default.as_deref());
        // What is wrong with the rule is said by the filter layer.
        let direct = direct.filter(|_| action.is_none_or(|action| action.sound));
        let state = match direct {
            None => State::Passed { answer: self.inner.call(request) },
            Some(direct) => {
                let mut response = direct.response(is_grpc(request.headers()));
                if let Some(action) = action {
                    action.filters().response_headers.apply(response.headers_mut());
                }
                State::Answered { response: Some(response) }
            }
        };
        RespondFuture { state }
    }
}

pin_project! {
    /// The answer of [`RespondDirectly`].
    pub struct RespondFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] answer: F },
        Answered { response: Option<Response<Body>> },
    }
}

impl<F, E> Future for RespondFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response<Body>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Passed { answer } => answer.poll(cx).map_err(Into::into),
            StateProjection::Answered { response } => {
                Poll::Ready(response.take().ok_or_else(|| Fault::new(Reason::Internal)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use http::{HeaderName, HeaderValue, StatusCode};
    use http_body_util::BodyExt;
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Policies, RouteName};

    use super::*;
    use crate::{Filters, HeaderModifier, Listener, Rule};

    fn teapot() -> DirectResponse {
        DirectResponse {
            status: StatusCode::NOT_FOUND,
            body: "not here".into(),
            content_type: Some(HeaderValue::from_static("text/plain")),
        }
    }

    async fn answer(filters: Filters, policies: Policies, grpc: bool) -> Response<Body> {
        let name = RouteName::new("n/r", "0");
        let rule = Rule { filters, ..Rule::new(name.clone(), Vec::new(), Vec::new()) };
        let action = RuleAction::of(&rule, &Listener::http("l", 80, Vec::new()));
        let context = Context::new();
        context.set_route(name, policies.merged(&Policies::builder().with(action).build())).unwrap();
        let mut request = Request::new(Body::empty());
        if grpc {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        request.extensions_mut().insert(context);
        let inner =
            service_fn(|_: Request<Body>| async { Ok::<_, Fault>(Response::new(Body::from("backend"))) });
        RespondLayer::new().layer(inner).oneshot(request).await.unwrap()
    }

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
    }

    #[tokio::test]
    async fn a_route_without_an_answer_of_its_own_goes_on() {
        assert_eq!(text(answer(Filters::default(), Policies::default(), false).await).await, "backend");
    }

    #[tokio::test]
    async fn the_answer_has_status_body_type_and_the_rules_headers() {
        let line = (HeaderName::from_static("x-from"), HeaderValue::from_static("rule"));
        let response_headers = HeaderModifier { add: vec![line], ..HeaderModifier::default() };
        let filters = Filters { response_headers, ..Filters::default() };
        let response = answer(filters, Policies::builder().with(teapot()).build(), false).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            (&response.headers()[CONTENT_TYPE], &response.headers()["x-from"]),
            (&"text/plain".parse().unwrap(), &"rule".parse().unwrap())
        );
        assert_eq!(text(response).await, "not here");
    }

    #[tokio::test]
    async fn grpc_gets_the_status_in_its_own_form() {
        let response = answer(Filters::default(), Policies::builder().with(teapot()).build(), true).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            (&response.headers()["grpc-status"], &response.headers()["grpc-message"]),
            (&"12".parse().unwrap(), &"not here".parse().unwrap())
        );
        assert_eq!(text(response).await, "");
    }

    #[tokio::test]
    async fn a_rule_with_an_unresolved_filter_is_not_answered_here() {
        let filters = Filters { unresolved: true, ..Filters::default() };
        let response = answer(filters, Policies::builder().with(teapot()).build(), false).await;
        assert_eq!(text(response).await, "backend");
    }
}

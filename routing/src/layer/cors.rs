//! Tells browsers which pages may read the answers of a route.
//!
//! - **reads** the route's [`Cors`]; `Origin` and `Access-Control-Request-*`
//! - **writes** `Access-Control-*` and `Vary` of responses, those to faults of inner layers too
//! - **ends a request with** 204, if it is a preflight
//! - **settings** the route's; the layer's own for services without routes
//! - **place** right inside routing, outside of authentication: a preflight carries no credential, and a page has to be
//!   able to read that it was refused

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Body, Context, Fault, is_grpc, rescued};

use crate::Cors;
use crate::cors::Asked;

type BoxError = Box<dyn Error + Send + Sync>;

/// Applies [`ShareWithOrigins`].
///
/// ```
/// use axum::{Router, routing::get};
/// use towpath_gateway_core::RescueLayer;
/// use towpath_routing::{Cors, CorsLayer, OriginPattern};
/// use tower::ServiceBuilder;
///
/// let pages = Cors { origins: OriginPattern::new("https://*.shop.example").into_iter().collect(), ..Cors::default() };
/// let app: Router = Router::new()
///     .route("/books", get(|| async { "books" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(CorsLayer::new().default_policy(pages)));
/// # use axum::{body::Body, extract::Request};
/// # use tower::ServiceExt as _;
/// # let request = Request::builder().uri("/books").header("origin", "https://www.shop.example").body(Body::empty()).unwrap();
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let response = runtime.block_on(app.oneshot(request)).unwrap();
/// # assert_eq!(response.headers()["access-control-allow-origin"], "https://www.shop.example");
/// ```
#[derive(Debug, Clone, Default)]
pub struct CorsLayer {
    default: Option<Arc<Cors>>,
}

impl CorsLayer {
    /// Routes without [`Cors`] are left as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// What holds for routes that carry none, and for services without routing.
    #[must_use]
    pub fn default_policy(self, policy: Cors) -> Self {
        Self { default: Some(Arc::new(policy)) }
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = ShareWithOrigins<S>;

    fn layer(&self, inner: S) -> ShareWithOrigins<S> {
        ShareWithOrigins { inner, default: self.default.clone() }
    }
}

/// Answers preflights, and says in other answers who may read them.
#[derive(Debug, Clone)]
pub struct ShareWithOrigins<S> {
    inner: S,
    default: Option<Arc<Cors>>,
}

impl<S, B, R> Service<Request<B>> for ShareWithOrigins<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
    R: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Fault;
    type Future = CorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        if context.policy::<Cors>().or(self.default.as_deref()).is_none() {
            return CorsFuture { state: State::Passed { answer: self.inner.call(request), page: None } };
        }
        let Some(asked) = Asked::of(&request) else {
            return CorsFuture { state: State::Passed { answer: self.inner.call(request), page: None } };
        };
        let grpc = is_grpc(request.headers());
        let page = Box::new(Page { asked, context, default: self.default.clone(), grpc });
        let state = if page.asked.preflight.is_some() {
            State::Preflight { page: Some(page) }
        } else {
            State::Passed { answer: self.inner.call(request), page: Some(page) }
        };
        CorsFuture { state }
    }
}

/// A request from a page of another origin, to a route that has a policy for it.
struct Page {
    asked: Asked,
    context: Context,
    default: Option<Arc<Cors>>,
    grpc: bool,
}

impl Page {
    fn finish(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some(cors) = self.context.policy::<Cors>().or(self.default.as_deref()) {
            cors.write(&self.asked, response.headers_mut());
        }
        response
    }

    fn preflight(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        self.finish(response)
    }
}

pin_project! {
    /// The answer of [`ShareWithOrigins`].
    pub struct CorsFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] answer: F, page: Option<Box<Page>> },
        Preflight { page: Option<Box<Page>> },
    }
}

impl<F, R, E> Future for CorsFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
    R: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProjection::Preflight { page } => {
                Ok(page.take().map_or_else(|| Response::new(Body::empty()), |page| page.preflight()))
            }
            StateProjection::Passed { answer, page } => {
                let answer =
                    ready!(answer.poll(cx)).map(|response| response.map(Body::new)).map_err(Into::into);
                match (answer, page.take()) {
                    (answer, None) => answer,
                    (Ok(response), Some(page)) => Ok(page.finish(response)),
                    (Err(fault), Some(page)) => Ok(page.finish(rescued(fault, page.grpc, &page.context))),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Policies, Reason, RouteName};

    use super::*;
    use crate::OriginPattern;

    fn routed(method: Method, policy: bool, origin: Option<&str>) -> Request<()> {
        let context = Context::new();
        let origins = vec![OriginPattern::new("https://a.example").unwrap()];
        let policies = Policies::builder();
        let policies = if policy { policies.with(Cors { origins, ..Cors::default() }) } else { policies };
        context.set_route(RouteName::new("n/r", "0"), policies.build()).unwrap();
        let mut request = Request::builder().method(method).header(ACCESS_CONTROL_REQUEST_METHOD, "PUT");
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(context);
        request
    }

    async fn send(request: Request<()>) -> Result<Response<Body>, Fault> {
        let refusing =
            service_fn(|_: Request<()>| async { Err::<Response<Body>, _>(Fault::new(Reason::Denied)) });
        CorsLayer::new().layer(refusing).oneshot(request).await
    }

    #[tokio::test]
    async fn a_preflight_is_answered_before_anybody_is_asked_for_a_credential() {
        let response = send(routed(Method::OPTIONS, true, Some("https://a.example"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        let response = send(routed(Method::OPTIONS, true, Some("https://b.example"))).await.unwrap();
        assert_eq!(
            (response.status(), response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN)),
            (StatusCode::NO_CONTENT, None)
        );
    }

    #[tokio::test]
    async fn a_page_can_read_that_it_was_refused() {
        let request = routed(Method::GET, true, Some("https://a.example"));
        let context = Context::find(request.extensions()).unwrap().clone();
        let response = send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(context.fault().map(Fault::reason), Some(Reason::Denied), "the log shows it");
    }

    #[tokio::test]
    async fn everything_else_goes_by_untouched() {
        for (policy, origin) in [(false, Some("https://a.example")), (true, None)] {
            let fault = send(routed(Method::OPTIONS, policy, origin)).await.unwrap_err();
            assert_eq!(fault.reason(), Reason::Denied);
        }
    }
}

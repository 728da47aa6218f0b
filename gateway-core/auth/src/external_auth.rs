//! Asks an external service about each request.
//!
//! - **reads** the route's [`ExternalAuth`]; the request's head, and its body as far as the settings say
//! - **writes** what the service asks for: headers towards the backend and towards the client, and the query
//! - **ends a request with** the service's own answer (`ExternalDenied` in the log); `ExternalAuthFailed` and the status
//!   of the settings (403) if it could not be asked; `BodyTooLarge` (413)
//! - **settings** the route's; the layer's own for services without routes; the service by which backends are reached
//! - **place** after what tells who asks by itself (API keys), before authorization policies, limits and all that changes
//!   the request: Istio asks such services first, too

mod shown;

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Reason, Request, Response};

use self::shown::shown;
use crate::external::{ExternalAuth, ExternalChanges, ExternalVerdict, ask_external};

/// Applies [`AskExternally`].
///
/// ```
/// use std::sync::Arc;
///
/// use axum::{Router, http::StatusCode, routing::get};
/// use tower::{ServiceBuilder, service_fn};
/// use towpath_auth::{ExternalAuth, ExternalAuthLayer, ExternalAuthProtocol, ExternalHttp};
/// use towpath_gateway_core::{Backend, Body, Fault, Request, RescueLayer, Response};
///
/// // Stands in for a client that sends a request to its context's backend.
/// let client = service_fn(|question: Request| async move {
///     let mut answer = Response::new(Body::empty());
///     if question.headers().get("authorization").is_none() {
///         *answer.status_mut() = StatusCode::UNAUTHORIZED;
///     }
///     Ok::<_, Fault>(answer)
/// });
/// let http = ExternalHttp { path_prefix: "/check".into(), ..ExternalHttp::default() };
/// let protocol = ExternalAuthProtocol::Http(http);
/// let auth = ExternalAuth::new("shop/web", Arc::new(Backend::unresolved("shop/auth:80")), protocol);
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(
///     ServiceBuilder::new()
///         .layer(RescueLayer::new())
///         .map_request(|request: axum::extract::Request| request.map(Body::new))
///         .layer(ExternalAuthLayer::new(client).default_policy(auth))
///         .map_response(|response: axum::response::Response| response.map(Body::new))
///         .map_request(|request: Request| request.map(axum::body::Body::new)),
/// );
/// # use tower::ServiceExt as _;
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # let request = axum::extract::Request::new(axum::body::Body::empty());
/// # assert_eq!(runtime.block_on(app.oneshot(request)).unwrap().status(), 401);
/// ```
#[derive(Debug, Clone)]
pub struct ExternalAuthLayer<A> {
    client: A,
    default: Option<Arc<ExternalAuth>>,
}

impl<A> ExternalAuthLayer<A> {
    /// Asks on routes that carry [`ExternalAuth`]. `client` sends a request to the backend in its context.
    pub fn new(client: A) -> Self {
        Self { client, default: None }
    }

    /// What holds for routes that carry none, and for services without routing.
    #[must_use]
    pub fn default_policy(self, policy: ExternalAuth) -> Self {
        Self { default: Some(Arc::new(policy)), ..self }
    }
}

impl<S, A: Clone> Layer<S> for ExternalAuthLayer<A> {
    type Service = AskExternally<S, A>;

    fn layer(&self, inner: S) -> AskExternally<S, A> {
        AskExternally { inner, settings: self.clone() }
    }
}

/// Passes on what the external service allows.
#[derive(Debug, Clone)]
pub struct AskExternally<S, A> {
    inner: S,
    settings: ExternalAuthLayer<A>,
}

impl<S, A> Service<Request> for AskExternally<S, A>
where
    S: Service<Request, Response = Response, Error: Into<Fault>, Future: Send> + Clone + Send + 'static,
    A: Service<Request, Response = Response, Error: Into<Fault>, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Fault;
    type Future = ExternalAuthFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        if context.policy::<ExternalAuth>().or(self.settings.default.as_deref()).is_none() {
            return ExternalAuthFuture::passed(self.inner.call(request));
        }
        // What was asked for readiness is what has to be called.
        let next = self.inner.clone();
        let inner = mem::replace(&mut self.inner, next);
        let asking = decided(inner, self.settings.clone(), request, context);
        ExternalAuthFuture::asking(asking)
    }
}

async fn decided<S, A>(
    mut inner: S,
    settings: ExternalAuthLayer<A>,
    request: Request,
    context: Context,
) -> Result<Response, Fault>
where
    S: Service<Request, Response = Response, Error: Into<Fault>>,
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let auth = context.policy::<ExternalAuth>().or(settings.default.as_deref());
    let Some(auth) = auth else { return Err(Fault::new(Reason::Internal)) };
    match ask(settings.client, auth, request, &context).await? {
        Asked::Ends(response) => Ok(response),
        Asked::Goes(request, changes) => {
            let mut response = inner.call(request).await.map_err(Into::into)?;
            changes.to_response(response.headers_mut());
            Ok(response)
        }
    }
}

/// What comes of a question.
pub(crate) enum Asked {
    /// The request goes on, changed; its response is to be changed, too.
    Goes(Request, Box<ExternalChanges>),
    /// This is the answer to the client.
    Ends(Response),
}

/// Asks about a request, whose record is `context`.
pub(crate) async fn ask<A>(
    client: A,
    auth: &ExternalAuth,
    mut request: Request,
    context: &Context,
) -> Result<Asked, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let shown = shown(auth, &mut request).await?;
    let (mut head, body) = request.into_parts();
    match ask_external(client, auth, &head, &shown).await? {
        ExternalVerdict::Deny(response) => {
            // An inner rescue may have answered already; the first fault is the one that ended the request.
            let fault = Fault::new(Reason::ExternalDenied).with_detail("the external authorizer refuses");
            let _ = context.set_fault(fault.with_policy(Arc::clone(&auth.name)));
            Ok(Asked::Ends(response))
        }
        ExternalVerdict::Allow(changes) => {
            changes.to_request(&mut head);
            Ok(Asked::Goes(Request::from_parts(head, body), Box::new(changes)))
        }
    }
}

pin_project! {
    /// The answer of a layer that may have to ask somebody first.
    pub struct ExternalAuthFuture<F> {
        #[pin]
        state: State<F>,
    }
}

impl<F> ExternalAuthFuture<F> {
    pub(crate) fn passed(answer: F) -> Self {
        Self { state: State::Passed { answer } }
    }

    pub(crate) fn asking(answer: impl Future<Output = Result<Response, Fault>> + Send + 'static) -> Self {
        Self { state: State::Asking { answer: Box::pin(answer) } }
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] answer: F },
        Asking { answer: Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>> },
    }
}

impl<F, E> Future for ExternalAuthFuture<F>
where
    F: Future<Output = Result<Response, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Passed { answer } => answer.poll(cx).map_err(Into::into),
            StateProjection::Asking { answer } => answer.as_mut().poll(cx),
        }
    }
}

#[cfg(test)]
mod tests;

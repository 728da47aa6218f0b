//! Chooses the endpoint of each try and counts what is in flight to it.
//!
//! - **reads** the request's backend and session, the tries so far, the endpoints' load
//! - **writes** a new [`Attempt`] with its outcome; the endpoint's load until the response body has ended
//! - **ends a request with** `Unresolved` (500), `NoEndpoint` (503), `Internal` if no backend was chosen
//! - **settings** the backend's own: its balance and its endpoints' weights
//! - **place** inside retries, so that each try chooses anew; around the layers that need to know the endpoint

mod choose;
mod counted;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Attempt, Body, Context, Fault, InFlight, Outcome, Reason};

pub(crate) use choose::choose;

use crate::Random;

/// Applies [`Balance`].
///
/// ```
/// use std::sync::Arc;
///
/// use axum::{Router, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Backend, Balance, Context, Endpoint, RescueLayer};
/// use towpath_upstream::BalanceLayer;
///
/// let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:9000".parse()?));
/// let backend = Arc::new(Backend::new("shop/reviews:9000", Balance::LeastRequest, vec![endpoint]));
///
/// // The handler stands in for the client; it finds the endpoint in the newest attempt.
/// let app: Router = Router::new()
///     .route("/", get(|request: axum::extract::Request| async move {
///         let attempt = Context::find(request.extensions()).and_then(Context::attempt);
///         attempt.map_or(String::new(), |attempt| attempt.endpoint().address.to_string())
///     }))
///     .layer(
///         ServiceBuilder::new()
///             .layer(RescueLayer::new())
///             .map_request(move |mut request: axum::extract::Request| {
///                 let _ = Context::of(request.extensions_mut()).set_backend(Arc::clone(&backend));
///                 request
///             })
///             .layer(BalanceLayer::new()),
///     );
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BalanceLayer {
    random: Random,
}

impl BalanceLayer {
    /// Draws random numbers from the thread's own generator.
    pub fn new() -> Self {
        Self { random: crate::random::below }
    }

    /// Draws them from `random`.
    #[must_use]
    pub fn with_random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }
}

impl Default for BalanceLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for BalanceLayer {
    type Service = Balance<S>;

    fn layer(&self, inner: S) -> Balance<S> {
        Balance { inner, random: self.random }
    }
}

/// Begins a try at an endpoint of the request's backend.
#[derive(Debug, Clone)]
pub struct Balance<S> {
    inner: S,
    random: Random,
}

impl<S> Balance<S> {
    fn begin(&self, context: &Context) -> Result<Attempt, Fault> {
        let Some(backend) = context.backend() else {
            return Err(Fault::new(Reason::Internal).with_detail("no backend: does a layer outside set one?"));
        };
        let home = context.session().map(|session| &session.endpoint);
        let endpoint = choose(backend, home, &context.attempts(), self.random)?;
        Ok(context.begin_attempt(endpoint))
    }
}

impl<S, B, R> Service<Request<B>> for Balance<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
    R: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Fault;
    type Future = BalanceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let state = match self.begin(&context) {
            Err(fault) => State::Refused { fault: Some(fault) },
            Ok(attempt) => State::Trying {
                flight: Some(attempt.endpoint().load.begin()),
                answer: self.inner.call(request),
                began: Instant::now(),
                attempt,
            },
        };
        BalanceFuture { state }
    }
}

pin_project! {
    /// The answer of [`Balance`].
    pub struct BalanceFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Trying { #[pin] answer: F, attempt: Attempt, flight: Option<InFlight>, began: Instant },
        Refused { fault: Option<Fault> },
    }
}

impl<F, R, E> Future for BalanceFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
    R: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Output = Result<Response<Body>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { fault } => {
                Poll::Ready(Err(fault.take().unwrap_or_else(|| Fault::new(Reason::Internal))))
            }
            StateProjection::Trying { answer, attempt, flight, began } => {
                let result = ready!(answer.poll(cx)).map_err(Into::into);
                attempt.set_outcome(outcome(&result), began.elapsed())?;
                let flight = flight.take();
                Poll::Ready(result.map(|response| response.map(|body| counted::until_ended(body, flight))))
            }
        }
    }
}

fn outcome<R>(result: &Result<Response<R>, Fault>) -> Outcome {
    match result {
        Ok(response) => Outcome::Status(response.status().as_u16()),
        Err(fault) => Outcome::Fault(fault.reason()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Backend, Endpoint};

    use super::*;

    fn request(backend: Option<Backend>) -> (Request<()>, Context) {
        let context = Context::new();
        if let Some(backend) = backend {
            context.set_backend(Arc::new(backend)).unwrap();
        }
        let mut request = Request::new(());
        request.extensions_mut().insert(context.clone());
        (request, context)
    }

    fn backend() -> (Backend, Arc<Endpoint>) {
        let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()));
        let balance = towpath_gateway_core::Balance::RoundRobin;
        (Backend::new("shop/reviews:80", balance, vec![endpoint.clone()]), endpoint)
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_busy_until_the_body_ended_and_the_try_knows_its_outcome() {
        let (backend, endpoint) = backend();
        let (request, context) = request(Some(backend));
        let service = BalanceLayer::new().layer(service_fn(|_: Request<()>| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, Fault>(Response::new(Full::new(Bytes::from("hello"))))
        }));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(endpoint.load.current(), 1);
        assert_eq!(
            context.attempt().unwrap().outcome(),
            Some((Outcome::Status(200), Duration::from_secs(2)))
        );
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(endpoint.load.current(), 0);
    }

    #[tokio::test]
    async fn a_dropped_body_frees_the_endpoint() {
        let (backend, endpoint) = backend();
        let service = BalanceLayer::new().layer(service_fn(|_: Request<()>| async {
            Ok::<_, Fault>(Response::new(Full::new(Bytes::from("x"))))
        }));
        let response = service.oneshot(request(Some(backend)).0).await.unwrap();
        assert_eq!(endpoint.load.current(), 1);
        drop(response);
        assert_eq!(endpoint.load.current(), 0);
    }

    #[tokio::test]
    async fn a_fault_is_the_outcome_and_frees_the_endpoint() {
        let (backend, endpoint) = backend();
        let (request, context) = request(Some(backend));
        let service = BalanceLayer::new().layer(service_fn(|_: Request<()>| async {
            Err::<Response<Body>, _>(Fault::new(Reason::UpstreamReset))
        }));
        let fault = service.oneshot(request).await.unwrap_err();
        assert_eq!((fault.reason(), endpoint.load.current()), (Reason::UpstreamReset, 0));
        let outcome = context.attempt().unwrap().outcome().map(|(outcome, _)| outcome);
        assert_eq!(outcome, Some(Outcome::Fault(Reason::UpstreamReset)));
    }

    #[tokio::test]
    async fn without_a_backend_nothing_is_tried() {
        let service = BalanceLayer::new()
            .layer(service_fn(|_: Request<()>| async { Ok::<_, Fault>(Response::new(Body::empty())) }));
        let (request, context) = request(None);
        assert_eq!(service.oneshot(request).await.unwrap_err().reason(), Reason::Internal);
        assert_eq!(context.attempt_count(), 0);
    }
}

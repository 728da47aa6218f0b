//! Bounds the time to the response head, all tries together.
//!
//! - **reads** the route's [`Timeouts`], the time of the request's arrival
//! - **writes** the context's deadline; the outcome of a try that it cuts off
//! - **ends a request with** `UpstreamTimeout` (504) at the deadline
//! - **settings** [`Timeouts`] of the route, else the layer's own
//! - **place** outside retries, so that they share one budget; streams, tunnels and bodies run on past it

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Reason};

use crate::Timeouts;
use crate::limit::Limit;

/// Applies [`Deadline`].
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::RescueLayer;
/// use towpath_upstream::{DeadlineLayer, Timeouts};
///
/// let limit = Timeouts { request: Some(Duration::from_secs(2)), backend_request: None };
/// let app: Router = Router::new()
///     .route("/", get(|| async { "in time" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(DeadlineLayer::new().with_default(limit)));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer {
    default: Timeouts,
}

impl DeadlineLayer {
    /// Routes without [`Timeouts`] get their default: 15 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// What holds for routes without [`Timeouts`].
    #[must_use]
    pub fn with_default(mut self, default: Timeouts) -> Self {
        self.default = default;
        self
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, default: self.default }
    }
}

/// Ends a request whose response head does not come in time.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
    default: Timeouts,
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let timeouts = context.policy::<Timeouts>().unwrap_or(&self.default);
        let state = match timeouts.request.map(|limit| begin(&context, limit)).transpose() {
            Err(fault) => State::Refused { fault: Some(fault) },
            Ok(limit) => State::Waiting { answer: self.inner.call(request), limit, context },
        };
        DeadlineFuture { state }
    }
}

/// Starts the clock, which counts from the request's arrival.
fn begin(context: &Context, limit: Duration) -> Result<Limit, Fault> {
    let held = context.held().copied().unwrap_or_default();
    let left = limit.saturating_add(held).saturating_sub(context.started().elapsed());
    let end = Instant::now() + left;
    context.set_deadline(end.into_std())?;
    Ok(Limit::until(end, left))
}

pin_project! {
    /// The answer of [`Deadline`].
    pub struct DeadlineFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Waiting { #[pin] answer: F, #[pin] limit: Option<Limit>, context: Context },
        Refused { fault: Option<Fault> },
    }
}

impl<F, T, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Fault>,
{
    type Output = Result<T, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { fault } => {
                Poll::Ready(Err(fault.take().unwrap_or_else(|| Fault::new(Reason::Internal))))
            }
            StateProjection::Waiting { answer, limit, context } => {
                Limit::poll_within(limit, answer, context, cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Body, Endpoint, Outcome, Policies, RouteName};

    use super::*;

    async fn run(layer: DeadlineLayer, context: Context, takes: Duration) -> Result<Duration, Fault> {
        let service = layer.layer(service_fn(move |_: Request<Body>| async move {
            tokio::time::sleep(takes).await;
            Ok::<_, Fault>(Response::new(Body::empty()))
        }));
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(context);
        let began = Instant::now();
        service.oneshot(request).await.map(|_| began.elapsed())
    }

    fn routed(request: Option<Duration>) -> Context {
        let context = Context::new();
        let policies = Policies::builder().with(Timeouts { request, backend_request: None }).build();
        context.set_route(RouteName::new("shop/web", "0"), policies).unwrap();
        context
    }

    #[tokio::test(start_paused = true)]
    async fn the_default_is_fifteen_seconds() {
        assert!(run(DeadlineLayer::new(), Context::new(), Duration::from_millis(14_900)).await.is_ok());
        let began = Instant::now();
        let fault = run(DeadlineLayer::new(), Context::new(), Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::UpstreamTimeout);
        assert!(began.elapsed().abs_diff(Duration::from_secs(15)) < Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn the_route_overrules_the_layer() {
        let short = routed(Some(Duration::from_secs(1)));
        assert!(run(DeadlineLayer::new(), short, Duration::from_secs(2)).await.is_err());
        let none = routed(None);
        assert!(run(DeadlineLayer::new(), none.clone(), Duration::from_hours(1)).await.is_ok());
        assert_eq!(none.deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_before_the_layer_counts() {
        let context = routed(Some(Duration::from_millis(20)));
        std::thread::sleep(Duration::from_millis(15));
        let fault = run(DeadlineLayer::new(), context, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::UpstreamTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_that_was_injected_takes_nothing_from_the_limit() {
        for (seconds, in_time) in [(44, true), (46, false)] {
            let context = Context::new();
            context.set_held(Duration::from_secs(30)).unwrap();
            let answer = run(DeadlineLayer::new(), context, Duration::from_secs(seconds)).await;
            assert_eq!(answer.is_ok(), in_time, "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_layer_is_a_fault() {
        let context = Context::new();
        run(DeadlineLayer::new(), context.clone(), Duration::ZERO).await.unwrap();
        let fault = run(DeadlineLayer::new(), context, Duration::ZERO).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn the_try_that_was_cut_off_says_so() {
        let context = Context::new();
        let attempt = context.begin_attempt(Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap())));
        run(DeadlineLayer::new(), context, Duration::from_mins(1)).await.unwrap_err();
        assert!(matches!(attempt.outcome(), Some((Outcome::Fault(Reason::UpstreamTimeout), _))));
    }
}

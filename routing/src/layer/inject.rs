//! Delays and aborts requests on purpose.
//!
//! - **reads** the route's [`FaultInjection`]
//! - **writes** how long the request was held back, which its time limit does not count
//! - **ends a request with** `FaultInjected` and the status that the settings name
//! - **settings** the route's; the layer's own for services without routes; the source of random numbers
//! - **place** inside authentication, authorization and limits, outside of all that chooses or calls a backend: an
//!   injected failure is not retried, as in Istio

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Reason};

use crate::FaultInjection;
use crate::fault::{AbortStatus, Injected};
use crate::filter::Draw;

/// Applies [`InjectFaults`].
///
/// ```
/// use axum::{Router, http::StatusCode, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::RescueLayer;
/// use towpath_routing::{Abort, AbortStatus, FaultInjection, InjectLayer, Share};
///
/// let abort = Abort { status: AbortStatus::Http(StatusCode::BAD_GATEWAY), share: Share::ALL };
/// let fault = FaultInjection { delay: None, abort: Some(abort) };
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(InjectLayer::new().default_policy(fault)));
/// # use tower::ServiceExt as _;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let request = axum::extract::Request::new(axum::body::Body::empty());
/// # assert_eq!(runtime.block_on(app.oneshot(request)).unwrap().status(), 502);
/// ```
#[derive(Debug, Clone)]
pub struct InjectLayer<D = fn(u64) -> u64> {
    default: Option<Arc<FaultInjection>>,
    draw: D,
}

impl InjectLayer {
    /// Requests of routes without [`FaultInjection`] pass untouched; shares are drawn with [`fastrand`].
    pub fn new() -> Self {
        Self { default: None, draw: |bound| fastrand::u64(..bound) }
    }
}

impl Default for InjectLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> InjectLayer<D> {
    /// What holds for routes that carry none, and for services without routing.
    #[must_use]
    pub fn default_policy(self, policy: FaultInjection) -> Self {
        Self { default: Some(Arc::new(policy)), ..self }
    }
}

impl<D: Draw> InjectLayer<D> {
    /// A layer that draws shares with the numbers of `draw`.
    pub fn with_draw(draw: D) -> Self {
        Self { default: None, draw }
    }
}

impl<S, D: Clone> Layer<S> for InjectLayer<D> {
    type Service = InjectFaults<S, D>;

    fn layer(&self, inner: S) -> InjectFaults<S, D> {
        InjectFaults { inner, settings: self.clone() }
    }
}

/// Holds back and ends the shares of requests that the settings say. A client that goes ends its delay.
#[derive(Debug, Clone)]
pub struct InjectFaults<S, D = fn(u64) -> u64> {
    inner: S,
    settings: InjectLayer<D>,
}

impl<S, B, R, D> Service<Request<B>> for InjectFaults<S, D>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>> + Clone,
    D: Draw,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = InjectFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let policy = context.policy::<FaultInjection>().or(self.settings.default.as_deref());
        let state = match policy.map(|policy| policy.draw(&self.settings.draw)) {
            None | Some(Injected { delay: None, abort: None }) => {
                State::Passed { answer: self.inner.call(request) }
            }
            Some(Injected { delay: None, abort: Some(status) }) => {
                State::Ended { fault: Some(aborted(status)) }
            }
            Some(Injected { delay: Some(delay), abort }) => {
                if let Err(taken) = context.set_held(delay) {
                    return InjectFuture { state: State::Ended { fault: Some(taken.into()) } };
                }
                // What was asked for readiness is what has to be called.
                let next = self.inner.clone();
                let service = mem::replace(&mut self.inner, next);
                let held = Held { pause: Box::pin(sleep(delay)), service, request: Some(request), abort };
                State::Held { held: Box::new(held) }
            }
        };
        InjectFuture { state }
    }
}

fn aborted(status: AbortStatus) -> Fault {
    let (http, grpc) = status.both();
    Fault::new(Reason::FaultInjected).with_status(http, grpc)
}

/// A request that waits.
struct Held<S, B> {
    pause: Pin<Box<Sleep>>,
    service: S,
    request: Option<Request<B>>,
    abort: Option<AbortStatus>,
}

pin_project! {
    /// The answer of [`InjectFaults`].
    pub struct InjectFuture<S: Service<Request<B>>, B> {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, B> {
        Passed { #[pin] answer: F },
        Held { held: Box<Held<S, B>> },
        Ended { fault: Option<Fault> },
    }
}

impl<S, B, R> Future for InjectFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
{
    type Output = Result<Response<R>, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        loop {
            let mut state = self.as_mut().project().state;
            let next = match state.as_mut().project() {
                StateProjection::Passed { answer } => return answer.poll(cx).map_err(Into::into),
                StateProjection::Ended { fault } => {
                    return Poll::Ready(Err(fault.take().unwrap_or_else(|| Fault::new(Reason::Internal))));
                }
                StateProjection::Held { held } => {
                    ready!(held.pause.as_mut().poll(cx));
                    match (held.abort, held.request.take()) {
                        (None, Some(request)) => State::Passed { answer: held.service.call(request) },
                        (Some(status), _) => State::Ended { fault: Some(aborted(status)) },
                        (None, None) => State::Ended { fault: None },
                    }
                }
            };
            state.set(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};
    use tower_test::mock;
    use towpath_gateway_core::{Policies, RouteName};

    use super::*;
    use crate::{Abort, Delay, Share};

    const DELAY: Duration = Duration::from_secs(7);

    fn fault(delay: bool, abort: bool) -> FaultInjection {
        let status = AbortStatus::Http(StatusCode::IM_A_TEAPOT);
        FaultInjection {
            delay: delay.then_some(Delay { fixed: DELAY, share: Share::ALL }),
            abort: abort.then_some(Abort { status, share: Share::ALL }),
        }
    }

    fn routed(fault: Option<FaultInjection>) -> (Request<()>, Context) {
        let context = Context::new();
        let policies = Policies::builder();
        let policies = if let Some(fault) = fault { policies.with(fault) } else { policies };
        context.set_route(RouteName::new("n/r", "0"), policies.build()).unwrap();
        let mut request = Request::new(());
        request.extensions_mut().insert(context.clone());
        (request, context)
    }

    /// The answer's status or the fault's, how long it took, and how long the record says it was held.
    async fn run(
        fault: Option<FaultInjection>,
        draw: fn(u64) -> u64,
    ) -> (Result<(), StatusCode>, Duration, Option<Duration>) {
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Fault>(Response::new(())) });
        let (request, context) = routed(fault);
        let began = Instant::now();
        let answer = InjectLayer::with_draw(draw).layer(inner).oneshot(request).await;
        (answer.map(drop).map_err(|fault| fault.status()), began.elapsed(), context.held().copied())
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_comes_before_the_abort() {
        let teapot = Err(StatusCode::IM_A_TEAPOT);
        let within =
            |took: Duration, wanted: Duration| took >= wanted && took < wanted + Duration::from_millis(10);
        for (policy, answer, wait) in [
            (None, Ok(()), None),
            (Some(fault(false, false)), Ok(()), None),
            (Some(fault(true, false)), Ok(()), Some(DELAY)),
            (Some(fault(false, true)), teapot, None),
            (Some(fault(true, true)), teapot, Some(DELAY)),
        ] {
            let (seen, took, held) = run(policy.clone(), |_| 0).await;
            assert_eq!((seen, held), (answer, wait), "{policy:?}");
            assert!(within(took, wait.unwrap_or_default()), "{policy:?} took {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_share_is_touched() {
        let share = Share::percent(0.0001).unwrap();
        let status = AbortStatus::Http(StatusCode::BAD_GATEWAY);
        let rare = || Some(FaultInjection { delay: None, abort: Some(Abort { status, share }) });
        assert_eq!(run(rare(), |_| 0).await.0, Err(StatusCode::BAD_GATEWAY));
        assert_eq!(run(rare(), |_| 1).await.0, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_ends_its_delay() {
        let (inner, mut handle) = mock::pair::<Request<()>, Response<()>>();
        handle.allow(1);
        let inner = inner.map_err(|error| Fault::new(Reason::Internal).with_source(error));
        let mut service = InjectLayer::new().layer(inner);
        let answer = service.ready().await.unwrap().call(routed(Some(fault(true, false))).0);
        assert!(tokio::time::timeout(Duration::from_secs(1), answer).await.is_err());
        tokio::time::sleep(DELAY).await;
        drop(service);
        assert!(handle.next_request().await.is_none(), "the backend saw nothing");
    }
}

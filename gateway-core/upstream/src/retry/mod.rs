//! Sends a request again where that is provably safe.
//!
//! - **reads** the route's [`Retry`] and [`Timeouts`], the context's deadline and backend with its budget, the fault's `Replay`
//! - **writes** the outcome of a try that it cuts off
//! - **ends a request with** the last try's fault; `UpstreamTimeout` (504) if a try's own time is over, or there is none
//!   left for another try of an answer that is to be retried
//! - **settings** [`Retry`] and the `backend_request` of [`Timeouts`] of the route, else the layer's own
//! - **place** inside the deadline, around the balancer, so that the next try goes to another endpoint
//!
//! A request is sent again only if it certainly was not processed, or if its method is idempotent; and only if its body
//! is in hand: no body, bytes, or a stream that nobody has looked at. A request for an upgrade is sent once.

mod decide;
mod keep;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderName, HeaderValue, Method, Response, Uri, Version};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Reason, Request};

use self::decide::{End, Facts, Verdict, decide, is_idempotent};
use self::keep::Kept;
use crate::limit::Limit;
use crate::{Random, Retry, Timeouts};

/// Applies [`Retrying`].
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, extract::Request, routing::get};
/// use http::StatusCode;
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Body, RescueLayer};
/// use towpath_upstream::{Retry, RetryLayer};
///
/// let retry = Retry {
///     attempts: 2,
///     codes: vec![StatusCode::SERVICE_UNAVAILABLE],
///     backoff: Duration::from_millis(10),
/// };
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(
///     ServiceBuilder::new()
///         .layer(RescueLayer::new())
///         .map_request(|request: Request| request.map(Body::new))
///         .layer(RetryLayer::new().with_default(retry)),
/// );
/// ```
#[derive(Debug, Clone)]
pub struct RetryLayer {
    default: Arc<Retry>,
    try_timeout: Option<Duration>,
    random: Random,
}

impl RetryLayer {
    /// Routes without [`Retry`] get its default: one retry, no status retried. Tries have no time limit of their own.
    pub fn new() -> Self {
        Self { default: Arc::new(Retry::default()), try_timeout: None, random: crate::random::below }
    }

    /// What holds for routes without [`Retry`].
    #[must_use]
    pub fn with_default(mut self, default: Retry) -> Self {
        self.default = Arc::new(default);
        self
    }

    /// How long a try may take to its response head, for routes without [`Timeouts`].
    #[must_use]
    pub fn with_try_timeout(mut self, limit: Duration) -> Self {
        self.try_timeout = Some(limit);
        self
    }

    /// Draws the numbers that spread waits from `random`.
    #[must_use]
    pub fn with_random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }
}

impl Default for RetryLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retrying<S>;

    fn layer(&self, inner: S) -> Retrying<S> {
        Retrying { inner, settings: self.clone() }
    }
}

/// Tries until there is an answer, or no further try is safe.
#[derive(Debug, Clone)]
pub struct Retrying<S> {
    inner: S,
    settings: RetryLayer,
}

impl<S, R> Service<Request> for Retrying<S>
where
    S: Service<Request, Response = Response<R>, Error: Into<Fault>> + Clone,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = RetryFuture<S>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        if let Some(budget) = context.backend().and_then(|backend| backend.retry_budget()) {
            budget.request();
        }
        let policy = context.policy::<Retry>().unwrap_or(&self.settings.default);
        let try_timeout =
            context.policy().map_or(self.settings.try_timeout, |t: &Timeouts| t.backend_request);
        let repeatable = policy.attempts > 0 && !request.headers().contains_key(UPGRADE);
        let spare = repeatable.then(|| Box::new(Spare::of(&mut request, &self.inner)));
        RetryFuture {
            state: State::Trying { answer: self.inner.call(request), limit: try_timeout.map(Limit::new) },
            spare,
            default: Arc::clone(&self.settings.default),
            random: self.settings.random,
            try_timeout,
            context,
            tries: 1,
        }
    }
}

/// All that another try needs.
struct Spare<S> {
    service: S,
    method: Method,
    uri: Uri,
    version: Version,
    /// Line by line: a copy of the map would cost more than it costs to make it anew in the rare case.
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Kept,
}

impl<S: Clone> Spare<S> {
    fn of(request: &mut Request, service: &S) -> Self {
        Self {
            service: service.clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: Kept::of(request.body_mut()),
        }
    }
}

impl<S> Spare<S> {
    /// The request once more; `None` if its body is gone.
    fn request(&self, context: &Context) -> Option<Request> {
        let mut request = Request::new(self.body.body()?);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        request.headers_mut().extend(self.headers.iter().cloned());
        request.extensions_mut().insert(context.clone());
        Some(request)
    }
}

pin_project! {
    /// The answer of [`Retrying`].
    pub struct RetryFuture<S: Service<Request>> {
        #[pin]
        state: State<S::Future>,
        spare: Option<Box<Spare<S>>>,
        context: Context,
        default: Arc<Retry>,
        random: Random,
        try_timeout: Option<Duration>,
        tries: u32,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Trying { #[pin] answer: F, #[pin] limit: Option<Limit> },
        Waiting { #[pin] pause: Sleep },
        Readying,
    }
}

impl<S, R> Future for RetryFuture<S>
where
    S: Service<Request, Response = Response<R>, Error: Into<Fault>>,
{
    type Output = Result<Response<R>, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            match this.state.as_mut().project() {
                StateProjection::Trying { answer, limit } => {
                    let result = ready!(Limit::poll_within(limit, answer, this.context, cx));
                    let after = match self.verdict(&result) {
                        Verdict::Again { after } => after,
                        // An answer that is to be retried is none; a fault says itself what happened.
                        Verdict::TooLate => return Poll::Ready(result.and_then(|_| Err(too_late()))),
                        Verdict::Stop => return Poll::Ready(result),
                    };
                    drop(result);
                    self.as_mut().project().state.set(State::Waiting { pause: sleep(after) });
                }
                StateProjection::Waiting { pause } => {
                    ready!(pause.poll(cx));
                    this.state.set(State::Readying);
                }
                StateProjection::Readying => {
                    let Some(spare) = this.spare.as_mut() else { return Poll::Ready(Err(lost())) };
                    ready!(spare.service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = spare.request(this.context) else { return Poll::Ready(Err(lost())) };
                    *this.tries += 1;
                    let answer = spare.service.call(request);
                    this.state.set(State::Trying { answer, limit: this.try_timeout.map(Limit::new) });
                }
            }
        }
    }
}

fn too_late() -> Fault {
    Fault::new(Reason::UpstreamTimeout).with_detail("no time is left for another try")
}

/// The verdict asks for the spare and its body first; without them there is no other try.
fn lost() -> Fault {
    Fault::new(Reason::Internal).with_detail("a retry without a request")
}

impl<S: Service<Request>> RetryFuture<S> {
    /// Whether the backend's budget has no retry left. Asked only if there is to be one: it is taken.
    fn is_overspent(&self) -> bool {
        let budget = self.context.backend().and_then(|backend| backend.retry_budget());
        budget.is_some_and(|budget| !budget.retry())
    }

    fn verdict<R>(&self, result: &Result<Response<R>, Fault>) -> Verdict {
        let Some(spare) = &self.spare else {
            return Verdict::Stop;
        };
        let facts = Facts {
            end: match result {
                Ok(response) => End::Status(response.status()),
                Err(fault) => End::Fault(fault.replay()),
            },
            idempotent: is_idempotent(&spare.method),
            body_in_hand: spare.body.is_whole(),
            tries: self.tries,
            deadline: self.context.deadline().copied(),
            jitter: u32::try_from((self.random)(1024)).unwrap_or_default(),
        };
        let policy = self.context.policy::<Retry>().unwrap_or(&self.default);
        match decide(policy, &facts, Instant::now().into_std()) {
            Verdict::Again { .. } if self.is_overspent() => Verdict::Stop,
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests;

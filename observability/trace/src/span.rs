//! Gives one try upstream a client span and tells it to the other side.
//!
//! - **reads** the context's trace slot and its newest attempt
//! - **writes** the attempt's span; the request's `traceparent`
//! - **ends a request with** `internal` (500) when the attempt has a span already: the layer is in the stack twice
//! - **settings** where random numbers come from
//! - **place** between the balancer, which begins the attempt, and the pool, so that each try has a span of its own

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, SlotTaken};

use crate::{TRACEPARENT, Traceparent, random, span_id};

/// Applies [`Span`]. A request that is in no trace passes unchanged.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::RescueLayer;
/// use towpath_trace::{SpanLayer, TraceLayer};
///
/// let layers = ServiceBuilder::new().layer(TraceLayer::new()).layer(RescueLayer::new()).layer(SpanLayer::new());
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(layers);
/// ```
#[derive(Debug, Clone)]
pub struct SpanLayer<I = fn() -> u64> {
    ids: I,
}

impl SpanLayer {
    /// Ids come from [`random`].
    pub fn new() -> Self {
        Self { ids: random }
    }
}

impl Default for SpanLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<I> SpanLayer<I> {
    /// Draws ids from `source`.
    pub fn ids<J: Fn() -> u64>(self, source: J) -> SpanLayer<J> {
        SpanLayer { ids: source }
    }
}

impl<S, I: Clone> Layer<S> for SpanLayer<I> {
    type Service = Span<S, I>;

    fn layer(&self, inner: S) -> Span<S, I> {
        Span { inner, ids: self.ids.clone() }
    }
}

/// Marks every try with a span.
#[derive(Debug, Clone)]
pub struct Span<S, I = fn() -> u64> {
    inner: S,
    ids: I,
}

impl<S, I, B> Service<Request<B>> for Span<S, I>
where
    S: Service<Request<B>, Error: Into<Fault>>,
    I: Fn() -> u64,
{
    type Response = S::Response;
    type Error = Fault;
    type Future = SpanFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match mark(&mut request, &self.ids) {
            Ok(()) => SpanFuture { state: State::Passed { answer: self.inner.call(request) } },
            Err(taken) => SpanFuture { state: State::Refused { fault: Some(taken.into()) } },
        }
    }
}

pin_project! {
    /// The answer of [`Span`].
    pub struct SpanFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] answer: F },
        Refused { fault: Option<Fault> },
    }
}

impl<F, R, E> Future for SpanFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<Fault>,
{
    type Output = Result<R, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Passed { answer } => answer.poll(cx).map_err(Into::into),
            // Once it has ended it stays pending, as a future may.
            StateProjection::Refused { fault } => {
                fault.take().map_or(Poll::Pending, |fault| Poll::Ready(Err(fault)))
            }
        }
    }
}

fn mark<B>(request: &mut Request<B>, ids: impl Fn() -> u64) -> Result<(), SlotTaken> {
    let context = Context::of(request.extensions_mut());
    let Some(trace) = context.trace() else { return Ok(()) };
    let span = span_id(ids);
    if let Some(attempt) = context.attempt() {
        attempt.set_span(span)?;
    }
    let header =
        Traceparent { trace_id: trace.trace_id, parent_id: span, sampled: trace.sampled }.to_header();
    request.headers_mut().insert(TRACEPARENT, header);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{HeaderMap, Response};
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Endpoint, Reason, SpanId, TraceContext, TraceId};

    use super::*;

    fn traced() -> Context {
        let context = Context::new();
        let trace =
            TraceContext { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), parent: None, sampled: true };
        context.set_trace(trace).unwrap();
        context
    }

    async fn send(context: &Context, ids: fn() -> u64) -> Result<HeaderMap, Fault> {
        let service = SpanLayer::new().ids(ids).layer(service_fn(|request: Request<()>| async move {
            Ok::<_, Infallible>(Response::new(request.headers().clone()))
        }));
        let mut request = Request::new(());
        request.extensions_mut().insert(context.clone());
        service.oneshot(request).await.map(Response::into_body)
    }

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()))
    }

    #[tokio::test]
    async fn every_try_has_a_span_of_its_own_and_the_other_side_sees_it() {
        let context = traced();
        for id in [|| 3_u64, || 4] {
            let attempt = context.begin_attempt(endpoint());
            let headers = send(&context, id).await.unwrap();
            let sent: Traceparent = headers["traceparent"].to_str().unwrap().parse().unwrap();
            assert_eq!(attempt.span(), Some(sent.parent_id));
            assert_eq!(sent.parent_id, SpanId(id().to_be_bytes()));
            assert_eq!(sent.trace_id, TraceId([1; 16]));
        }
        let spans: Vec<_> = context.attempts().iter().map(|a| a.span().unwrap()).collect();
        assert_eq!(spans.len(), 2);
        assert_ne!(spans[0], spans[1]);
    }

    #[tokio::test]
    async fn a_request_in_no_trace_passes_unchanged() {
        assert!(send(&Context::new(), || 3).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn without_a_balancer_the_header_is_still_written() {
        assert!(send(&traced(), || 3).await.unwrap().contains_key("traceparent"));
    }

    #[tokio::test]
    async fn a_second_span_for_one_try_is_refused() {
        let context = traced();
        context.begin_attempt(endpoint()).set_span(SpanId([9; 8])).unwrap();
        let fault = send(&context, || 3).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::Internal);
    }
}

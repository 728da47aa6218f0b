//! Continues the caller's trace, or starts one.
//!
//! - **reads** the headers `traceparent` and `tracestate`
//! - **writes** the context's trace slot; the request's `traceparent`, so that what is called becomes a child of our
//!   span; removes `tracestate` when the trace is not the caller's
//! - **ends a request with** nothing, it never fails
//! - **settings** whether callers are believed, where random numbers come from
//! - **place** outermost, beside the record: everything below can name the trace

use std::task::{Context as Task, Poll};

use http::{HeaderMap, Request};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, TraceContext};

use crate::{InvalidTraceparent, TRACEPARENT, TRACESTATE, Traceparent, random, span_id, trace_id};

/// Applies [`Trace`].
///
/// ```
/// use axum::{Router, routing::get};
/// use towpath_gateway_core::RescueLayer;
/// use towpath_trace::TraceLayer;
///
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(RescueLayer::new())
///     .layer(TraceLayer::new());
/// ```
#[derive(Debug, Clone)]
pub struct TraceLayer<I = fn() -> u64> {
    trust_incoming: bool,
    header: bool,
    ids: I,
}

impl TraceLayer {
    /// Believes callers; ids come from [`random`].
    pub fn new() -> Self {
        Self { trust_incoming: true, header: true, ids: random }
    }
}

impl Default for TraceLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<I> TraceLayer<I> {
    /// Whether a valid `traceparent` of the caller is continued (the default). Where callers are strangers it may be
    /// better not to let them choose trace ids: then every request starts a trace.
    #[must_use]
    pub fn trust_incoming(mut self, trust: bool) -> Self {
        self.trust_incoming = trust;
        self
    }

    /// Whether `traceparent` is written here (the default). Where every request that goes on meets a
    /// [`SpanLayer`](crate::SpanLayer), which writes it anew for each try, that would be work for nothing.
    #[must_use]
    pub fn header(mut self, write: bool) -> Self {
        self.header = write;
        self
    }

    /// Draws ids from `source`, for instance a seeded one in a simulation.
    pub fn ids<J: Fn() -> u64>(self, source: J) -> TraceLayer<J> {
        TraceLayer { trust_incoming: self.trust_incoming, header: self.header, ids: source }
    }
}

impl<S, I: Clone> Layer<S> for TraceLayer<I> {
    type Service = Trace<S, I>;

    fn layer(&self, inner: S) -> Trace<S, I> {
        Trace { inner, settings: self.clone() }
    }
}

/// Puts every request into a trace.
#[derive(Debug, Clone)]
pub struct Trace<S, I = fn() -> u64> {
    inner: S,
    settings: TraceLayer<I>,
}

impl<S, I, B> Service<Request<B>> for Trace<S, I>
where
    S: Service<Request<B>>,
    I: Fn() -> u64,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let trace = self.settings.enter(request.headers_mut());
        let context = Context::of(request.extensions_mut());
        if let Err(taken) = context.set_trace(trace) {
            // Nothing outside could turn an error into a response; in the fault slot the log shows it.
            let _ = context.set_fault(taken.into());
        }
        self.inner.call(request)
    }
}

impl<I: Fn() -> u64> TraceLayer<I> {
    /// Where the request stands, with its headers brought in line.
    fn enter(&self, headers: &mut HeaderMap) -> TraceContext {
        let incoming = Incoming::of(headers);
        let span = span_id(&self.ids);
        let trace = match incoming.caller {
            Some(Ok(caller)) if self.trust_incoming => caller.continued(span),
            caller => {
                if incoming.state {
                    headers.remove(TRACESTATE);
                }
                if caller.is_some() && !self.header {
                    headers.remove(TRACEPARENT);
                }
                TraceContext { trace_id: trace_id(&self.ids), span_id: span, parent: None, sampled: true }
            }
        };
        if self.header {
            headers.insert(TRACEPARENT, Traceparent::from(trace).to_header());
        }
        trace
    }
}

/// What the caller says of the trace.
#[derive(Default)]
struct Incoming {
    caller: Option<Result<Traceparent, InvalidTraceparent>>,
    /// Whether there is a `tracestate`.
    state: bool,
}

impl Incoming {
    /// One walk over the lines, for mostly neither header is there.
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if *name == TRACEPARENT {
                let repeated = found.caller.is_some().then_some(Err(InvalidTraceparent::Repeated));
                found.caller = repeated.or_else(|| Some(Traceparent::parse(value.as_bytes())));
            } else {
                found.state |= *name == TRACESTATE;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    use towpath_gateway_core::{Reason, SpanId};

    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    async fn pass(layer: TraceLayer, headers: &[(&'static str, &'static str)]) -> (HeaderMap, Context) {
        let service = ServiceBuilder::new().layer(layer).service(service_fn(|request: Request<()>| async {
            Ok::<_, Infallible>(Response::new(request))
        }));
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let mut seen = service.oneshot(request).await.unwrap().into_body();
        let context = Context::of(seen.extensions_mut());
        (seen.headers().clone(), context)
    }

    #[tokio::test]
    async fn a_valid_trace_is_continued_with_a_new_span() {
        let (headers, context) =
            pass(TraceLayer::new(), &[("traceparent", CALLER), ("tracestate", "a=1")]).await;
        let trace = context.trace().unwrap();
        assert_eq!(trace.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent.map(|id| id.to_string()).as_deref(), Some("00f067aa0ba902b7"));
        assert_ne!(Some(trace.span_id), trace.parent);
        assert!(!trace.sampled, "the caller's wish is kept");
        assert_eq!(headers["tracestate"], "a=1");
        assert_eq!(headers["traceparent"], Traceparent::from(*trace).to_header());
    }

    #[tokio::test]
    async fn without_a_valid_trace_a_new_one_starts_and_foreign_state_goes() {
        let cases: [&[(&'static str, &'static str)]; 3] = [
            &[("tracestate", "a=1")],
            &[("traceparent", "00-zz"), ("tracestate", "a=1")],
            &[("traceparent", CALLER), ("traceparent", CALLER), ("tracestate", "a=1")],
        ];
        for headers in cases {
            let (seen, context) = pass(TraceLayer::new(), headers).await;
            let trace = context.trace().unwrap();
            assert_eq!((trace.parent, trace.sampled), (None, true));
            assert!(seen.get("tracestate").is_none());
            assert_eq!(seen.get_all("traceparent").iter().count(), 1);
            assert_eq!(seen["traceparent"], Traceparent::from(*trace).to_header());
        }
    }

    #[tokio::test]
    async fn strangers_are_not_believed_when_told_so() {
        let layer = TraceLayer::new().trust_incoming(false);
        let (headers, context) = pass(layer, &[("traceparent", CALLER), ("tracestate", "a=1")]).await;
        let trace = context.trace().unwrap();
        assert_eq!(trace.parent, None);
        assert_ne!(trace.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(headers.get("tracestate").is_none());
    }

    #[tokio::test]
    async fn a_stack_with_spans_may_leave_the_header_to_them() {
        let layer = || TraceLayer::new().header(false);
        let (headers, context) = pass(layer(), &[]).await;
        assert!(headers.get("traceparent").is_none() && context.trace().is_some());
        let (_, context) = pass(layer(), &[("traceparent", CALLER)]).await;
        assert!(context.trace().unwrap().parent.is_some());
        let sent = [("traceparent", CALLER), ("tracestate", "a=1")];
        let (headers, _) = pass(layer().trust_incoming(false), &sent).await;
        assert!(headers.is_empty(), "what is not believed does not go on");
    }

    #[tokio::test]
    async fn ids_come_from_the_given_source() {
        let layer = TraceLayer::new().ids(|| 7);
        let service =
            ServiceBuilder::new().layer(layer).service(service_fn(|request: Request<()>| async move {
                Ok::<_, Infallible>(Response::new(Context::find(request.extensions()).cloned()))
            }));
        let context = service.oneshot(Request::new(())).await.unwrap().into_body().unwrap();
        assert_eq!(context.trace().unwrap().span_id, SpanId([0, 0, 0, 0, 0, 0, 0, 7]));
    }

    #[tokio::test]
    async fn two_of_this_layer_show_in_the_log() {
        let context = Context::new();
        let mut request = Request::new(());
        request.extensions_mut().insert(context.clone());
        let service = ServiceBuilder::new()
            .layer(TraceLayer::new())
            .layer(TraceLayer::new())
            .service(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) }));
        service.oneshot(request).await.unwrap();
        assert_eq!(context.fault().map(towpath_gateway_core::Fault::reason), Some(Reason::Internal));
    }
}

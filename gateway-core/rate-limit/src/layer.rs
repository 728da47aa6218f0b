//! Holds callers to the limit of their route.
//!
//! - **reads** the route's [`RateLimit`], the consumer, the client's address (the peer's, or what trusted proxies tell)
//! - **writes** `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` on answers of a limited route
//! - **ends a request with** `RateLimited` and the time to wait
//! - **settings** [`RateLimit`]; without one requests pass untouched
//! - **place** after authentication and authorization (a limit by consumer needs the consumer, and refused callers
//!   must not use up a quota), before anything that costs an upstream request

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault};

use crate::quota::Quota;
use crate::{RateLimit, Store};

/// Applies [`LimitRate`].
///
/// ```
/// use std::{num::NonZeroU32, sync::Arc, time::Duration};
///
/// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// use tower::{ServiceBuilder, ServiceExt};
/// use towpath_gateway_core::RescueLayer;
/// use towpath_rate_limit::{RateLimit, RateLimitKey, RateLimitLayer, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let once_an_hour = RateLimit {
///     name: "shop/reports".into(),
///     requests: NonZeroU32::MIN,
///     period: Duration::from_secs(3600),
///     burst: NonZeroU32::MIN,
///     key: RateLimitKey::Address,
/// };
/// let limits = RateLimitLayer::new(Arc::new(Store::new())).default_limit(once_an_hour);
/// let app: Router = Router::new()
///     .route("/", get(|| async { "report" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(limits));
///
/// let first = app.clone().oneshot(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(first.status(), StatusCode::OK);
/// assert_eq!(first.headers()["ratelimit-remaining"], "0");
/// let second = app.oneshot(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
/// assert_eq!(second.headers()["retry-after"], "3600");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    store: Arc<Store>,
    default: Option<Arc<RateLimit>>,
}

impl RateLimitLayer {
    /// Limits whose buckets are in `store`. Give every worker and listener the same store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, default: None }
    }

    /// The limit of routes that carry none (and of services without routing).
    #[must_use]
    pub fn default_limit(mut self, limit: RateLimit) -> Self {
        self.default = Some(Arc::new(limit));
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = LimitRate<S>;

    fn layer(&self, inner: S) -> LimitRate<S> {
        LimitRate { inner, settings: self.clone() }
    }
}

/// Passes on what is within the limit.
#[derive(Debug, Clone)]
pub struct LimitRate<S> {
    inner: S,
    settings: RateLimitLayer,
}

impl<S> LimitRate<S> {
    fn charge(&self, context: &Context) -> Result<Option<Quota>, Fault> {
        let limit = context.policy::<RateLimit>().or(self.settings.default.as_deref());
        limit.map(|limit| Quota::charge(&self.settings.store, limit, context, Instant::now())).transpose()
    }
}

impl<S, B, R> Service<Request<B>> for LimitRate<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = LimitRateFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let state = match self.charge(&context) {
            Ok(quota) => State::Passed { answer: self.inner.call(request), quota },
            Err(fault) => State::Refused { fault: Some(fault) },
        };
        LimitRateFuture { state }
    }
}

pin_project! {
    /// The answer of [`LimitRate`].
    pub struct LimitRateFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Passed {
            #[pin]
            answer: F,
            quota: Option<Quota>,
        },
        Refused {
            fault: Option<Fault>,
        },
    }
}

impl<F, R, E> Future for LimitRateFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response<R>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Passed { answer, quota } => {
                let mut response = ready!(answer.poll(cx)).map_err(Into::into)?;
                if let Some(quota) = quota {
                    quota.write(response.headers_mut());
                }
                Poll::Ready(Ok(response))
            }
            // Once it has ended it stays pending, as a future may.
            StateProj::Refused { fault } => {
                fault.take().map_or(Poll::Pending, |fault| Poll::Ready(Err(fault)))
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(towpath_loom))]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};
    use tower_test::mock;
    use towpath_gateway_core::{Connection, Consumer, Policies, Reason, RouteName};

    use super::*;
    use crate::RateLimitKey;

    fn limit(name: &str, requests: u32, key: RateLimitKey) -> RateLimit {
        let requests = NonZeroU32::new(requests).unwrap();
        RateLimit { name: name.into(), requests, period: Duration::from_secs(1), burst: requests, key }
    }

    fn from(peer: &str) -> Context {
        let peer: SocketAddr = format!("{peer}:4000").parse().unwrap();
        Context::on(Arc::new(Connection::plaintext(peer, "127.0.0.1:80".parse().unwrap())))
    }

    fn routed(peer: &str, limit: RateLimit) -> Context {
        let context = from(peer);
        context.set_route(RouteName::new("r", "0"), Policies::builder().with(limit).build()).unwrap();
        context
    }

    async fn send(layer: &RateLimitLayer, context: Context) -> Result<Response<()>, Fault> {
        let service = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Fault>(Response::new(())) }));
        let mut request = Request::new(());
        request.extensions_mut().insert(context);
        service.oneshot(request).await
    }

    async fn burst(layer: &RateLimitLayer, context: impl Fn() -> Context) -> usize {
        let mut admitted = 0;
        while admitted < 100 && send(layer, context()).await.is_ok() {
            admitted += 1;
        }
        admitted
    }

    fn layer() -> RateLimitLayer {
        RateLimitLayer::new(Arc::new(Store::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_everything_passes_untouched() {
        let layer = layer();
        assert_eq!(burst(&layer, || from("127.0.0.9")).await, 100);
        assert!(send(&layer, from("127.0.0.9")).await.unwrap().headers().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_one_per_interval() {
        let layer = layer().default_limit(limit("a", 5, RateLimitKey::Address));
        assert_eq!(burst(&layer, || from("127.0.0.9")).await, 5);
        let fault = send(&layer, from("127.0.0.9")).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::RateLimited);
        assert_eq!(fault.policy().map(|name| &**name), Some("a"));
        assert_eq!(fault.retry_after(), Some(Duration::from_millis(200)));

        tokio::time::advance(Duration::from_millis(199)).await;
        assert!(send(&layer, from("127.0.0.9")).await.is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(burst(&layer, || from("127.0.0.9")).await, 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(burst(&layer, || from("127.0.0.9")).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_tells_what_is_left() {
        let layer = layer().default_limit(limit("a", 5, RateLimitKey::Address));
        for left in ["4", "3"] {
            let response = send(&layer, from("127.0.0.9")).await.unwrap();
            let header = |name: &str| response.headers()[name].clone();
            assert_eq!([header("ratelimit-limit"), header("ratelimit-remaining")], ["5", left]);
            assert_eq!(header("ratelimit-reset"), "1");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_and_policies_never_share_a_bucket() {
        let layer = layer();
        let consumer = |name: &str| {
            let context = routed("127.0.0.9", limit("a", 2, RateLimitKey::Consumer));
            context.set_consumer(Consumer::new(name)).unwrap();
            context
        };
        assert_eq!(burst(&layer, || consumer("alice")).await, 2);
        assert_eq!(burst(&layer, || consumer("bob")).await, 2);
        assert_eq!(burst(&layer, || routed("127.0.0.9", limit("a", 2, RateLimitKey::Consumer))).await, 2);
        assert_eq!(burst(&layer, || routed("127.0.0.8", limit("a", 2, RateLimitKey::Address))).await, 2);
        assert_eq!(burst(&layer, || routed("127.0.0.8", limit("b", 2, RateLimitKey::Address))).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_routes_limit_comes_before_the_layers() {
        let layer = layer().default_limit(limit("wide", 50, RateLimitKey::Address));
        assert_eq!(burst(&layer, || routed("127.0.0.9", limit("tight", 3, RateLimitKey::Address))).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn workers_with_one_store_share_the_limit() {
        let store = Arc::new(Store::with_capacity(16));
        let workers = [RateLimitLayer::new(Arc::clone(&store)), RateLimitLayer::new(store)]
            .map(|layer| layer.default_limit(limit("a", 5, RateLimitKey::Address)));
        let mut admitted = 0;
        for n in 0..20 {
            admitted += usize::from(send(&workers[n % 2], from("127.0.0.9")).await.is_ok());
        }
        assert_eq!(admitted, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_never_reaches_the_inner_service_and_failures_pass_through() {
        let layer = layer().default_limit(limit("a", 1, RateLimitKey::Address));
        let (inner, mut handle) = mock::pair::<Request<()>, Response<()>>();
        let inner = inner.map_err(|error| Fault::new(Reason::ConnectFailed).with_source(error));
        let mut service = layer.layer(inner);
        handle.allow(1);

        let answer = service.ready().await.unwrap().call(Request::new(()));
        let (_, reply) = handle.next_request().await.unwrap();
        reply.send_error("gone");
        assert_eq!(answer.await.unwrap_err().reason(), Reason::ConnectFailed);

        handle.allow(1);
        let refused = service.ready().await.unwrap().call(Request::new(())).await;
        assert_eq!(refused.unwrap_err().reason(), Reason::RateLimited);
        drop(service);
        assert!(handle.next_request().await.is_none());
    }
}

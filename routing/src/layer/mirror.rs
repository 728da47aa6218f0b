//! Sends copies of requests to further backends, whose answers nobody waits for.
//!
//! - **reads** the mirrors of the rule's [`RuleAction`] in the context's route
//! - **writes** nothing in the request's own record: each copy has a child record, with the mirror as its backend
//! - **ends a request with** nothing, whatever becomes of a copy
//! - **settings** those of the rule; the source of random numbers; who runs copies
//! - **place** right before the seam, behind all filters: a mirror sees what the backend sees

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as Task, Poll};

use http::Request;
use http_body::Body as _;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Body, Context, Fault, Response};

use crate::filter::Draw;
use crate::tee::tee;
use crate::{Mirror, RuleAction};

/// Runs a copy beside the request.
pub type Spawn = fn(Pin<Box<dyn Future<Output = ()> + Send>>);

/// Applies [`MirrorRequests`].
///
/// ```
/// use towpath_routing::MirrorLayer;
///
/// let layer = MirrorLayer::new(|copy| _ = tokio::spawn(copy));
/// ```
#[derive(Debug, Clone)]
pub struct MirrorLayer<D = fn(u64) -> u64> {
    spawn: Spawn,
    draw: D,
}

impl MirrorLayer {
    /// Copies run where `spawn` puts them; which requests are copied is drawn with [`fastrand`].
    pub fn new(spawn: Spawn) -> Self {
        Self { spawn, draw: |bound| fastrand::u64(..bound) }
    }
}

impl<D: Draw> MirrorLayer<D> {
    /// The same, with the numbers of `draw`.
    pub fn with_draw(spawn: Spawn, draw: D) -> Self {
        Self { spawn, draw }
    }
}

impl<S, D: Clone> Layer<S> for MirrorLayer<D> {
    type Service = MirrorRequests<S, D>;

    fn layer(&self, inner: S) -> MirrorRequests<S, D> {
        MirrorRequests { inner, settings: self.clone() }
    }
}

/// Passes requests on, and copies of them to the rule's mirrors. A body that is in hand is shared; a stream is copied while
/// the backend reads it, and a copy that cannot keep up is given up: the request never waits for one.
#[derive(Debug, Clone)]
pub struct MirrorRequests<S, D = fn(u64) -> u64> {
    inner: S,
    settings: MirrorLayer<D>,
}

impl<S, D> Service<Request<Body>> for MirrorRequests<S, D>
where
    S: Service<Request<Body>, Response = Response, Error: Into<Fault> + Send, Future: Send + 'static>,
    S: Clone + Send + 'static,
    D: Draw,
{
    type Response = Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let request = self.copied(request);
        self.inner.call(request)
    }
}

impl<S, D> MirrorRequests<S, D>
where
    S: Service<Request<Body>, Response = Response, Error: Into<Fault> + Send, Future: Send + 'static>,
    S: Clone + Send + 'static,
    D: Draw,
{
    fn copied(&self, mut request: Request<Body>) -> Request<Body> {
        let context = Context::of(request.extensions_mut());
        let mirrors = context.policy::<RuleAction>().map_or(&[][..], |action| &action.filters().mirrors);
        let drawn: Vec<_> = mirrors.iter().filter(|mirror| mirror.takes(&self.settings.draw)).collect();
        if drawn.is_empty() {
            return request;
        }
        let (parts, body) = request.into_parts();
        let (body, copies) = tee(body, drawn.len());
        for (mirror, body) in drawn.into_iter().zip(copies) {
            let mut copy = Request::new(body);
            *copy.method_mut() = parts.method.clone();
            *copy.uri_mut() = parts.uri.clone();
            *copy.version_mut() = parts.version;
            *copy.headers_mut() = parts.headers.clone();
            copy.extensions_mut().insert(record(&context, mirror));
            (self.settings.spawn)(Box::pin(send(self.inner.clone(), copy)));
        }
        Request::from_parts(parts, body)
    }
}

/// The record of a copy: of the same trace, to its own backend.
fn record(context: &Context, mirror: &Mirror) -> Context {
    let child = context.child();
    // Fresh slots take what is written first.
    if let Some(trace) = context.trace() {
        let _ = child.set_trace(*trace);
    }
    let _ = child.set_backend(mirror.backend.clone());
    child
}

/// Reads the answer to its end, so that the connection can be used again.
async fn send<S>(mut service: S, copy: Request<Body>)
where
    S: Service<Request<Body>, Response = Response, Error: Into<Fault>>,
{
    if poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
        return;
    }
    match service.call(copy).await {
        Ok(answer) => {
            let mut body = pin!(answer.into_body());
            while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
        }
        Err(error) => {
            let fault: Fault = error.into();
            tracing::debug!(%fault, "a mirror did not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Backend, Balance, Policies, Reason, RouteName};

    use super::*;
    use crate::{Filters, Listener, Rule, WeightedBackend};

    fn backend(name: &str) -> Arc<Backend> {
        Arc::new(Backend::new(name, Balance::default(), Vec::new()))
    }

    /// Context of a request whose rule has these mirrors.
    fn routed(mirrors: Vec<Mirror>) -> Context {
        let backends = vec![WeightedBackend::new(backend("main"), 1)];
        let rule = Rule {
            filters: Filters { mirrors, ..Filters::default() },
            ..Rule::new(RouteName::new("n/r", "0"), Vec::new(), backends)
        };
        let action = RuleAction::of(&rule, &Listener::http("l", 80, Vec::new()));
        let context = Context::new();
        context.set_route(RouteName::new("n/r", "0"), Policies::builder().with(action).build()).unwrap();
        context.set_backend(backend("main")).unwrap();
        context
    }

    async fn seen(mirrors: Vec<Mirror>, body: Body, draws: fn(u64) -> u64) -> Vec<String> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&log);
        let service = service_fn(move |mut request: Request<Body>| {
            let log = Arc::clone(&noting);
            async move {
                let name = Context::of(request.extensions_mut()).backend().unwrap().name.clone();
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .map_err(|error| Fault::new(Reason::ClientGone).with_source(error))?;
                log.lock().unwrap().push(format!("{name} {:?}", body.to_bytes()));
                if name.starts_with("broken") {
                    Err(Fault::new(Reason::ConnectFailed))
                } else {
                    Ok(Response::new(Body::empty()))
                }
            }
        });
        let layer = MirrorLayer::with_draw(|copy| _ = tokio::spawn(copy), draws);
        let mut request = Request::new(body);
        request.extensions_mut().insert(routed(mirrors));
        layer.layer(service).oneshot(request).await.unwrap();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let mut seen = log.lock().unwrap().clone();
        seen.sort();
        seen
    }

    fn stream(parts: usize) -> Body {
        let frames = (0..parts).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))));
        Body::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn every_mirror_sees_the_request_and_none_ends_it() {
        let mirrors = || vec![Mirror::all(backend("a")), Mirror::all(backend("broken"))];
        for body in [Body::from("xxx"), stream(3)] {
            let seen = seen(mirrors(), body, |_| 0).await;
            assert_eq!(seen, ["a b\"xxx\"", "broken b\"xxx\"", "main b\"xxx\""]);
        }
    }

    #[tokio::test]
    async fn a_share_of_requests_is_copied() {
        let third = || vec![Mirror { backend: backend("a"), numerator: 1, denominator: 3 }];
        assert_eq!(seen(third(), Body::empty(), |_| 0).await.len(), 2);
        assert_eq!(seen(third(), Body::empty(), |_| 1).await.len(), 1);
        let none = vec![Mirror { backend: backend("a"), numerator: 0, denominator: 100 }];
        assert_eq!(seen(none, Body::empty(), |_| 0).await, ["main b\"\""]);
    }

    #[tokio::test]
    async fn a_copy_that_cannot_keep_up_is_given_up() {
        // On one thread the copy runs only after the request has read all of its body.
        let seen = seen(vec![Mirror::all(backend("a"))], stream(1000), |_| 0).await;
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].starts_with("main"));
    }
}

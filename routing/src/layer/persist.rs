//! Sends the requests of a session to where its first one went.
//!
//! - **reads** the route's [`SessionPersistence`]; the token in cookie or header; the backend and the try that answered
//! - **writes** the context's session, which the filter layer and the balancer follow; the token into responses
//! - **ends a request with** nothing
//! - **settings** the route's; without them requests pass untouched
//! - **place** right outside of the filter layer, which chooses the backend

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::time::SystemTime;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Session};

use crate::session::Going;
use crate::{RuleAction, SessionHome, SessionPersistence};

/// Applies [`PersistSessions`].
///
/// ```
/// use std::sync::Arc;
///
/// use axum::{Router, extract::Request, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Backend, Balance, Context, Endpoint, Policies, RescueLayer, RouteName};
/// use towpath_routing::{PersistLayer, SessionCarrier, SessionHome, SessionPersistence};
///
/// let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:9000".parse()?));
/// let backend = Arc::new(Backend::new("shop/cart:80", Balance::default(), vec![endpoint.clone()]));
/// let home = SessionHome { tag: "a1".into(), backend, endpoint };
/// let sessions = SessionPersistence::new(SessionCarrier::Cookie("cart".into()), vec![home]);
/// let policies = Policies::builder().with(sessions).build();
///
/// // The handler finds where the session is at home.
/// let app: Router = Router::new()
///     .route("/", get(|request: Request| async move {
///         let session = Context::find(request.extensions()).and_then(Context::session);
///         session.map_or("a new session".to_owned(), |session| session.endpoint.address.to_string())
///     }))
///     .layer(
///         ServiceBuilder::new()
///             .layer(RescueLayer::new())
///             .map_request(move |mut request: Request| {
///                 let route = RouteName::new("shop/cart", "0");
///                 let _ = Context::of(request.extensions_mut()).set_route(route, policies.clone());
///                 request
///             })
///             .layer(PersistLayer::new()),
///     );
/// # use tower::ServiceExt as _;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let request = Request::builder().header("cookie", "cart=a1").body(axum::body::Body::empty()).unwrap();
/// # let body = runtime.block_on(app.oneshot(request)).unwrap().into_body();
/// # let bytes = runtime.block_on(axum::body::to_bytes(body, 100)).unwrap();
/// # assert_eq!(bytes, "127.0.0.1:9000");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct PersistLayer {
    now: fn() -> u64,
}

impl PersistLayer {
    /// Sessions age by the system's clock.
    pub fn new() -> Self {
        Self { now: seconds }
    }

    /// Sessions age by `now`, in seconds since the epoch.
    pub fn with_clock(now: fn() -> u64) -> Self {
        Self { now }
    }
}

impl Default for PersistLayer {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl<S> Layer<S> for PersistLayer {
    type Service = PersistSessions<S>;

    fn layer(&self, inner: S) -> PersistSessions<S> {
        PersistSessions { inner, now: self.now }
    }
}

/// Reads the token of a request, and sends one with its answer where that has to change.
#[derive(Debug, Clone)]
pub struct PersistSessions<S> {
    inner: S,
    now: fn() -> u64,
}

impl<S, B, R> Service<Request<B>> for PersistSessions<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = PersistFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let (mut keeping, mut taken) = (None, None);
        if let Some(policy) = context.policy::<SessionPersistence>() {
            let now = (self.now)();
            let before = policy.going(request.headers(), now).map(Before::of);
            if let Some(Before { home, .. }) = &before {
                let session = Session { backend: home.backend.clone(), endpoint: home.endpoint.clone() };
                taken = context.set_session(session).err();
            }
            keeping = Some(Box::new(Keeping { context: context.clone(), before, now }));
        }
        if let Some(taken) = taken {
            return PersistFuture { state: State::Ended { fault: Some(taken.into()) } };
        }
        PersistFuture { state: State::Passed { answer: self.inner.call(request), keeping } }
    }
}

/// What the client's token said.
struct Before {
    home: SessionHome,
    created: u64,
    seen: u64,
}

impl Before {
    fn of(going: Going<'_>) -> Self {
        Self { home: going.home.clone(), created: going.created, seen: going.seen }
    }
}

/// What is needed when the answer is there.
struct Keeping {
    context: Context,
    before: Option<Before>,
    now: u64,
}

impl Keeping {
    fn write<R>(&self, response: &mut Response<R>) -> Option<()> {
        let policy = self.context.policy::<SessionPersistence>()?;
        let before = self.before.as_ref().map(|before| (&before.home, before.created, before.seen));
        let (backend, attempt) = (self.context.backend()?, self.context.attempt()?);
        let token = policy.token(before, (backend, attempt.endpoint()), self.now)?;
        let scope = self.context.policy::<RuleAction>().map_or("/", |action| &action.scope);
        let secure = self.context.connection().is_some_and(|connection| connection.tls.is_some());
        let (name, value) = policy.carried(&token, scope, secure, self.now)?;
        response.headers_mut().append(name, value);
        Some(())
    }
}

pin_project! {
    /// The answer of [`PersistSessions`].
    pub struct PersistFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] answer: F, keeping: Option<Box<Keeping>> },
        Ended { fault: Option<Fault> },
    }
}

impl<F, R, E> Future for PersistFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response<R>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Ended { fault } => {
                fault.take().map_or(Poll::Pending, |fault| Poll::Ready(Err(fault)))
            }
            StateProjection::Passed { answer, keeping } => {
                let mut answer = ready!(answer.poll(cx)).map_err(Into::into);
                if let (Ok(response), Some(keeping)) = (&mut answer, keeping) {
                    // Nothing to write: an answer that came from no endpoint, or a client that has its token.
                    let _ = keeping.write(response);
                }
                Poll::Ready(answer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::header::{COOKIE, SET_COOKIE};
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    use towpath_gateway_core::{Backend, Balance, Connection, Endpoint, Live, Policies};

    use super::*;
    use crate::table::fixture::{listener, route, rule};
    use crate::{FilterLayer, RouteLayer, Routes, Rule, SessionCarrier, WeightedBackend};

    fn home(tag: &str, port: u16) -> SessionHome {
        let endpoint = Arc::new(Endpoint::plaintext(([127, 0, 0, 1], port).into()));
        let backend = Backend::new(format!("n/{tag}:80"), Balance::default(), vec![endpoint.clone()]);
        SessionHome { tag: tag.into(), backend: Arc::new(backend), endpoint }
    }

    /// The backend that a request with this cookie goes to, and the cookie of the answer. The draw is for `b`; the try
    /// begins where the session is at home, else at the backend's one endpoint.
    async fn through(cookie: &str, weights: (u32, u32)) -> (String, Option<String>) {
        let homes = vec![home("a", 1), home("b", 2)];
        let backends = homes.iter().zip([weights.0, weights.1]);
        let backends = backends.map(|(home, weight)| WeightedBackend::new(home.backend.clone(), weight));
        let sessions = SessionPersistence::new(SessionCarrier::Cookie("s".into()), homes.clone());
        let rule = Rule {
            backends: backends.collect(),
            policies: Policies::builder().with(sessions).build(),
            ..rule("0", &["/cart"])
        };
        let routes = Live::new(Routes::new(vec![listener("*", vec![route("n/r", &[], vec![rule])])]));
        let upstream = service_fn(|mut request: Request<()>| async move {
            let context = Context::of(request.extensions_mut());
            let backend = context.backend().unwrap();
            context.begin_attempt(backend.endpoints().unwrap()[0].clone());
            Ok::<_, Fault>(Response::new(backend.name.to_string()))
        });
        let stack = ServiceBuilder::new()
            .layer(RouteLayer::new(routes))
            .layer(PersistLayer::with_clock(|| 7))
            .layer(FilterLayer::with_draw(|bound| bound - 1))
            .service(upstream);
        let mut request = Request::builder().uri("/cart/1").header("host", "a.example").body(()).unwrap();
        request.headers_mut().insert(COOKIE, cookie.parse().unwrap());
        let address = "127.0.0.1:1".parse().unwrap();
        request.extensions_mut().insert(Context::on(Arc::new(Connection::plaintext(address, address))));
        let response = stack.oneshot(request).await.unwrap();
        let cookie = response.headers().get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
        (response.into_body(), cookie)
    }

    #[tokio::test]
    async fn a_session_stays_with_its_backend_whatever_the_weights() {
        let to_b = Some("s=b; Path=/cart; HttpOnly; SameSite=Lax".to_owned());
        assert_eq!(through("", (1, 1)).await, ("n/b:80".into(), to_b.clone()));
        assert_eq!(through("s=a", (1, 1)).await, ("n/a:80".into(), None));
        assert_eq!(
            through("s=a", (0, 1)).await,
            ("n/a:80".into(), None),
            "GEP-1619: even if the weight is 0"
        );
        assert_eq!(through("s=forged", (1, 1)).await, ("n/b:80".into(), to_b));
    }
}

//! Finds the rule that takes a request.
//!
//! - **reads** host (`:authority`, else `Host`), path, query, method and headers; the TLS server name, if there is one
//! - **writes** the context's route: the rule's name and settings
//! - **ends a request with** 404 if no rule takes it; 421 if its host belongs to another listener than its connection
//! - **settings** [`Routes`], live
//! - **place** after normalization, before every layer that has settings per route

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Live, Reason};

use super::host::{host_of, lower};
use crate::{Explanation, RequestFacts, Routes};

/// Applies [`RouteTo`].
///
/// ```
/// use axum::{Router, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Live, RescueLayer};
/// use towpath_routing::{RouteLayer, Routes};
///
/// // The empty table takes nothing: everything is 404 until `store` puts another in its place.
/// let routes = Live::new(Routes::default());
/// let stack = ServiceBuilder::new().layer(RescueLayer::new()).layer(RouteLayer::new(routes.clone()));
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(stack);
/// # use axum::{body::Body, extract::Request};
/// # use tower::ServiceExt as _;
/// # let answer = app.oneshot(Request::new(Body::empty()));
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # assert_eq!(runtime.block_on(answer).unwrap().status(), 404);
/// ```
#[derive(Debug, Clone)]
pub struct RouteLayer {
    routes: Live<Routes>,
}

impl RouteLayer {
    /// A layer that asks the table in force when a request comes.
    pub fn new(routes: Live<Routes>) -> Self {
        Self { routes }
    }
}

impl<S> Layer<S> for RouteLayer {
    type Service = RouteTo<S>;

    fn layer(&self, inner: S) -> RouteTo<S> {
        RouteTo { inner, routes: self.routes.clone() }
    }
}

/// Passes on the requests that a rule takes.
#[derive(Debug, Clone)]
pub struct RouteTo<S> {
    inner: S,
    routes: Live<Routes>,
}

impl<S, B> Service<Request<B>> for RouteTo<S>
where
    S: Service<Request<B>, Error: Into<Fault>>,
{
    type Response = S::Response;
    type Error = Fault;
    type Future = RouteFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match find(&self.routes, &mut request) {
            Ok(()) => RouteFuture { state: State::Passed { answer: self.inner.call(request) } },
            Err(fault) => RouteFuture { state: State::Refused { fault: Some(fault) } },
        }
    }
}

impl Routes {
    /// Why a request goes where [`RouteTo`] sends it; an error where the table is not asked.
    pub fn explain_request<B>(&self, request: &mut Request<B>) -> Result<Explanation<'_>, Fault> {
        let context = Context::of(request.extensions_mut());
        asked(self, &context, request, |facts| self.explain(facts))
    }
}

fn find<B>(routes: &Live<Routes>, request: &mut Request<B>) -> Result<(), Fault> {
    let context = Context::of(request.extensions_mut());
    let routes = routes.load();
    let Some(matched) = asked(&routes, &context, request, |facts| routes.decide(facts))? else {
        return Err(
            Fault::new(Reason::NoRoute).with_detail("no rule takes this host, path, method and headers")
        );
    };
    Ok(context.set_route(matched.name.clone(), matched.policies.clone())?)
}

/// Asks a table, unless the host is another connection's.
fn asked<B, A>(
    routes: &Routes,
    context: &Context,
    request: &Request<B>,
    ask: impl FnOnce(&RequestFacts<'_>) -> A,
) -> Result<A, Fault> {
    let host = host_of(request);
    if let Some(name) = context.connection().and_then(|c| c.tls.as_ref()?.server_name.as_deref())
        && !routes.same_listener(&lower(name), &host)
    {
        let detail = "the host belongs to another listener than the server name of the connection";
        return Err(Fault::new(Reason::Misdirected).with_detail(detail));
    }
    Ok(ask(&RequestFacts {
        host: &host,
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        method: request.method(),
        headers: request.headers(),
    }))
}

pin_project! {
    /// The answer of [`RouteTo`].
    pub struct RouteFuture<F> {
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

impl<F, R, E> Future for RouteFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<Fault>,
{
    type Output = Result<R, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProjection::Passed { answer } => ready!(answer.poll(cx)).map_err(Into::into),
            StateProjection::Refused { fault } => Err(fault.take().unwrap_or(Fault::new(Reason::Internal))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Connection, TlsFacts, TlsVersion};

    use super::*;
    use crate::table::fixture::{listener, route, rule};

    async fn routed(routes: &Live<Routes>, request: Request<()>) -> Result<String, Reason> {
        let service =
            RouteLayer::new(routes.clone()).layer(service_fn(|mut request: Request<()>| async move {
                Ok::<_, Fault>(Context::of(request.extensions_mut()).route().unwrap().to_string())
            }));
        service.oneshot(request).await.map_err(|fault| fault.reason())
    }

    fn get(target: &str) -> Request<()> {
        Request::builder().uri(target).body(()).unwrap()
    }

    fn by_tls(target: &str, server_name: &str) -> Request<()> {
        let address = "127.0.0.1:443".parse().unwrap();
        let mut connection = Connection::plaintext(address, address);
        connection.tls = Some(TlsFacts {
            version: TlsVersion::Tls13,
            server_name: Some(server_name.into()),
            alpn: None,
            identity: None,
            forwarded_cert: None,
        });
        let mut request = get(target);
        request.extensions_mut().insert(Context::on(Arc::new(connection)));
        request
    }

    #[tokio::test]
    async fn the_rule_is_written_or_the_request_is_not_found() {
        let routes = Live::new(Routes::default());
        assert_eq!(routed(&routes, get("http://a.example/x")).await, Err(Reason::NoRoute));
        let rules = vec![rule("0", &["/x"])];
        routes.store(Routes::new(vec![listener("*", vec![route("n/r", &["a.example"], rules)])]));
        assert_eq!(routed(&routes, get("http://A.example:81/x/y")).await, Ok("n/r#0".to_owned()));
        assert_eq!(routed(&routes, get("http://a.example/y")).await, Err(Reason::NoRoute));
        assert_eq!(routed(&routes, get("/x")).await, Err(Reason::NoRoute));
    }

    #[tokio::test]
    async fn a_second_route_layer_is_reported() {
        let routes =
            Live::new(Routes::new(vec![listener("*", vec![route("n/r", &[], vec![rule("0", &["/"])])])]));
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Fault>(()) });
        let service = RouteLayer::new(routes.clone()).layer(RouteLayer::new(routes).layer(inner));
        assert_eq!(service.oneshot(get("/")).await.unwrap_err().reason(), Reason::Internal);
    }

    #[tokio::test]
    async fn a_connection_serves_its_own_listener_only() {
        let all = |name| vec![route(name, &[], vec![rule("0", &["/"])])];
        let any = vec![route("any", &["a.example"], vec![rule("0", &["/"])])];
        let routes = Live::new(Routes::new(vec![
            listener("*", any),
            listener("b.example", all("b")),
            listener("*.w.example", all("w")),
            listener("x.w.example", all("x")),
        ]));
        for (server_name, host, wanted) in [
            ("a.example", "a.example", Ok("any#0")),
            ("a.example", "b.example", Err(Reason::Misdirected)),
            ("a.example", "unknown.example", Err(Reason::NoRoute)),
            ("B.example", "b.example", Ok("b#0")),
            ("b.example", "a.example", Err(Reason::Misdirected)),
            ("b.example", "unknown.example", Err(Reason::Misdirected)),
            ("y.w.example", "z.w.example", Ok("w#0")),
            ("y.w.example", "x.w.example", Err(Reason::Misdirected)),
            ("x.w.example", "y.w.example", Err(Reason::Misdirected)),
            ("unknown.example", "a.example", Ok("any#0")),
        ] {
            let found = routed(&routes, by_tls(&format!("https://{host}/"), server_name)).await;
            assert_eq!(found, wanted.map(str::to_owned), "{server_name} {host}");
        }
    }
}

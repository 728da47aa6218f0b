//! Holds connections to the workload's authorization policies.
//!
//! - **reads** the connection's addresses, verified identity and server name
//! - **writes** nothing; of a flow, the context's decision
//! - **ends a connection with** a close; there is no protocol yet to say more in, so the observer tells the log. A flow ends
//!   with `Denied`, `ExternalDenied` or `ExternalAuthFailed`, which name the policy
//! - **settings** live [`AuthorizationPolicies`]; without a policy in force everything passes. The service by which the
//!   providers of CUSTOM policies are reached, which are asked first, about what carries no HTTP
//! - **place** in the accept stack, after TLS has proved the identity; in a layer 4 stack, before the route. A swap of
//!   policies concerns later connections; requests are held to the new ones by [`AuthorizeLayer`](crate::AuthorizeLayer)

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use futures_util::future::{Either, Ready, ready};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Connection, Context, Fault, Flow, HttpService, Live, Reason};

use crate::authorize::settle;
use crate::request_facts::of_connection;
use crate::{
    AuthorizationPolicies, AuthorizationPolicy, ExternalAuth, Ground, Http, Verdict, ask_external_connection,
};

type Observer = Arc<dyn Fn(&Connection, &Verdict) + Send + Sync>;

/// Applies [`AuthorizeConnection`].
///
/// ```
/// use towpath_auth::ConnectionAuthorizeLayer;
/// use towpath_gateway_core::Live;
///
/// let layer = ConnectionAuthorizeLayer::before_http(Live::default())
///     .on_refusal(|connection, verdict| eprintln!("{} refused: {}", connection.peer, verdict.ground.as_str()));
/// ```
#[derive(Clone)]
pub struct ConnectionAuthorizeLayer {
    policies: Live<AuthorizationPolicies>,
    http: Http<'static>,
    port: Option<u16>,
    authorizers: Option<HttpService>,
    observer: Option<Observer>,
}

impl ConnectionAuthorizeLayer {
    /// For connections that carry no HTTP: this is the one decision about them.
    pub fn tcp(policies: Live<AuthorizationPolicies>) -> Self {
        Self { policies, http: Http::None, port: None, authorizers: None, observer: None }
    }

    /// For connections that requests will come on: closes those on which no request could pass, and leaves the rest to
    /// [`AuthorizeLayer`](crate::AuthorizeLayer). Without it such requests are answered with 403, which tells a
    /// client more; with it strangers never reach the HTTP parser.
    pub fn before_http(policies: Live<AuthorizationPolicies>) -> Self {
        Self { policies, http: Http::Ahead, port: None, authorizers: None, observer: None }
    }

    /// Sends questions of CUSTOM policies to the backend in their context. Without it no provider can be asked: what such a
    /// policy matches is refused, unless its provider is set to `fail_open`.
    #[must_use]
    pub fn asking(mut self, client: HttpService) -> Self {
        self.authorizers = Some(client);
        self
    }

    /// The port that policies name, where it is not the one that the connection came in on.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Is told of every connection that is refused, before it is closed. It must not block.
    #[must_use]
    pub fn on_refusal(mut self, observer: impl Fn(&Connection, &Verdict) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    fn verdict(&self, connection: &Connection) -> Verdict {
        let verdict = self.policies.load().evaluate(&of_connection(connection, self.port, self.http.clone()));
        if let (false, Some(observer)) = (verdict.allowed, &self.observer) {
            observer(connection, &verdict);
        }
        verdict
    }

    /// Who is to be asked, in order; nobody mostly, and then it costs a look.
    fn providers(&self, connection: &Connection) -> Vec<Arc<ExternalAuth>> {
        let policies = self.policies.load();
        if !matches!(self.http, Http::None) || !policies.has_custom() {
            return Vec::new();
        }
        let facts = of_connection(connection, self.port, Http::None);
        // One whose provider is not there is refused by the verdict.
        let provider = |policy: &AuthorizationPolicy| policy.provider.clone();
        policies.custom(&facts).filter_map(provider).collect()
    }

    /// Asks them; the error is what the first one to refuse comes to.
    async fn ask(&self, providers: &[Arc<ExternalAuth>], connection: &Connection) -> Result<(), Fault> {
        for auth in providers {
            let answer = match self.authorizers.clone() {
                Some(client) => ask_external_connection(client, auth, connection).await,
                None => Err(auth.failed("there is nothing to ask it by")),
            };
            let (ground, fault) = match answer {
                Ok(true) => continue,
                Err(_) if auth.fail_open => continue,
                Ok(false) => (Ground::AuthorizerRefuses, refused(auth)),
                Err(fault) => (Ground::AuthorizerFailed, fault),
            };
            if let Some(observer) = &self.observer {
                observer(connection, &Verdict::unallowed(&auth.name, ground));
            }
            return Err(fault);
        }
        Ok(())
    }

    fn admit(&self, context: &Context) -> Result<(), Fault> {
        settle(self.verdict(on(context)?), context)
    }
}

fn on(context: &Context) -> Result<&Connection, Fault> {
    let connection = context.connection().map(|connection| &**connection);
    connection.ok_or_else(|| Fault::new(Reason::Internal).with_detail("the flow is on no connection"))
}

fn refused(auth: &ExternalAuth) -> Fault {
    let fault = Fault::new(Reason::ExternalDenied).with_policy(Arc::clone(&auth.name));
    fault.with_detail(Ground::AuthorizerRefuses.as_str())
}

impl fmt::Debug for ConnectionAuthorizeLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionAuthorizeLayer")
            .field("policies", &self.policies)
            .field("http", &self.http)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ConnectionAuthorizeLayer {
    type Service = AuthorizeConnection<S>;

    fn layer(&self, inner: S) -> AuthorizeConnection<S> {
        AuthorizeConnection { inner, settings: self.clone() }
    }
}

/// Passes on the connections that the policies allow.
#[derive(Debug, Clone)]
pub struct AuthorizeConnection<S> {
    inner: S,
    settings: ConnectionAuthorizeLayer,
}

/// The end of a connection that was let pass or closed at once, or about which somebody has to be asked.
type Ended<F, E> =
    Either<F, Either<Ready<Result<(), E>>, Pin<Box<dyn Future<Output = Result<(), E>> + Send>>>>;

impl<S> AuthorizeConnection<S> {
    /// What was asked for readiness, which is what has to be called.
    fn ready_inner(&mut self) -> S
    where
        S: Clone,
    {
        let next = self.inner.clone();
        mem::replace(&mut self.inner, next)
    }
}

impl<S> Service<Accepted> for AuthorizeConnection<S>
where
    S: Service<Accepted, Response = (), Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = Ended<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        let providers = self.settings.providers(&accepted.connection);
        if !providers.is_empty() {
            let (settings, mut inner) = (self.settings.clone(), self.ready_inner());
            return Either::Right(Either::Right(Box::pin(async move {
                let connection = &accepted.connection;
                if settings.ask(&providers, connection).await.is_ok() && settings.verdict(connection).allowed
                {
                    return inner.call(accepted).await;
                }
                Ok(())
            })));
        }
        if self.settings.verdict(&accepted.connection).allowed {
            Either::Left(self.inner.call(accepted))
        } else {
            // Dropping the stream closes the connection.
            Either::Right(Either::Left(ready(Ok(()))))
        }
    }
}

impl<S, T> Service<Flow<T>> for AuthorizeConnection<S>
where
    S: Service<Flow<T>, Response = (), Error = Fault, Future: Send> + Clone + Send + 'static,
    T: Send + 'static,
{
    type Response = ();
    type Error = Fault;
    type Future = Ended<S::Future, Fault>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, flow: Flow<T>) -> Self::Future {
        let providers = on(&flow.context).map(|connection| self.settings.providers(connection));
        if let Ok(providers) = providers
            && !providers.is_empty()
        {
            let (settings, mut inner) = (self.settings.clone(), self.ready_inner());
            return Either::Right(Either::Right(Box::pin(async move {
                settings.ask(&providers, on(&flow.context)?).await?;
                settings.admit(&flow.context)?;
                inner.call(flow).await
            })));
        }
        match self.settings.admit(&flow.context) {
            Ok(()) => Either::Left(self.inner.call(flow)),
            Err(fault) => Either::Right(Either::Left(ready(Err(fault)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tower::{ServiceExt, service_fn};

    use bytes::Bytes;
    use towpath_gateway_core::{Backend, Body, Request, Response};

    use super::*;
    use crate::{Action, AuthorizationRule, ExternalAuthProtocol, Operation, Pattern, Values};

    fn allow(operation: Operation) -> Live<AuthorizationPolicies> {
        let rule = AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() };
        let policy = AuthorizationPolicy::new("shop/p", Action::Allow, vec![rule]);
        Live::new(AuthorizationPolicies::new(vec![policy]))
    }

    fn gets() -> Operation {
        Operation { methods: Values::is(vec![Pattern::new("GET")]), ..Operation::default() }
    }

    fn port(port: u16) -> Operation {
        Operation { ports: Values::is(vec![port]), ..Operation::default() }
    }

    /// What the client of a connection to port 8080 reads.
    async fn greeting(layer: &ConnectionAuthorizeLayer) -> String {
        let service = layer.layer(service_fn(|mut accepted: Accepted| async move {
            accepted.io.write_all(b"hello").await.unwrap();
            Ok::<_, Infallible>(())
        }));
        let (mut client, server) = duplex(64);
        let (peer, local) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        let connection = Connection::plaintext(peer, local);
        service.oneshot(Accepted { io: Box::new(server), connection }).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn tcp_knows_no_methods_and_http_may_still_pass() {
        assert_eq!(greeting(&ConnectionAuthorizeLayer::tcp(allow(gets()))).await, "");
        assert_eq!(greeting(&ConnectionAuthorizeLayer::before_http(allow(gets()))).await, "hello");
    }

    #[tokio::test]
    async fn the_port_is_the_listeners_unless_given() {
        for layer in [ConnectionAuthorizeLayer::tcp, ConnectionAuthorizeLayer::before_http] {
            assert_eq!(greeting(&layer(allow(port(8080)))).await, "hello");
            assert_eq!(greeting(&layer(allow(port(9090)))).await, "");
            assert_eq!(greeting(&layer(allow(port(9090))).port(9090)).await, "hello");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_verdict() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let layer = ConnectionAuthorizeLayer::tcp(allow(port(9090)))
            .on_refusal(move |peer, verdict| log.lock().unwrap().push((peer.peer.port(), verdict.ground)));
        greeting(&layer).await;
        greeting(&layer.clone().port(9090)).await;
        assert_eq!(*told.lock().unwrap(), [(4000, crate::Ground::NothingAllows)]);
    }

    /// A CUSTOM policy for connections to port 8080.
    fn custom(name: &str, auth: Option<ExternalAuth>) -> AuthorizationPolicy {
        let rule = AuthorizationRule { to: vec![port(8080)], ..AuthorizationRule::default() };
        let mut policy = AuthorizationPolicy::new(name, Action::Custom, vec![rule]);
        policy.provider = auth.map(Arc::new);
        policy
    }

    fn asks(name: &str, backend: &str) -> ExternalAuth {
        let protocol = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
        ExternalAuth::new(name, Arc::new(Backend::unresolved(backend)), protocol)
    }

    /// Allows as the backend `yes`, refuses as `no`, is silent as `mute`, and cannot be reached otherwise.
    fn authorizers(log: &Arc<Mutex<Vec<String>>>) -> HttpService {
        let log = Arc::clone(log);
        HttpService::new(service_fn(move |question: Request| {
            let context = Context::find(question.extensions()).unwrap();
            let backend = context.backend().unwrap().name.to_string();
            log.lock().unwrap().push(backend.clone());
            async move {
                let message: &'static [u8] = match &*backend {
                    "yes" => &[0, 0, 0, 0, 2, 10, 0],
                    "no" => &[0, 0, 0, 0, 4, 10, 2, 8, 7],
                    "mute" => std::future::pending().await,
                    _ => return Err(Fault::new(Reason::ConnectFailed)),
                };
                let mut answer = Response::new(Body::from(Bytes::from_static(message)));
                for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
                    answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
                }
                Ok(answer)
            }
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn whom_custom_policies_name_is_asked_about_connections_without_http() {
        let open = |backend: &str| ExternalAuth { fail_open: true, ..asks("p", backend) };
        let deny = || {
            let rule = AuthorizationRule { to: vec![port(8080)], ..AuthorizationRule::default() };
            AuthorizationPolicy::new("d", Action::Deny, vec![rule])
        };
        let by_http = ExternalAuthProtocol::Http {
            path_prefix: "".into(),
            allowed_headers: Vec::new(),
            allowed_response_headers: Vec::new(),
        };
        let http = ExternalAuth::new("p", Arc::new(Backend::unresolved("no")), by_http);
        for (policies, to, refused, asked) in [
            (vec![custom("p", Some(asks("p", "yes")))], 8080, None, vec!["yes"]),
            (vec![custom("p", Some(asks("p", "no")))], 8080, Some((Reason::ExternalDenied, "p")), vec!["no"]),
            (vec![custom("p", Some(asks("p", "no")))], 9090, None, vec![]),
            (
                vec![custom("p", Some(asks("p", "mute")))],
                8080,
                Some((Reason::ExternalAuthFailed, "p")),
                vec!["mute"],
            ),
            (
                vec![custom("p", Some(asks("p", "gone")))],
                8080,
                Some((Reason::ExternalAuthFailed, "p")),
                vec!["gone"],
            ),
            (vec![custom("p", Some(open("mute")))], 8080, None, vec!["mute"]),
            (vec![custom("p", Some(open("no")))], 8080, Some((Reason::ExternalDenied, "p")), vec!["no"]),
            (vec![custom("p", None)], 8080, Some((Reason::Denied, "p")), vec![]),
            (vec![custom("p", Some(http))], 8080, None, vec![]),
            (
                vec![custom("p", Some(asks("p", "yes"))), deny()],
                8080,
                Some((Reason::Denied, "d")),
                vec!["yes"],
            ),
            (
                vec![custom("p", Some(asks("p", "yes"))), custom("q", Some(asks("q", "no")))],
                8080,
                Some((Reason::ExternalDenied, "q")),
                vec!["yes", "no"],
            ),
        ] {
            let log = Arc::default();
            let live = Live::new(AuthorizationPolicies::new(policies.clone()));
            let layer = ConnectionAuthorizeLayer::tcp(live).asking(authorizers(&log)).port(to);
            let inner = service_fn(|_: Flow<()>| async { Ok::<_, Fault>(()) });
            let at = "127.0.0.1:1".parse().unwrap();
            let context = Context::on(Arc::new(Connection::plaintext(at, at)));
            let ended = layer.layer(inner).oneshot(Flow { context, io: () }).await.err();
            let fault = ended.as_ref().map(|fault| (fault.reason(), &**fault.policy().unwrap()));
            assert_eq!(fault, refused, "{policies:?}");
            assert_eq!(*log.lock().unwrap(), asked);
            let greeted = greeting(&layer).await;
            assert_eq!(greeted.is_empty(), refused.is_some(), "{policies:?}");
        }
    }

    #[tokio::test]
    async fn without_a_way_to_ask_a_matching_policy_refuses() {
        let policies = || Live::new(AuthorizationPolicies::new(vec![custom("p", Some(asks("p", "yes")))]));
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let layer = ConnectionAuthorizeLayer::tcp(policies())
            .on_refusal(move |_, verdict| log.lock().unwrap().push((verdict.policy.clone(), verdict.ground)));
        assert_eq!(greeting(&layer).await, "");
        assert_eq!(*told.lock().unwrap(), [(Some("p".into()), Ground::AuthorizerFailed)]);
        assert_eq!(greeting(&ConnectionAuthorizeLayer::before_http(policies())).await, "hello");
    }

    #[tokio::test]
    async fn a_flow_is_refused_with_the_name_of_the_policy() {
        let at = "127.0.0.1:8080".parse().unwrap();
        for (allowed, wanted) in [(8080, None), (9090, Some("shop/p"))] {
            let context = Context::on(Arc::new(Connection::plaintext(at, at)));
            let inner = service_fn(|_: Flow<()>| async { Ok::<_, Fault>(()) });
            let flow = Flow { context: context.clone(), io: () };
            let ended = ConnectionAuthorizeLayer::tcp(allow(port(allowed))).layer(inner).oneshot(flow).await;
            let fault = ended.err();
            assert_eq!(fault.as_ref().and_then(Fault::policy).map(|name| &**name), wanted);
            assert_eq!(fault.map(|fault| fault.reason()), wanted.map(|_| Reason::Denied));
            assert_eq!(context.decision().unwrap().allowed, wanted.is_none());
        }
    }
}

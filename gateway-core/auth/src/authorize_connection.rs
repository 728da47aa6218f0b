//! Holds connections to the workload's authorization policies.
//!
//! - **reads** the connection's addresses, verified identity and server name
//! - **writes** nothing; of a flow, the context's decision
//! - **ends a connection with** a close; there is no protocol yet to say more in, so the observer tells the log. A flow ends
//!   with `Denied`, which names the policy
//! - **settings** live [`AuthorizationPolicies`]; without a policy in force everything passes
//! - **place** in the accept stack, after TLS has proved the identity; in a layer 4 stack, before the route. A swap of policies concerns later connections;
//!   requests are held to the new ones by [`AuthorizeLayer`](crate::AuthorizeLayer)

use std::fmt;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use futures_util::future::{Either, Ready, ready};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Connection, Context, Fault, Flow, Live, Reason};

use crate::authorize::settle;
use crate::request_facts::of_connection;
use crate::{AuthorizationPolicies, Http, Verdict};

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
    observer: Option<Observer>,
}

impl ConnectionAuthorizeLayer {
    /// For connections that carry no HTTP: this is the one decision about them.
    pub fn tcp(policies: Live<AuthorizationPolicies>) -> Self {
        Self { policies, http: Http::None, port: None, observer: None }
    }

    /// For connections that requests will come on: closes those on which no request could pass, and leaves the rest to
    /// [`AuthorizeLayer`](crate::AuthorizeLayer). Without it such requests are answered with 403, which tells a
    /// client more; with it strangers never reach the HTTP parser.
    pub fn before_http(policies: Live<AuthorizationPolicies>) -> Self {
        Self { policies, http: Http::Ahead, port: None, observer: None }
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

    fn admit(&self, context: &Context) -> Result<(), Fault> {
        let Some(connection) = context.connection() else {
            return Err(Fault::new(Reason::Internal).with_detail("the flow is on no connection"));
        };
        settle(self.verdict(connection), context)
    }
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

impl<S> Service<Accepted> for AuthorizeConnection<S>
where
    S: Service<Accepted, Response = ()>,
{
    type Response = ();
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<(), S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        if self.settings.verdict(&accepted.connection).allowed {
            Either::Left(self.inner.call(accepted))
        } else {
            // Dropping the stream closes the connection.
            Either::Right(ready(Ok(())))
        }
    }
}

impl<S, T> Service<Flow<T>> for AuthorizeConnection<S>
where
    S: Service<Flow<T>, Response = (), Error = Fault>,
{
    type Response = ();
    type Error = Fault;
    type Future = Either<S::Future, Ready<Result<(), Fault>>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, flow: Flow<T>) -> Self::Future {
        match self.settings.admit(&flow.context) {
            Ok(()) => Either::Left(self.inner.call(flow)),
            Err(fault) => Either::Right(ready(Err(fault))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{Action, AuthorizationPolicy, AuthorizationRule, Operation, Pattern, Values};

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

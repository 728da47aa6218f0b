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
mod tests;

//! Holds connections that live to policies that came after them.
//!
//! - **reads** the connection's addresses, verified identity and server name, whenever the policies change
//! - **writes** nothing
//! - **ends a connection** on which the new policies let nothing pass any more, also after an upgrade of its protocol; one that
//!   carries no HTTP also when a CUSTOM policy matches whose provider was not asked about it: its client may come again, and
//!   is asked about then
//! - **settings** live [`AuthorizationPolicies`], and the [`Changes`] by which it hears of new ones
//! - **place** in the accept stack, after TLS has proved the identity. Requests on connections that stay are held to the new
//!   policies by [`AuthorizeLayer`](crate::AuthorizeLayer)

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Changes, Connection, Leash, Live};

use crate::request_facts::of_connection;
use crate::{AuthorizationPolicies, AuthorizationPolicy, Ground, Http, Verdict};

type Observer = Arc<dyn Fn(&Connection, &Verdict) + Send + Sync>;

/// Applies [`Recheck`].
///
/// ```
/// use towpath_auth::RecheckLayer;
/// use towpath_gateway_core::{Changes, Live};
///
/// let changes = Changes::new();
/// let layer = RecheckLayer::http(Live::default(), changes.clone())
///     .on_end(|connection, verdict| eprintln!("{} ended: {}", connection.peer, verdict.ground.as_str()));
/// ```
#[derive(Clone)]
pub struct RecheckLayer {
    policies: Live<AuthorizationPolicies>,
    changes: Changes,
    http: Http<'static>,
    port: Option<u16>,
    observer: Option<Observer>,
}

impl RecheckLayer {
    /// For connections with requests: ended are those on which no request could pass.
    pub fn http(policies: Live<AuthorizationPolicies>, changes: Changes) -> Self {
        Self { policies, changes, http: Http::Ahead, port: None, observer: None }
    }

    /// For connections that carry no HTTP.
    pub fn tcp(policies: Live<AuthorizationPolicies>, changes: Changes) -> Self {
        Self { policies, changes, http: Http::None, port: None, observer: None }
    }

    /// The port that policies name, where it is not the one that the connection came in on.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Is told of every connection that is ended. It must not block.
    #[must_use]
    pub fn on_end(mut self, observer: impl Fn(&Connection, &Verdict) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The CUSTOM policies that match what carries no HTTP, with whom they ask.
    fn custom(&self, connection: &Connection) -> Vec<(Arc<str>, Option<Arc<str>>)> {
        let policies = self.policies.load();
        if !matches!(self.http, Http::None) || !policies.has_custom() {
            return Vec::new();
        }
        let facts = of_connection(connection, self.port, Http::None);
        let whom = |policy: &AuthorizationPolicy| {
            let backend = policy.provider.as_ref().map(|provider| Arc::clone(&provider.backend.name));
            (Arc::clone(&policy.name), backend)
        };
        policies.custom(&facts).map(whom).collect()
    }

    /// Resolves once policies that come after the call refuse the connection.
    fn refused(self, connection: Connection) -> impl Future<Output = ()> + Send {
        let changed = self.changes.next();
        self.refused_after(changed, connection)
    }

    async fn refused_after(self, changed: impl Future<Output = ()> + Send, connection: Connection) {
        let asked = self.custom(&connection);
        changed.await;
        loop {
            // Heard of from here on, so that no change falls between the look and the wait.
            let changed = self.changes.next();
            let facts = of_connection(&connection, self.port, self.http.clone());
            let mut verdict = self.policies.load().evaluate(&facts);
            if let Some((policy, _)) = self.custom(&connection).iter().find(|custom| !asked.contains(custom))
            {
                verdict = Verdict::unallowed(policy, Ground::NotAsked);
            }
            if !verdict.allowed {
                if let Some(observer) = &self.observer {
                    observer(&connection, &verdict);
                }
                return;
            }
            changed.await;
        }
    }
}

impl std::fmt::Debug for RecheckLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecheckLayer").field("policies", &self.policies).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RecheckLayer {
    type Service = Recheck<S>;

    fn layer(&self, inner: S) -> Recheck<S> {
        Recheck { inner, settings: self.clone() }
    }
}

/// Serves connections for as long as the policies let something pass on them.
#[derive(Debug, Clone)]
pub struct Recheck<S> {
    inner: S,
    settings: RecheckLayer,
}

impl<S> Service<Accepted> for Recheck<S>
where
    S: Service<Accepted, Response = (), Future: Send + 'static, Error: Send>,
{
    type Response = ();
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        let Accepted { io, connection } = accepted;
        let mut refused = Box::pin(self.settings.clone().refused(connection.clone()));
        let (io, leash) = Leash::on(io);
        let served = self.inner.call(Accepted { io, connection });
        Box::pin(async move {
            tokio::select! {
                biased;
                ended = served => {
                    // Who serves an upgraded connection goes before it.
                    leash.until(refused);
                    ended
                }
                // Dropping what serves it closes the connection.
                () = &mut refused => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::Backend;

    use super::*;
    use crate::{Action, AuthorizationRule, ExternalAuth, ExternalAuthProtocol, Operation, Pattern, Values};

    fn policies(action: Action, operation: Operation) -> AuthorizationPolicies {
        let rule = AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() };
        AuthorizationPolicies::new(vec![AuthorizationPolicy::new("shop/p", action, vec![rule])])
    }

    /// Whether a connection is ended by policies that come while it lives.
    async fn ends(http: bool, old: AuthorizationPolicies, new: AuthorizationPolicies) -> bool {
        let (live, changes) = (Live::new(old), Changes::new());
        let layer = if http { RecheckLayer::http } else { RecheckLayer::tcp }(live.clone(), changes.clone());
        let inner = service_fn(|accepted: Accepted| async move {
            let _held = accepted;
            std::future::pending::<Result<(), Infallible>>().await
        });
        let (mut client, io) = duplex(64);
        let at = "127.0.0.1:8080".parse().unwrap();
        let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(at, at) };
        let serving = tokio::spawn(layer.port(8080).layer(inner).oneshot(accepted));
        tokio::task::yield_now().await;
        live.store(new);
        changes.tell();
        let ended = tokio::select! {
            read = client.read_u8() => read.is_err(),
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => false,
        };
        serving.abort();
        ended
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_outlives_its_service_and_not_its_policies() {
        let port = |port| Operation { ports: Values::is(vec![port]), ..Operation::default() };
        for (denied, ended) in [(8080, true), (9090, false)] {
            let (live, changes) = (Live::<AuthorizationPolicies>::default(), Changes::new());
            let layer = RecheckLayer::http(live.clone(), changes.clone());
            // As a server does after 101: the stream goes on elsewhere, and the future that served it is done.
            let inner = service_fn(|accepted: Accepted| async move {
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(accepted.io);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
                Ok::<_, Infallible>(())
            });
            let (mut client, io) = duplex(64);
            let at = "127.0.0.1:8080".parse().unwrap();
            let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(at, at) };
            layer.layer(inner).oneshot(accepted).await.unwrap();
            client.write_u8(7).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), 7);
            live.store(policies(Action::Deny, port(denied)));
            changes.tell();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let _ = client.write_u8(8).await;
            assert_eq!(client.read_u8().await.is_err(), ended, "{denied}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_once_nothing_can_pass_on_it() {
        let port = |port| Operation { ports: Values::is(vec![port]), ..Operation::default() };
        let gets = || Operation { methods: Values::is(vec![Pattern::new("GET")]), ..Operation::default() };
        for (http, new, ended) in [
            (true, policies(Action::Allow, port(9090)), true),
            (true, policies(Action::Allow, port(8080)), false),
            (true, policies(Action::Allow, gets()), false),
            (true, policies(Action::Deny, gets()), false),
            (true, policies(Action::Deny, port(8080)), true),
            (false, policies(Action::Allow, gets()), true),
            (false, policies(Action::Allow, port(8080)), false),
            (false, AuthorizationPolicies::default(), false),
            (true, asked(8080), false),
            (false, asked(8080), true),
            (false, asked(9090), false),
        ] {
            assert_eq!(
                ends(http, AuthorizationPolicies::default(), new.clone()).await,
                ended,
                "{http} {new:?}"
            );
        }
        // Of what its authorizer was asked about at its beginning nothing is new.
        assert!(!ends(false, asked(8080), asked(8080)).await);
    }

    /// A CUSTOM policy for this port.
    fn asked(port: u16) -> AuthorizationPolicies {
        let operation = Operation { ports: Values::is(vec![port]), ..Operation::default() };
        let mut rule = AuthorizationRule::default();
        rule.to.push(operation);
        let mut policy = AuthorizationPolicy::new("shop/c", Action::Custom, vec![rule]);
        let protocol = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
        let backend = Arc::new(Backend::unresolved("auth"));
        policy.provider = Some(Arc::new(ExternalAuth::new("shop/c", backend, protocol)));
        AuthorizationPolicies::new(vec![policy])
    }
}

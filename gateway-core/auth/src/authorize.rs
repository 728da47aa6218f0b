//! Holds requests to the workload's authorization policies.
//!
//! - **reads** method, host, path, headers; the verified token and the client's address of the context; the connection's
//!   addresses, verified identity and server name
//! - **writes** the decision, either way
//! - **ends a request with** `Denied`, naming the policy; `BadRequest` if there is a policy and the host is unreadable
//! - **settings** live [`AuthorizationPolicies`]; without a policy in force everything passes
//! - **place** after path normalization (a policy means the path that the application will see) and authentication,
//!   before limits and everything that costs an upstream request

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Live, Reason};

use crate::request_facts::with_facts;
use crate::{AdmitFuture, AuthorizationPolicies, Facts, Verdict};

/// Applies [`Authorize`].
///
/// ```
/// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// use tower::{ServiceBuilder, ServiceExt};
/// use towpath_auth::{
///     Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, AuthorizeLayer, Operation, PathPattern,
///     Values,
/// };
/// use towpath_gateway_core::{Live, RescueLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), towpath_auth::InvalidTemplate> {
/// let admin = Values::is(vec![PathPattern::new("/admin/{**}")?]);
/// let rule = AuthorizationRule {
///     to: vec![Operation { paths: admin, ..Operation::default() }],
///     ..AuthorizationRule::default()
/// };
/// let policy = AuthorizationPolicy::new("shop/no-admin", Action::Deny, vec![rule]);
/// let policies = Live::new(AuthorizationPolicies::new(vec![policy]));
/// let app: Router = Router::new()
///     .fallback(get(|| async { "hello" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(AuthorizeLayer::new(policies.clone())));
///
/// let admin = || Request::get("/admin/keys").body(Body::empty()).unwrap();
/// assert_eq!(app.clone().oneshot(admin()).await.unwrap().status(), StatusCode::FORBIDDEN);
/// policies.store(AuthorizationPolicies::default());
/// assert_eq!(app.oneshot(admin()).await.unwrap().status(), StatusCode::OK);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AuthorizeLayer {
    policies: Live<AuthorizationPolicies>,
    port: Option<u16>,
}

impl AuthorizeLayer {
    /// Holds requests to these policies, as they are when each request comes.
    pub fn new(policies: Live<AuthorizationPolicies>) -> Self {
        Self { policies, port: None }
    }

    /// The port that policies name, where it is not the one that the connection came in on: a sidecar listens beside
    /// its application.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    fn verdict<B>(&self, request: &Request<B>, context: &Context) -> Result<Verdict, Fault> {
        let policies = self.policies.load();
        if policies.is_empty() {
            return Ok(policies.evaluate(&Facts::default()));
        }
        with_facts(request, context, self.port, |facts| policies.evaluate(facts))
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner, settings: self.clone() }
    }
}

/// Passes on what the policies allow.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    settings: AuthorizeLayer,
}

impl<S, B> Service<Request<B>> for Authorize<S>
where
    S: Service<Request<B>, Error: Into<Fault>>,
{
    type Response = S::Response;
    type Error = Fault;
    type Future = AdmitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        let verdict = self.settings.verdict(&request, &context);
        match verdict.and_then(|verdict| settle(verdict, &context)) {
            Ok(()) => AdmitFuture::admitted(self.inner.call(request)),
            Err(fault) => AdmitFuture::refused(fault),
        }
    }
}

/// Keeps a verdict, and blames its policy if it refuses.
pub(crate) fn settle(verdict: Verdict, context: &Context) -> Result<(), Fault> {
    let refused = (!verdict.allowed).then(|| refusal(&verdict));
    context.set_decision(verdict.into())?;
    refused.map_or(Ok(()), Err)
}

fn refusal(verdict: &Verdict) -> Fault {
    let fault = Fault::new(Reason::Denied).with_detail(verdict.ground.as_str());
    match &verdict.policy {
        Some(name) => fault.with_policy(Arc::clone(name)),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;
    use http::{HeaderValue, Response};
    use tower::{ServiceExt, service_fn};
    use tower_test::mock;
    use towpath_gateway_core::{Connection, Decision, TlsFacts, TlsVersion};

    use super::*;
    use crate::{
        Action, AuthorizationPolicy, AuthorizationRule, Operation, PathPattern, Pattern, Source, Values,
    };

    fn policies(action: Action, rule: AuthorizationRule) -> Live<AuthorizationPolicies> {
        let policy = AuthorizationPolicy::new("shop/p", action, vec![rule]);
        Live::new(AuthorizationPolicies::new(vec![policy]))
    }

    fn decided(allowed: bool, why: &'static str, rule: Option<usize>) -> Decision {
        Decision { rule, why, ..Decision::by(allowed, Some("shop/p".into())) }
    }

    fn to(operation: Operation) -> AuthorizationRule {
        AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() }
    }

    fn hosts(host: &str) -> AuthorizationRule {
        to(Operation { hosts: Values::is(vec![Pattern::new(host)]), ..Operation::default() })
    }

    fn connected(identity: Option<&str>) -> Context {
        let tls = identity.map(|id| TlsFacts {
            version: TlsVersion::Tls13,
            server_name: None,
            alpn: None,
            identity: Some(id.parse().unwrap()),
            forwarded_cert: None,
        });
        let (peer, local) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        Context::on(Arc::new(Connection { tls, ..Connection::plaintext(peer, local) }))
    }

    async fn send(layer: &AuthorizeLayer, context: &Context, mut request: Request<()>) -> Result<(), Fault> {
        request.extensions_mut().insert(context.clone());
        let service = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, Fault>(Response::new(())) }));
        service.oneshot(request).await.map(drop)
    }

    async fn reason(layer: &AuthorizeLayer, request: Request<()>) -> Option<Reason> {
        send(layer, &connected(None), request).await.err().map(|fault| fault.reason())
    }

    #[tokio::test]
    async fn the_proved_identity_decides_and_the_decision_is_kept() {
        let from = Source { principals: Values::is(vec![Pattern::new("td/ns/shop/*")]), ..Source::default() };
        let rule = AuthorizationRule { from: vec![from], ..AuthorizationRule::default() };
        let layer = AuthorizeLayer::new(policies(Action::Allow, rule));

        let friend = connected(Some("spiffe://td/ns/shop/sa/web"));
        send(&layer, &friend, Request::new(())).await.unwrap();
        assert_eq!(friend.decision(), Some(&decided(true, "an ALLOW policy matches", Some(0))));

        for context in [connected(Some("spiffe://td/ns/other/sa/web")), connected(None), Context::new()] {
            let fault = send(&layer, &context, Request::new(())).await.unwrap_err();
            assert_eq!(
                (fault.reason(), fault.policy().map(|name| &**name)),
                (Reason::Denied, Some("shop/p"))
            );
            assert_eq!(fault.detail(), "no ALLOW policy matches");
            assert_eq!(context.decision(), Some(&decided(false, "no ALLOW policy matches", None)));
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_deny_policy() {
        let layer = AuthorizeLayer::new(policies(Action::Deny, AuthorizationRule::default()));
        let context = connected(None);
        let fault = send(&layer, &context, Request::new(())).await.unwrap_err();
        assert_eq!(fault.to_string(), "denied: a DENY policy matches (policy shop/p)");
        assert_eq!(context.decision(), Some(&decided(false, "a DENY policy matches", Some(0))));
    }

    #[tokio::test]
    async fn the_host_is_the_authority_or_else_the_field() {
        let layer = AuthorizeLayer::new(policies(Action::Deny, hosts("a.example:81")));
        for (uri, field, refused) in [
            ("/", Some("a.example:81"), true),
            ("/", Some("A.Example:81"), true),
            ("/", Some("a.example"), false),
            ("/", None, false),
            ("http://a.example:81/", Some("b.example"), true),
            ("http://b.example/", Some("a.example:81"), false),
            ("http://user@a.example:81/", None, true),
        ] {
            let mut request = Request::get(uri).body(()).unwrap();
            if let Some(host) = field {
                request.headers_mut().insert(HOST, HeaderValue::from_static(host));
            }
            assert_eq!(reason(&layer, request).await, refused.then_some(Reason::Denied), "{uri} {field:?}");
        }
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_compared_is_refused_once_there_is_a_policy() {
        let unreadable = || Request::get("/").header(HOST, &b"\xff"[..]).body(()).unwrap();
        let twice = || Request::get("/").header(HOST, "a").header(HOST, "b").body(()).unwrap();
        let layer = AuthorizeLayer::new(policies(Action::Deny, hosts("a.example")));
        assert_eq!(reason(&layer, unreadable()).await, Some(Reason::BadRequest));
        assert_eq!(reason(&layer, twice()).await, Some(Reason::BadRequest));
        let open = AuthorizeLayer::new(Live::default());
        assert_eq!(reason(&open, unreadable()).await, None);
    }

    #[tokio::test]
    async fn path_method_and_port_are_those_of_the_request() {
        let operation = Operation {
            methods: Values::is(vec![Pattern::new("DELETE")]),
            paths: Values::is(vec![PathPattern::new("/a").unwrap()]),
            ports: Values::is(vec![8080]),
            ..Operation::default()
        };
        let layer = AuthorizeLayer::new(policies(Action::Deny, to(operation)));
        let request = |method: &str, uri: &str| Request::builder().method(method).uri(uri).body(()).unwrap();
        assert_eq!(reason(&layer, request("DELETE", "/a?x=1")).await, Some(Reason::Denied));
        assert_eq!(reason(&layer, request("GET", "/a")).await, None);
        assert_eq!(reason(&layer, request("DELETE", "/b")).await, None);
        assert_eq!(reason(&layer.port(9090), request("DELETE", "/a")).await, None);
    }

    #[tokio::test]
    async fn a_swap_of_policies_is_seen_by_the_next_request_alone() {
        let live = Live::default();
        let layer = AuthorizeLayer::new(live.clone());
        let context = connected(None);
        send(&layer, &context, Request::new(())).await.unwrap();
        assert!(context.decision().is_some_and(|decision| decision.allowed && decision.policy.is_none()));
        live.store_arc(policies(Action::Deny, AuthorizationRule::default()).snapshot());
        assert_eq!(reason(&layer, Request::new(())).await, Some(Reason::Denied));
    }

    #[tokio::test]
    async fn a_refused_request_never_reaches_the_inner_service_and_failures_pass_through() {
        let live = Live::default();
        let (inner, mut handle) = mock::pair::<Request<()>, Response<()>>();
        let inner = inner.map_err(|error| Fault::new(Reason::ConnectFailed).with_source(error));
        let mut service = AuthorizeLayer::new(live.clone()).layer(inner);
        handle.allow(2);
        let answer = service.ready().await.unwrap().call(Request::new(()));
        handle.next_request().await.unwrap().1.send_error("gone");
        assert_eq!(answer.await.unwrap_err().reason(), Reason::ConnectFailed);

        live.store_arc(policies(Action::Deny, AuthorizationRule::default()).snapshot());
        let refused = service.ready().await.unwrap().call(Request::new(())).await;
        assert_eq!(refused.unwrap_err().reason(), Reason::Denied);
        drop(service);
        assert!(handle.next_request().await.is_none());
    }
}

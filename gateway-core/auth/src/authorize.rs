//! Holds requests to the workload's authorization policies.
//!
//! - **reads** method, host, path; the connection's verified identity and local port
//! - **writes** the decision, either way
//! - **ends a request with** `Denied`, naming the policy; `BadRequest` if there is a policy and the host is unreadable
//! - **settings** live [`AuthorizationPolicies`]; without a policy in force everything passes
//! - **place** after path normalization (a policy means the path that the application will see) and authentication,
//!   before limits and everything that costs an upstream request

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::header::HOST;
use http::{HeaderMap, Request, Uri};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Connection, Context, Decision, Fault, Live, Reason};

use crate::{AdmitFuture, AuthorizationPolicies, Facts, Http, HttpFacts, Verdict};

/// Applies [`Authorize`].
///
/// ```
/// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// use tower::{ServiceBuilder, ServiceExt};
/// use towpath_auth::{
///     Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, AuthorizeLayer, Operation, Pattern,
/// };
/// use towpath_gateway_core::{Live, RescueLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let admin = Operation { paths: vec![Pattern::new("/admin*")], ..Operation::default() };
/// let policies = Live::new(AuthorizationPolicies::new(vec![AuthorizationPolicy {
///     name: "shop/no-admin".into(),
///     action: Action::Deny,
///     rules: vec![AuthorizationRule { to: vec![admin], ..AuthorizationRule::default() }],
/// }]));
/// let app: Router = Router::new()
///     .fallback(get(|| async { "hello" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(AuthorizeLayer::new(policies.clone())));
///
/// let admin = || Request::get("/admin/keys").body(Body::empty()).unwrap();
/// assert_eq!(app.clone().oneshot(admin()).await.unwrap().status(), StatusCode::FORBIDDEN);
/// policies.store(AuthorizationPolicies::default());
/// assert_eq!(app.oneshot(admin()).await.unwrap().status(), StatusCode::OK);
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

    fn verdict<B>(&self, request: &Request<B>, connection: Option<&Connection>) -> Result<Verdict, Fault> {
        let policies = self.policies.load();
        let host = if policies.is_empty() { None } else { host(request.uri(), request.headers())? };
        Ok(policies.evaluate(&Facts {
            principal: connection.and_then(Connection::identity),
            port: self.port.or_else(|| connection.map(|connection| connection.local.port())),
            http: Http::Request(HttpFacts {
                method: request.method().as_str(),
                host,
                path: request.uri().path(),
            }),
        }))
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
        let verdict = self.settings.verdict(&request, context.connection().map(Arc::as_ref));
        match verdict.and_then(|verdict| settle(verdict, &context)) {
            Ok(()) => AdmitFuture::admitted(self.inner.call(request)),
            Err(fault) => AdmitFuture::refused(fault),
        }
    }
}

fn settle(verdict: Verdict, context: &Context) -> Result<(), Fault> {
    let Verdict { allowed, policy, ground } = verdict;
    context.set_decision(Decision { allowed, policy: policy.clone() })?;
    if allowed {
        return Ok(());
    }
    let fault = Fault::new(Reason::Denied).with_detail(ground.as_str());
    Err(match policy {
        Some(name) => fault.with_policy(name),
        None => fault,
    })
}

/// The host with port, as sent: the authority of the target, else the one `Host` field (RFC 9112 section 3.2).
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, Fault> {
    if let Some(authority) = uri.authority() {
        let authority = authority.as_str();
        return Ok(Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host)));
    }
    let mut fields = headers.get_all(HOST).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        // A host that no pattern can be compared with must not slip past a DENY policy.
        (Some(host), None) => host.to_str().map(Some).map_err(|error| bad_host().with_source(error)),
        (Some(_), Some(_)) => Err(bad_host()),
    }
}

fn bad_host() -> Fault {
    Fault::new(Reason::BadRequest).with_detail("several Host fields, or one that is not text")
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};
    use tower::{ServiceExt, service_fn};
    use tower_test::mock;
    use towpath_gateway_core::{TlsFacts, TlsVersion};

    use super::*;
    use crate::{Action, AuthorizationPolicy, AuthorizationRule, Operation, Pattern, Source};

    fn policies(action: Action, rule: AuthorizationRule) -> Live<AuthorizationPolicies> {
        let policy = AuthorizationPolicy { name: "shop/p".into(), action, rules: vec![rule] };
        Live::new(AuthorizationPolicies::new(vec![policy]))
    }

    fn to(operation: Operation) -> AuthorizationRule {
        AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() }
    }

    fn hosts(host: &str) -> AuthorizationRule {
        to(Operation { hosts: vec![Pattern::new(host)], ..Operation::default() })
    }

    fn connected(identity: Option<&str>) -> Context {
        let tls = identity.map(|id| TlsFacts {
            version: TlsVersion::Tls13,
            server_name: None,
            alpn: None,
            identity: Some(id.parse().unwrap()),
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
        let from = Source { principals: vec![Pattern::new("td/ns/shop/*")], ..Source::default() };
        let rule = AuthorizationRule { from: vec![from], ..AuthorizationRule::default() };
        let layer = AuthorizeLayer::new(policies(Action::Allow, rule));

        let friend = connected(Some("spiffe://td/ns/shop/sa/web"));
        send(&layer, &friend, Request::new(())).await.unwrap();
        assert_eq!(friend.decision(), Some(&Decision { allowed: true, policy: Some("shop/p".into()) }));

        for context in [connected(Some("spiffe://td/ns/other/sa/web")), connected(None), Context::new()] {
            let fault = send(&layer, &context, Request::new(())).await.unwrap_err();
            assert_eq!(
                (fault.reason(), fault.policy().map(|name| &**name)),
                (Reason::Denied, Some("shop/p"))
            );
            assert_eq!(fault.detail(), "no ALLOW policy matches");
            assert_eq!(context.decision(), Some(&Decision { allowed: false, policy: Some("shop/p".into()) }));
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_deny_policy() {
        let layer = AuthorizeLayer::new(policies(Action::Deny, AuthorizationRule::default()));
        let context = connected(None);
        let fault = send(&layer, &context, Request::new(())).await.unwrap_err();
        assert_eq!(fault.to_string(), "denied: a DENY policy matches (policy shop/p)");
        assert_eq!(context.decision(), Some(&Decision { allowed: false, policy: Some("shop/p".into()) }));
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
            methods: vec![Pattern::new("DELETE")],
            paths: vec![Pattern::new("/a")],
            ports: vec![8080],
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
        assert_eq!(context.decision(), Some(&Decision { allowed: true, policy: None }));
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

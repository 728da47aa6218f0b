//! Asks the external authorizers that CUSTOM policies name.
//!
//! - **reads** what [`AuthorizeLayer`](crate::AuthorizeLayer) reads, but no token: none is checked yet; the request's head, and
//!   its body as far as a provider's settings say
//! - **writes** what a provider asks for: headers towards the backend and towards the client, and the query
//! - **ends a request with** the provider's own answer (`ExternalDenied` in the log, with the policy); `ExternalAuthFailed`
//!   if it could not be asked, or is not there; `BodyTooLarge` (413)
//! - **settings** live [`AuthorizationPolicies`]; the service by which providers are reached
//! - **place** before [`JwtLayer`](crate::JwtLayer) and [`AuthorizeLayer`](crate::AuthorizeLayer), with the latter's policies, as
//!   in Istio: a provider may send clients to fetch a token, or give them one, and no rule of CUSTOM sees what a token says; what
//!   a provider allows DENY and ALLOW policies may still refuse

use std::mem;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::StatusCode;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, GrpcStatus, Live, Reason, Request, Response};

use crate::external_auth::{Asked, ask};
use crate::request_facts::with_facts;
use crate::{AuthorizationPolicies, ExternalAuth, ExternalAuthFuture};

/// Applies [`CustomAuthorize`].
///
/// ```
/// use std::sync::Arc;
///
/// use tower::{ServiceBuilder, service_fn};
/// use towpath_auth::{
///     Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, AuthorizeLayer, CustomAuthorizeLayer,
///     ExternalAuth, ExternalAuthProtocol,
/// };
/// use towpath_gateway_core::{Backend, Body, Fault, Live, Request, RescueLayer, Response};
///
/// let provider = ExternalAuth::new(
///     "shop/ask",
///     Arc::new(Backend::unresolved("shop/auth:9000")),
///     ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() },
/// );
/// let mut policy = AuthorizationPolicy::new("shop/ask", Action::Custom, vec![AuthorizationRule::default()]);
/// policy.provider = Some(Arc::new(provider));
/// let policies = Live::new(AuthorizationPolicies::new(vec![policy]));
///
/// // Stands in for a client that sends a request to its context's backend: it cannot reach it.
/// let client = service_fn(|_: Request| async { Err::<Response, _>(Fault::new(towpath_gateway_core::Reason::ConnectFailed)) });
/// let app = ServiceBuilder::new()
///     .layer(RescueLayer::new())
///     .layer(CustomAuthorizeLayer::new(policies.clone(), client))
///     .layer(AuthorizeLayer::new(policies))
///     .service(service_fn(|_: Request| async { Ok::<_, Fault>(Response::new(Body::empty())) }));
/// # use tower::ServiceExt as _;
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # let answer = runtime.block_on(app.oneshot(Request::new(Body::empty())));
/// # assert_eq!(answer.unwrap().status(), 403);
/// ```
#[derive(Debug, Clone)]
pub struct CustomAuthorizeLayer<A> {
    policies: Live<AuthorizationPolicies>,
    client: A,
    port: Option<u16>,
}

impl<A> CustomAuthorizeLayer<A> {
    /// Holds requests to these policies, as they are when each request comes. `client` sends a request to the backend in its
    /// context.
    pub fn new(policies: Live<AuthorizationPolicies>, client: A) -> Self {
        Self { policies, client, port: None }
    }

    /// The port that policies name, where it is not the one that the connection came in on.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Who is to be asked, in order; nobody mostly.
    fn providers(&self, request: &Request, context: &Context) -> Result<Vec<Arc<ExternalAuth>>, Fault> {
        let policies = self.policies.load();
        let provider = |policy: &crate::AuthorizationPolicy| {
            policy.provider.clone().ok_or_else(|| {
                Fault::new(Reason::ExternalAuthFailed)
                    .with_status(StatusCode::FORBIDDEN, GrpcStatus::of_http(StatusCode::FORBIDDEN).code())
                    .with_policy(Arc::clone(&policy.name))
                    .with_detail("the provider that the policy names is not there")
            })
        };
        with_facts(request, context, self.port, |facts| policies.custom(facts).map(provider).collect())?
    }
}

impl<S, A: Clone> Layer<S> for CustomAuthorizeLayer<A> {
    type Service = CustomAuthorize<S, A>;

    fn layer(&self, inner: S) -> CustomAuthorize<S, A> {
        CustomAuthorize { inner, settings: self.clone() }
    }
}

/// Passes on what every provider allows that is to be asked.
#[derive(Debug, Clone)]
pub struct CustomAuthorize<S, A> {
    inner: S,
    settings: CustomAuthorizeLayer<A>,
}

impl<S, A> Service<Request> for CustomAuthorize<S, A>
where
    S: Service<Request, Response = Response, Error: Into<Fault>, Future: Send> + Clone + Send + 'static,
    A: Service<Request, Response = Response, Error: Into<Fault>, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Fault;
    type Future = ExternalAuthFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if !self.settings.policies.load().has_custom() {
            return ExternalAuthFuture::passed(self.inner.call(request));
        }
        let context = Context::of(request.extensions_mut());
        match self.settings.providers(&request, &context) {
            Ok(providers) if providers.is_empty() => ExternalAuthFuture::passed(self.inner.call(request)),
            Ok(providers) => {
                // What was asked for readiness is what has to be called.
                let next = self.inner.clone();
                let inner = mem::replace(&mut self.inner, next);
                let client = self.settings.client.clone();
                ExternalAuthFuture::asking(decided(inner, client, providers, request, context))
            }
            Err(fault) => ExternalAuthFuture::asking(std::future::ready(Err(fault))),
        }
    }
}

async fn decided<S, A>(
    mut inner: S,
    client: A,
    providers: Vec<Arc<ExternalAuth>>,
    mut request: Request,
    context: Context,
) -> Result<Response, Fault>
where
    S: Service<Request, Response = Response, Error: Into<Fault>>,
    A: Service<Request, Response = Response, Error: Into<Fault>> + Clone,
{
    let mut changes = Vec::with_capacity(providers.len());
    for provider in &providers {
        match ask(client.clone(), provider, request, &context).await? {
            Asked::Ends(response) => return Ok(response),
            Asked::Goes(changed, change) => {
                request = changed;
                changes.push(change);
            }
        }
    }
    let mut response = inner.call(request).await.map_err(Into::into)?;
    for change in &changes {
        change.to_response(response.headers_mut());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Backend, Body};

    use super::*;
    use crate::{
        Action, AuthorizationPolicy, AuthorizationRule, ExternalAuthProtocol, ExternalHttp, Operation,
        PathPattern, Values,
    };

    fn custom(name: &str, path: &str, provider: Option<&str>) -> AuthorizationPolicy {
        let paths = Values::is(vec![PathPattern::new(path).unwrap()]);
        let rule = AuthorizationRule {
            to: vec![Operation { paths, ..Operation::default() }],
            ..AuthorizationRule::default()
        };
        let protocol = ExternalAuthProtocol::Http(ExternalHttp::default());
        let mut policy = AuthorizationPolicy::new(name, Action::Custom, vec![rule]);
        policy.provider = provider.map(|backend| {
            Arc::new(ExternalAuth::new(name, Arc::new(Backend::unresolved(backend)), protocol))
        });
        policy
    }

    /// The status, the policy of the fault, and who was asked.
    async fn send(
        policies: Vec<AuthorizationPolicy>,
        path: &str,
    ) -> (StatusCode, Option<String>, Vec<String>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let client = service_fn(move |question: Request| {
            let backend = Context::find(question.extensions()).unwrap().backend().unwrap().name.to_string();
            log.lock().unwrap().push(backend.clone());
            let mut answer = Response::new(Body::empty());
            if backend == "no" {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
            }
            std::future::ready(Ok::<_, Fault>(answer))
        });
        let layer = CustomAuthorizeLayer::new(Live::new(AuthorizationPolicies::new(policies)), client);
        let app =
            layer.layer(service_fn(|_: Request| async { Ok::<_, Fault>(Response::new(Body::empty())) }));
        let context = Context::new();
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(context.clone());
        let answered = app.oneshot(request).await;
        let policy = match &answered {
            Ok(_) => context.fault().and_then(|fault| fault.policy().cloned()),
            Err(fault) => fault.policy().cloned(),
        };
        let status = answered.map_or_else(|fault| fault.status(), |response| response.status());
        let asked = asked.lock().unwrap().clone();
        (status, policy.map(|name| name.to_string()), asked)
    }

    #[tokio::test]
    async fn whom_policies_name_is_asked_and_one_refusal_is_enough() {
        let (ok, no) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
        for (policies, path, status, policy, asked) in [
            (vec![], "/a", ok, None, vec![]),
            (vec![custom("p", "/a", Some("yes"))], "/a", ok, None, vec!["yes"]),
            (vec![custom("p", "/a", Some("no"))], "/b", ok, None, vec![]),
            (vec![custom("p", "/a", Some("no"))], "/a", no, Some("p"), vec!["no"]),
            (
                vec![custom("p", "/a", Some("yes")), custom("q", "/*", Some("no"))],
                "/a",
                no,
                Some("q"),
                vec!["yes", "no"],
            ),
            (vec![custom("p", "/a", None)], "/a", StatusCode::FORBIDDEN, Some("p"), vec![]),
            (vec![custom("p", "/a", None)], "/b", ok, None, vec![]),
        ] {
            let expected =
                (status, policy.map(str::to_owned), asked.iter().map(ToString::to_string).collect());
            assert_eq!(send(policies.clone(), path).await, expected, "{policies:?} {path}");
        }
    }
}

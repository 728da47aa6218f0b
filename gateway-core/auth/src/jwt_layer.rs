//! Checks the tokens that requests carry.
//!
//! - **reads** headers, query and cookies where the rules look for tokens
//! - **writes** the token that was taken into the context; takes it out of the request, and puts its payload or claims into
//!   headers, as its rule says; drops what a client sent under the names of such headers
//! - **ends a request with** `CredentialInvalid` and the policy's name: 401 with a challenge (RFC 6750 section 3), 403 if the
//!   token is for another audience, as in Istio
//! - **settings** live [`RequestAuthentications`]; without rules everything passes. A request without a token passes: that
//!   there must be one is an authorization policy's to say
//! - **place** after path normalization and CUSTOM policies, whose providers may give tokens; before authorization and all that
//!   changes headers by who asks

use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::SystemTime;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, GrpcStatus, Live, Reason};

use crate::{AdmitFuture, RequestAuthentications, TokenRefusal, TokenRefused};

/// Applies [`CheckTokens`].
///
/// ```
/// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// use tower::{ServiceBuilder, ServiceExt};
/// use towpath_auth::{JwtLayer, JwtRule, KeySet, RequestAuthentications};
/// use towpath_gateway_core::{Live, RescueLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), towpath_auth::InvalidKeySet> {
/// let keys = KeySet::parse(r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#)?;
/// let rule = JwtRule::new("shop/tokens", "https://issuer.example", Live::new(keys));
/// let rules = Live::new(RequestAuthentications::new(vec![rule]));
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(JwtLayer::new(rules)));
///
/// let without = Request::get("/").body(Body::empty()).unwrap();
/// assert_eq!(app.clone().oneshot(without).await.unwrap().status(), StatusCode::OK);
/// let wrong = Request::get("/").header("authorization", "Bearer a.b.c").body(Body::empty()).unwrap();
/// assert_eq!(app.oneshot(wrong).await.unwrap().status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct JwtLayer {
    rules: Live<RequestAuthentications>,
}

impl JwtLayer {
    /// Holds requests to these rules, as they are when each request comes.
    pub fn new(rules: Live<RequestAuthentications>) -> Self {
        Self { rules }
    }
}

impl<S> Layer<S> for JwtLayer {
    type Service = CheckTokens<S>;

    fn layer(&self, inner: S) -> CheckTokens<S> {
        CheckTokens { inner, rules: self.rules.clone() }
    }
}

/// Passes on requests whose tokens are good, and those without one.
#[derive(Debug, Clone)]
pub struct CheckTokens<S> {
    inner: S,
    rules: Live<RequestAuthentications>,
}

impl<S, B> Service<Request<B>> for CheckTokens<S>
where
    S: Service<Request<B>, Error: Into<Fault>>,
{
    type Response = S::Response;
    type Error = Fault;
    type Future = AdmitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rules = self.rules.load();
        if rules.is_empty() {
            drop(rules);
            return AdmitFuture::admitted(self.inner.call(request));
        }
        match checked(&rules, request) {
            Ok(request) => AdmitFuture::admitted(self.inner.call(request)),
            Err(fault) => AdmitFuture::refused(fault),
        }
    }
}

/// The request with its token taken.
fn checked<B>(rules: &RequestAuthentications, mut request: Request<B>) -> Result<Request<B>, Fault> {
    if is_preflight(&request) {
        rules.strip(request.headers_mut());
        return Ok(request);
    }
    let context = Context::of(request.extensions_mut());
    let (mut parts, body) = request.into_parts();
    admit(rules, &context, &mut parts)?;
    Ok(Request::from_parts(parts, body))
}

/// A browser asks ahead without credentials (Fetch standard, CORS-preflight request).
fn is_preflight<B>(request: &Request<B>) -> bool {
    let says = |name| request.headers().get(name).is_some_and(|value| !value.is_empty());
    *request.method() == Method::OPTIONS && says(ORIGIN) && says(ACCESS_CONTROL_REQUEST_METHOD)
}

fn admit(rules: &RequestAuthentications, context: &Context, parts: &mut Parts) -> Result<(), Fault> {
    match rules.authenticate(parts, SystemTime::now()) {
        Ok(None) => Ok(()),
        Ok(Some(token)) => Ok(context.set_token(token)?),
        Err(refused) => Err(fault(&refused)),
    }
}

fn fault(TokenRefused { name, refusal }: &TokenRefused) -> Fault {
    let fault =
        Fault::new(Reason::CredentialInvalid).with_detail(refusal.as_str()).with_policy(Arc::clone(name));
    if *refusal == TokenRefusal::Audience {
        let status = StatusCode::FORBIDDEN;
        return fault.with_status(status, GrpcStatus::of_http(status).code());
    }
    fault.with_challenge("Bearer error=\"invalid_token\"")
}

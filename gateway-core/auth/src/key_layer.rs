//! Lets in who shows a valid API key.
//!
//! - **reads** the route's [`ApiKeys`], the headers and query parameters that they name
//! - **writes** the consumer; takes the key out of the request if the settings say so
//! - **ends a request with** `CredentialMissing` or `CredentialInvalid`, both with a challenge
//! - **settings** [`ApiKeys`]; without them requests pass untouched
//! - **place** after routing and CORS (a preflight carries no key), before everything that asks who the consumer is:
//!   authorization, limits by consumer, usage

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::Request;
use http::request::Parts;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Consumer, Context, Fault, Reason};

use crate::credential::{Carried, carried, remove};
use crate::{AdmitFuture, ApiKeyDigest, ApiKeyLocation, ApiKeys};

/// Applies [`CheckApiKey`].
///
/// ```
/// use axum::{Router, body::Body, http::{HeaderName, Request, StatusCode}, routing::get};
/// use tower::{ServiceBuilder, ServiceExt};
/// use towpath_auth::{ApiKeyDigest, ApiKeyLayer, ApiKeyLocation, ApiKeys};
/// use towpath_gateway_core::{Consumer, RescueLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let keys = ApiKeys {
///     name: "shop/keys".into(),
///     locations: vec![ApiKeyLocation::Header(HeaderName::from_static("x-api-key"))],
///     keys: [(ApiKeyDigest::of("s3cret"), Consumer::new("shop/alice"))].into(),
///     hide_credential: true,
/// };
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(ServiceBuilder::new().layer(RescueLayer::new()).layer(ApiKeyLayer::with(keys)));
///
/// let request = Request::get("/").header("x-api-key", "s3cret").body(Body::empty()).unwrap();
/// assert_eq!(app.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
/// let stranger = Request::get("/").body(Body::empty()).unwrap();
/// assert_eq!(app.oneshot(stranger).await.unwrap().status(), StatusCode::UNAUTHORIZED);
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ApiKeyLayer {
    default: Option<Arc<ApiKeys>>,
}

impl ApiKeyLayer {
    /// Checks keys on routes that carry [`ApiKeys`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks these keys where the route carries none of its own, and in services without routing.
    pub fn with(keys: ApiKeys) -> Self {
        Self { default: Some(Arc::new(keys)) }
    }
}

impl<S> Layer<S> for ApiKeyLayer {
    type Service = CheckApiKey<S>;

    fn layer(&self, inner: S) -> CheckApiKey<S> {
        CheckApiKey { inner, default: self.default.clone() }
    }
}

/// Passes on requests that show a valid key.
#[derive(Debug, Clone)]
pub struct CheckApiKey<S> {
    inner: S,
    default: Option<Arc<ApiKeys>>,
}

impl<S, B> Service<Request<B>> for CheckApiKey<S>
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
        let Some(keys) = context.policy::<ApiKeys>().or(self.default.as_deref()) else {
            return AdmitFuture::admitted(self.inner.call(request));
        };
        let (mut parts, body) = request.into_parts();
        match admit(keys, &context, &mut parts) {
            Ok(()) => AdmitFuture::admitted(self.inner.call(Request::from_parts(parts, body))),
            Err(fault) => AdmitFuture::refused(fault.with_policy(Arc::clone(&keys.name))),
        }
    }
}

fn admit(keys: &ApiKeys, context: &Context, parts: &mut Parts) -> Result<(), Fault> {
    let (digest, consumer) = authenticate(keys, parts)?;
    context.set_consumer(consumer.clone())?;
    if keys.hide_credential { hide(keys, digest, parts) } else { Ok(()) }
}

/// The first location that holds anything decides.
fn authenticate<'k>(keys: &'k ApiKeys, parts: &Parts) -> Result<(ApiKeyDigest, &'k Consumer), Fault> {
    let refuse =
        |reason, detail: String| Err(Fault::new(reason).with_detail(detail).with_challenge(keys.challenge()));
    for location in &keys.locations {
        match carried(location, &parts.uri, &parts.headers) {
            Carried::Nothing => {}
            Carried::Several => {
                return refuse(Reason::CredentialInvalid, format!("several API keys in {location}"));
            }
            Carried::Key(key) => {
                let digest = ApiKeyDigest::of_bytes(&key);
                return match keys.owner(digest) {
                    Some(consumer) => Ok((digest, consumer)),
                    None => refuse(Reason::CredentialInvalid, format!("unknown API key in {location}")),
                };
            }
        }
    }
    refuse(Reason::CredentialMissing, "no API key".to_owned())
}

/// Takes the key out of every location that holds it; what else stands there is not ours to take.
fn hide(keys: &ApiKeys, digest: ApiKeyDigest, parts: &mut Parts) -> Result<(), Fault> {
    let holds =
        |location: &&ApiKeyLocation, parts: &Parts| match carried(location, &parts.uri, &parts.headers) {
            Carried::Nothing => false,
            Carried::Key(key) => ApiKeyDigest::of_bytes(&key) == digest,
            // One of them may be the key.
            Carried::Several => true,
        };
    for location in &keys.locations {
        if holds(&location, parts) {
            remove(location, parts).map_err(|error| Fault::new(Reason::Internal).with_source(error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

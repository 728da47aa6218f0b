//! The plane's HTTP service.
//!
//! - **reads** path and method, `authorization`, the identity of the connection
//! - **writes** nothing
//! - **ends a request with** 400, 401, 403, 404, 405, 413 or 500, each with a text that says what to do
//! - **settings** the authority, the key of join tokens, the configuration, the life of certificates
//! - **place** directly under the server, behind [`PlaneAcceptLayer`](crate::PlaneAcceptLayer)

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use tower_service::Service;
use towpath_ca::{Authority, TokenKey};
use towpath_gateway_core::{Request, Response, SpiffeId};

use crate::caller::identify;
use crate::refusal::Refusal;
use crate::{Configuration, distribution, signing};

/// Signs certificates and hands out configuration. Clones share everything.
#[derive(Clone)]
pub struct Plane(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) authority: Arc<Authority>,
    pub(crate) configuration: Configuration,
    pub(crate) ttl: Duration,
    tokens: TokenKey,
}

impl Plane {
    /// A plane that signs with `authority`, believes tokens minted with `tokens`, and hands out `configuration`.
    /// Certificates live as long as the authority allows.
    pub fn new(authority: Arc<Authority>, tokens: TokenKey, configuration: Configuration) -> Self {
        let ttl = authority.max_ttl();
        Self(Arc::new(Parts { authority, configuration, ttl, tokens }))
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("authority", &self.0.authority).finish_non_exhaustive()
    }
}

/// The answer of [`Plane`].
type PlaneFuture = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl Service<Request> for Plane {
    type Response = Response;
    type Error = Infallible;
    type Future = PlaneFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> PlaneFuture {
        let parts = Arc::clone(&self.0);
        Box::pin(async move { Ok(answer(&parts, request).await) })
    }
}

async fn answer(plane: &Parts, request: Request) -> Response {
    let (began, method, path) = (Instant::now(), request.method().clone(), request.uri().path().to_owned());
    let mut caller = None;
    let response = match serve(plane, request, &mut caller).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    tracing::info!(
        %method,
        %path,
        caller = caller.as_ref().map(SpiffeId::as_str),
        status = response.status().as_u16(),
        duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    response
}

async fn serve(plane: &Parts, request: Request, caller: &mut Option<SpiffeId>) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    // Strangers learn nothing, not even which paths there are.
    let id = caller.insert(identify(&head, &plane.tokens, SystemTime::now())?);
    let allow = match head.uri.path() {
        "/v1/certificates" => Method::POST,
        "/v1/config" => Method::GET,
        other => {
            let detail = format!("there is nothing at {other}; see /v1/certificates and /v1/config");
            return Err(Refusal::new(StatusCode::NOT_FOUND, detail));
        }
    };
    if head.method != allow {
        return Err(Refusal::method(if allow == Method::POST { "POST" } else { "GET" }));
    }
    let domain = plane.authority.domain();
    if id.trust_domain() != domain.as_str() {
        let detail = format!("{id} is not in the trust domain {domain} of this control plane");
        return Err(Refusal::new(StatusCode::FORBIDDEN, detail));
    }
    if allow == Method::POST {
        signing::sign(plane, id, body).await
    } else {
        distribution::hand_out(&plane.configuration, id, &head).await
    }
}

//! Turns a fault into the response that its reason asks for.
//!
//! - **reads** the fault of the inner service, the request's `content-type`
//! - **writes** the context's fault slot
//! - **ends a request with** the status of the fault's reason; for gRPC 200 with `grpc-status`
//! - **settings** none
//! - **place** around everything that may fail, inside the record, so that the log shows the fault; once more inside
//!   CORS, so that refusals carry its headers

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Body, Context, Fault, is_grpc};

/// Applies [`Rescue`].
///
/// ```
/// use axum::{Router, routing::get};
/// use towpath_gateway_core::RescueLayer;
///
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(RescueLayer::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct RescueLayer(());

impl RescueLayer {
    /// The layer has no settings.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for RescueLayer {
    type Service = Rescue<S>;

    fn layer(&self, inner: S) -> Rescue<S> {
        Rescue { inner }
    }
}

/// Answers in place of a service that failed; itself it never fails.
#[derive(Debug, Clone)]
pub struct Rescue<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Rescue<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
    R: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RescueFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        // A service that failed to become ready fails its calls too; the answer is made there.
        match self.inner.poll_ready(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let context = Context::of(request.extensions_mut());
        RescueFuture { answer: self.inner.call(request), context, grpc }
    }
}

pin_project! {
    /// The answer of [`Rescue`].
    pub struct RescueFuture<F> {
        #[pin]
        answer: F,
        context: Context,
        grpc: bool,
    }
}

impl<F, E, R> Future for RescueFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
    R: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(Ok(match ready!(this.answer.poll(cx)) {
            Ok(response) => response.map(Body::new),
            Err(error) => rescued(error.into(), *this.grpc, this.context),
        }))
    }
}

/// The answer to a fault, which is noted in the record: for layers whose own headers have to stand in it. `grpc` says that
/// the request was one of gRPC.
pub fn rescued(fault: Fault, grpc: bool, context: &Context) -> Response<Body> {
    let response = respond(&fault, grpc);
    // An inner rescue may have answered already; the first fault is the one that ended the request.
    let _ = context.set_fault(fault);
    response
}

/// The response to a fault: RFC 9457 problem details, or gRPC's trailers-only form.
fn respond(fault: &Fault, grpc: bool) -> Response<Body> {
    let mut response = if grpc { trailers_only(fault) } else { problem(fault) };
    if let Some(wait) = fault.retry_after() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(Ok(challenge)) = fault.challenge().map(HeaderValue::from_str) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

fn problem(fault: &Fault) -> Response<Body> {
    let status = fault.status();
    let title = status.canonical_reason().unwrap_or("Error");
    let text = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"reason\":\"{}\"}}\n",
        status.as_u16(),
        fault.reason().label()
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn trailers_only(fault: &Fault) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(fault.grpc_status()));
    headers.insert("grpc-message", HeaderValue::from_static(fault.reason().label()));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::Reason;

    async fn rescued(fault: Fault, content_type: &'static str) -> (Response<Body>, Context) {
        let service =
            ServiceBuilder::new().layer(RescueLayer::new()).service(service_fn(move |_: Request<Body>| {
                let fault = fault.clone();
                async move { Err::<Response<Body>, _>(fault) }
            }));
        let context = Context::new();
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        request.extensions_mut().insert(context.clone());
        (service.oneshot(request).await.unwrap(), context)
    }

    #[tokio::test]
    async fn every_reason_becomes_its_status_and_is_remembered() {
        for reason in Reason::ALL {
            let (response, context) = rescued(Fault::new(reason), "text/plain").await;
            assert_eq!(response.status(), reason.status());
            assert_eq!(context.fault().map(Fault::reason), Some(reason));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.windows(reason.label().len()).any(|w| w == reason.label().as_bytes()));
        }
    }

    #[tokio::test]
    async fn grpc_gets_200_and_a_grpc_status() {
        let (response, _) = rescued(Fault::new(Reason::Denied), "application/grpc+proto").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "7");
    }

    #[tokio::test]
    async fn a_fault_may_have_a_status_of_its_own() {
        let fault = || Fault::new(Reason::FaultInjected).with_status(StatusCode::IM_A_TEAPOT, 10);
        assert_eq!(rescued(fault(), "text/plain").await.0.status(), StatusCode::IM_A_TEAPOT);
        let (response, context) = rescued(fault(), "application/grpc").await;
        assert_eq!(
            (response.status(), &response.headers()["grpc-status"]),
            (StatusCode::OK, &"10".parse().unwrap())
        );
        assert_eq!(context.fault().map(Fault::reason), Some(Reason::FaultInjected));
    }

    #[tokio::test]
    async fn retry_after_is_rounded_up_to_seconds() {
        let fault = Fault::new(Reason::RateLimited).with_retry_after(Duration::from_millis(1200));
        let (response, _) = rescued(fault, "text/plain").await;
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[tokio::test]
    async fn a_challenge_tells_how_to_authenticate() {
        let fault = Fault::new(Reason::CredentialMissing).with_challenge("Bearer");
        let (response, _) = rescued(fault, "text/plain").await;
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    }

    #[tokio::test]
    async fn the_client_never_sees_the_detail() {
        let (response, _) =
            rescued(Fault::new(Reason::Internal).with_detail("secret path"), "text/plain").await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}

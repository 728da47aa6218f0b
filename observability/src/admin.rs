//! The endpoints by which operators and probes look at a process.
//!
//! - **reads** readiness, metrics, the live configuration
//! - **writes** nothing
//! - **ends a request with** 200, or 503 while not ready, 404 for an unknown path, 405 for a method that writes
//! - **settings** what to show
//! - **place** on a listener of its own, on a loopback address: it asks nobody who they are

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context as Task, Poll};

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tower_service::Service;
use towpath_gateway_core::{Body, Live};

use crate::{Metrics, Readiness};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const INDEX: &str = "\
/ready    200 when requests may come, else 503 and what is waited for
/live     200 while the process runs
/metrics  OpenMetrics text
/config   the configuration in force, as JSON
";

/// Answers `/ready`, `/live`, `/metrics`, `/config` and, with a list of these, `/`. Only GET and HEAD.
///
/// ```
/// use axum::Router;
/// use towpath_gateway_core::Live;
/// use towpath_observability::{Admin, Metrics, Readiness};
///
/// let admin = Admin::new(Readiness::new(), Metrics::new(), Live::default());
/// let app: Router = Router::new().fallback_service(admin);
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    readiness: Readiness,
    metrics: Metrics,
    config: Live<Value>,
}

impl Admin {
    /// Shows these. `config` is shown as it is: whoever stores it leaves secrets out.
    pub fn new(readiness: Readiness, metrics: Metrics, config: Live<Value>) -> Self {
        Self { readiness, metrics, config }
    }

    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/" => page(StatusCode::OK, TEXT, INDEX.into()),
            "/live" => page(StatusCode::OK, TEXT, "live\n".into()),
            "/ready" => self.ready(wants_json(headers)),
            "/metrics" => self.metrics(),
            "/config" => page(StatusCode::OK, JSON, format!("{:#}\n", **self.config.load())),
            _ => page(StatusCode::NOT_FOUND, TEXT, format!("no such page; there are:\n{INDEX}")),
        }
    }

    fn ready(&self, as_json: bool) -> Response<Body> {
        let reasons = self.readiness.reasons();
        let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if as_json {
            let ready = reasons.is_empty();
            let waiting: Map<_, _> =
                reasons.into_iter().map(|(name, why)| (name, Value::from(why))).collect();
            return page(status, JSON, format!("{:#}\n", json!({ "ready": ready, "waiting": waiting })));
        }
        if reasons.is_empty() {
            return page(status, TEXT, "ready\n".into());
        }
        let lines: Vec<_> = reasons.iter().map(|(name, why)| format!("{name}: {why}\n")).collect();
        page(status, TEXT, lines.concat())
    }

    fn metrics(&self) -> Response<Body> {
        match self.metrics.encode() {
            Ok(text) => page(StatusCode::OK, OPENMETRICS, text),
            Err(error) => {
                let text = format!("a collector failed: {error}\n");
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
            }
        }
    }
}

impl<B> Service<Request<B>> for Admin {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = self.answer(request.method(), request.uri().path(), request.headers());
        if request.method() == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        ready(Ok(response))
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(JSON)))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Fixture {
        readiness: Readiness,
        admin: Admin,
    }

    fn fixture() -> Fixture {
        let readiness = Readiness::new();
        let admin = Admin::new(readiness.clone(), Metrics::new(), Live::new(json!({"listeners": [1]})));
        Fixture { readiness, admin }
    }

    async fn ask(admin: &Admin, method: Method, path: &str, accept: &str) -> (u16, HeaderMap, String) {
        let request = Request::builder().method(method).uri(path).header(ACCEPT, accept).body(()).unwrap();
        let response = admin.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_says_what_is_waited_for() {
        let Fixture { readiness, admin } = fixture();
        readiness.waiting("identity", "connection refused; next try in 2 s");
        readiness.waiting("config", "nothing received");
        let (status, _, text) = ask(&admin, Method::GET, "/ready", "*/*").await;
        assert_eq!(status, 503);
        assert_eq!(text, "config: nothing received\nidentity: connection refused; next try in 2 s\n");
        readiness.done("identity");
        readiness.done("config");
        let (status, _, text) = ask(&admin, Method::GET, "/ready?verbose", "*/*").await;
        assert_eq!((status, text.as_str()), (200, "ready\n"));
        readiness.draining();
        let (status, headers, text) = ask(&admin, Method::GET, "/ready", "application/json").await;
        assert_eq!((status, &headers[CONTENT_TYPE]), (503, &HeaderValue::from_static(JSON)));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ready"], false);
        assert!(value["waiting"]["draining"].is_string());
    }

    #[tokio::test]
    async fn a_process_that_waits_or_drains_is_still_live() {
        let Fixture { readiness, admin } = fixture();
        readiness.waiting("identity", "not yet");
        readiness.draining();
        assert_eq!(ask(&admin, Method::GET, "/live", "*/*").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_and_config_have_their_types() {
        let Fixture { admin, .. } = fixture();
        let (status, headers, text) = ask(&admin, Method::GET, "/metrics", "*/*").await;
        assert_eq!((status, &headers[CONTENT_TYPE]), (200, &HeaderValue::from_static(OPENMETRICS)));
        assert!(text.ends_with("# EOF\n"));
        let (status, _, text) = ask(&admin, Method::GET, "/config", "*/*").await;
        assert_eq!((status, text.as_str()), (200, "{\n  \"listeners\": [\n    1\n  ]\n}\n"));
    }

    #[tokio::test]
    async fn only_known_pages_and_methods_that_read() {
        let Fixture { admin, .. } = fixture();
        assert_eq!(ask(&admin, Method::GET, "/", "*/*").await.0, 200);
        assert_eq!(ask(&admin, Method::GET, "/nothing", "*/*").await.0, 404);
        let (status, headers, _) = ask(&admin, Method::POST, "/config", "*/*").await;
        assert_eq!((status, &headers[ALLOW]), (405, &HeaderValue::from_static("GET, HEAD")));
    }

    #[tokio::test]
    async fn head_has_the_length_of_get_and_no_body() {
        let Fixture { admin, .. } = fixture();
        let (status, headers, text) = ask(&admin, Method::HEAD, "/live", "*/*").await;
        assert_eq!((status, text.as_str(), &headers[CONTENT_LENGTH]), (200, "", &HeaderValue::from(5)));
    }
}

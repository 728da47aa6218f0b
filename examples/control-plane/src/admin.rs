//! The admin endpoints: `/live` says that the process runs, `/ready` that it takes requests.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context as Task, Poll};

use http::StatusCode;
use tower_service::Service;
use towpath_gateway_core::{Body, Request, Response};
use towpath_server::Drain;

/// Answers probes.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    drain: Drain,
}

impl Admin {
    /// Ready until `drain` is signalled.
    pub(crate) fn new(drain: Drain) -> Self {
        Self { drain }
    }

    fn answer(&self, path: &str) -> (StatusCode, &'static str) {
        match path {
            "/live" => (StatusCode::OK, "live\n"),
            "/ready" if self.drain.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
            "/ready" => (StatusCode::OK, "ready\n"),
            _ => (StatusCode::NOT_FOUND, "see /live and /ready\n"),
        }
    }
}

impl Service<Request> for Admin {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (status, text) = self.answer(request.uri().path());
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_until_it_drains() {
        let drain = Drain::default();
        let admin = Admin::new(drain.clone());
        assert_eq!(admin.answer("/ready").0, StatusCode::OK);
        drain.signal();
        assert_eq!(admin.answer("/ready").0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(admin.answer("/live").0, StatusCode::OK);
        assert_eq!(admin.answer("/").0, StatusCode::NOT_FOUND);
    }
}

//! Answers that a rule gives in place of a backend.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use towpath_gateway_core::{Body, GrpcStatus, Policy};

/// A fixed answer (Istio, `HTTPDirectResponse`). gRPC requests get the gRPC status that is nearest, in the trailers-only
/// form, with the body as `grpc-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Its status, 200 to 599.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// What the body is; needless without one.
    pub content_type: Option<HeaderValue>,
}

impl Policy for DirectResponse {}

impl DirectResponse {
    pub(crate) fn response(&self, grpc: bool) -> Response<Body> {
        if grpc {
            return self.trailers_only();
        }
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        if let Some(kind) = &self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        response
    }

    fn trailers_only(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", GrpcStatus::of_http(self.status).code().into());
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&self.body)) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// `grpc-message` holds printable ASCII; all else is percent-encoded (gRPC over HTTP/2, Responses).
fn percent_encoded(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => _ = write!(encoded, "%{byte:02X}"),
            byte => encoded.push(char::from(*byte)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_printable_ascii() {
        assert_eq!(percent_encoded("50% off\né".as_bytes()), "50%25 off%0A%C3%A9");
    }
}

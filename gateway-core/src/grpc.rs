//! gRPC's status codes beside HTTP's.

use std::str::FromStr;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

/// A gRPC status code by its name in the gRPC specification.
///
/// ```
/// use towpath_gateway_core::GrpcStatus;
///
/// let status: GrpcStatus = "UNAVAILABLE".parse()?;
/// assert_eq!((status.code(), status.http().as_u16()), (14, 503));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus(u16);

/// Name and nearest HTTP status of each code, in their order. The HTTP statuses are those of
/// `google.rpc.Code`, as Envoy has them.
const CODES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

impl GrpcStatus {
    /// The name of every code, in the order of their numbers.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CODES.iter().map(|(name, _)| *name)
    }

    /// The code of an HTTP response that is none of gRPC (gRPC, `http-grpc-status-mapping`).
    pub fn of_http(status: StatusCode) -> Self {
        Self(match status.as_u16() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        })
    }

    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// The HTTP status for callers that speak no gRPC.
    pub fn http(self) -> StatusCode {
        let status = CODES.get(usize::from(self.0)).and_then(|(_, http)| StatusCode::from_u16(*http).ok());
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl FromStr for GrpcStatus {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let code = CODES.iter().position(|(known, _)| *known == name);
        code.and_then(|code| u16::try_from(code).ok())
            .map(Self)
            .ok_or_else(|| format!("`{name}` is not the name of a gRPC status, such as UNAVAILABLE"))
    }
}

/// Whether a request with these headers is one of gRPC (`content-type: application/grpc…`).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_specifications() {
        for (name, code, http) in [("OK", 0, 200), ("CANCELLED", 1, 499), ("UNAUTHENTICATED", 16, 401)] {
            let status: GrpcStatus = name.parse().unwrap();
            assert_eq!((status.code(), status.http().as_u16()), (code, http), "{name}");
        }
        for name in ["14", "unavailable", "", "CANCELED"] {
            assert!(name.parse::<GrpcStatus>().is_err(), "{name}");
        }
        assert!(GrpcStatus::names().all(|name| name.parse::<GrpcStatus>().is_ok()));
    }

    #[test]
    fn http_statuses_have_a_code() {
        for (http, code) in
            [(200, 2), (400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (500, 2), (503, 14)]
        {
            assert_eq!(GrpcStatus::of_http(StatusCode::from_u16(http).unwrap()).code(), code, "{http}");
        }
    }
}

//! External authorization: a service that is asked about each request, or about a connection that carries none. What is sent
//! to it and what its answer means is decided here without a clock and without I/O; [`ask_external`] and
//! [`ask_external_connection`] do the asking, and know nothing of routes.

mod answer;
mod ask;
mod grpc;
mod grpc_answer;
mod http;
mod names;
mod proto;
mod query;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, StatusCode};
use bytes::Bytes;
use towpath_gateway_core::{Backend, Fault, GrpcStatus, Policy, Reason};

pub use self::answer::{ExternalChanges, ExternalVerdict};
pub use self::ask::{ask_external, ask_external_connection};
pub use self::names::HeaderNames;
use crate::Pattern;

/// A service that decides about requests (Gateway API, `HTTPExternalAuthFilter`; Envoy, `ext_authz`). Unless it says
/// otherwise it fails closed: a request about which it could not be asked is refused.
#[derive(Debug, Clone)]
pub struct ExternalAuth {
    /// Who asked for it, as refusals name it in the log: `namespace/name`.
    pub name: Arc<str>,
    /// Where the service is.
    pub backend: Arc<Backend>,
    /// How it is spoken to.
    pub protocol: ExternalAuthProtocol,
    /// Bytes of the request's body that it may see. 0: the body is not sent.
    pub max_body: usize,
    /// Of a longer body it sees the beginning, and is told so by `x-envoy-auth-partial-body`; else such a body is refused
    /// with 413.
    pub partial_body: bool,
    /// By gRPC, a body is sent as bytes even if it is text.
    pub raw_body: bool,
    /// How long its answer may take.
    pub timeout: Duration,
    /// What requests are answered with if it could not be asked.
    pub status_on_error: StatusCode,
    /// Let pass what it could not be asked about.
    pub fail_open: bool,
}

impl Policy for ExternalAuth {}

/// How an authorization service is spoken to. Of the client's headers it sees what is listed, never those of one hop.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one for each policy, and behind an `Arc`
pub enum ExternalAuthProtocol {
    /// A request like the client's: 200 allows, a 5xx is a failure of the service, and any other answer is the client's.
    Http(ExternalHttp),
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// Headers that are sent; empty: all.
        allowed_headers: Vec<HeaderName>,
    },
}

/// What a service gets that is sent requests like the client's, and what is taken from its answers.
#[derive(Debug, Clone)]
pub struct ExternalHttp {
    /// Stands before the request's path.
    pub path_prefix: Arc<str>,
    /// Headers that are sent besides `Host`, `Authorization` and `Content-Length`.
    pub allowed_headers: Vec<Pattern>,
    /// Headers that are sent in place of the client's.
    pub added_headers: HeaderMap,
    /// Headers of a 200 that go on to the backend. What a client sends under a name that is listed, or that a prefix or
    /// suffix matches, never goes on, but for `Authorization`, `Cookie` and [`checked_later`](Self::checked_later).
    pub to_backend: HeaderNames,
    /// Headers in which checks behind this one look for credentials.
    pub checked_later: Vec<HeaderName>,
    /// Headers of a 200 that are added to the backend's answer.
    pub to_client: HeaderNames,
    /// Headers of a refusal that the client gets; always `WWW-Authenticate` and `Location`.
    pub of_refusal: HeaderNames,
}

impl Default for ExternalHttp {
    /// Nothing goes either way but what always does, and refusals whole.
    fn default() -> Self {
        Self {
            path_prefix: "".into(),
            allowed_headers: Vec::new(),
            added_headers: HeaderMap::new(),
            to_backend: HeaderNames::NONE,
            checked_later: Vec::new(),
            to_client: HeaderNames::NONE,
            of_refusal: HeaderNames::All,
        }
    }
}

impl ExternalHttp {
    /// Whether a header may stand in [`added_headers`](Self::added_headers): it is not of one hop or one message.
    pub fn may_add(name: &HeaderName) -> bool {
        !is_framing(name)
    }
}

/// What a service sees of a body.
#[derive(Debug, Clone, Default)]
pub struct ExternalBody {
    /// Its beginning, or all of it.
    pub bytes: Bytes,
    /// Whether there is more, or may be: its end was not seen.
    pub partial: bool,
}

impl ExternalAuth {
    /// The time that an answer may take, if nothing else is said.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// A service behind `backend` that never sees bodies, has [`ExternalAuth::TIMEOUT`] to answer, and without which
    /// requests end as 403 (the default of Envoy's `status_on_error`).
    pub fn new(name: impl Into<Arc<str>>, backend: Arc<Backend>, protocol: ExternalAuthProtocol) -> Self {
        let (timeout, status_on_error) = (Self::TIMEOUT, StatusCode::FORBIDDEN);
        Self {
            name: name.into(),
            backend,
            protocol,
            max_body: 0,
            partial_body: false,
            raw_body: false,
            timeout,
            status_on_error,
            fail_open: false,
        }
    }

    /// The end of a request about which the service could not be asked.
    pub(crate) fn failed(&self, detail: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        let grpc = GrpcStatus::of_http(self.status_on_error).code();
        Fault::new(Reason::ExternalAuthFailed)
            .with_status(self.status_on_error, grpc)
            .with_policy(Arc::clone(&self.name))
            .with_detail(detail)
    }
}

/// Says whether there is more of a body than is sent (Envoy). It is never the client's.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// Whether a header concerns one hop or the framing of one message: such a header neither goes to an authorization service
/// nor is taken from its answer.
fn is_framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "content-length"
            | "te"
            | "trailer"
            | "upgrade"
            | "expect"
    )
}

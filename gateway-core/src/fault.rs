//! Why a request ended early, who is to blame, and whether it may be tried again.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// The closed list of reasons. A new one does not compile until its status, gRPC code, label, flag, blame and replay
/// rule are given in `Reason::facts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request is not valid HTTP, or not valid for a proxy (RFC 9112, RFC 9113).
    BadRequest,
    /// The request head passes the limit (RFC 6585 section 5).
    HeadTooLarge,
    /// The request target passes the limit (RFC 9110 section 15.5.15).
    TargetTooLong,
    /// The request body passes the limit (RFC 9110 section 15.5.14).
    BodyTooLarge,
    /// The client did not send its request in time (RFC 9110 section 15.5.9).
    ClientTimeout,
    /// The client went away before it was answered.
    ClientGone,
    /// No route takes the request.
    NoRoute,
    /// The connection is not for the authority that the request names (RFC 9110 section 15.5.20).
    Misdirected,
    /// A credential is needed and none was sent.
    CredentialMissing,
    /// A credential was sent and is not valid.
    CredentialInvalid,
    /// A policy refuses the request.
    Denied,
    /// An external authorization service refuses the request.
    ExternalDenied,
    /// An external authorization service could not be asked.
    ExternalAuthFailed,
    /// The caller is over its limit (RFC 6585 section 4).
    RateLimited,
    /// A rule injects this failure, to try out how callers take it.
    FaultInjected,
    /// The route names a backend or a filter that could not be resolved.
    Unresolved,
    /// The backend has no endpoint to send to.
    NoEndpoint,
    /// No connection to the endpoint could be made.
    ConnectFailed,
    /// No connection to the endpoint could be made in time.
    ConnectTimeout,
    /// The endpoint did not prove the identity that was expected of it.
    PeerIdentity,
    /// The endpoint closed or reset the connection before it answered.
    UpstreamReset,
    /// The endpoint's answer is not valid HTTP.
    UpstreamInvalid,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// A limit of this proxy is reached (connections, pending requests).
    Overloaded,
    /// This proxy is shutting down.
    Draining,
    /// A fault of this proxy.
    Internal,
}

/// Who is to blame for a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The side that sent the request.
    Downstream,
    /// This proxy or its configuration.
    Proxy,
    /// The side that the request was sent to.
    Upstream,
}

/// Whether a request may be sent again after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replay {
    /// It certainly was not processed: any method may be sent again.
    Always,
    /// It may have been processed: only idempotent methods (RFC 9110 section 9.2.2).
    IfIdempotent,
    /// Another try cannot help, or must not happen.
    Never,
}

/// gRPC status codes that faults map to (numbers as in the gRPC specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the specification's
pub enum GrpcCode {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

struct Facts(StatusCode, GrpcCode, &'static str, &'static str, Blame, Replay);

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 26] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::BodyTooLarge,
        Self::ClientTimeout,
        Self::ClientGone,
        Self::NoRoute,
        Self::Misdirected,
        Self::CredentialMissing,
        Self::CredentialInvalid,
        Self::Denied,
        Self::ExternalDenied,
        Self::ExternalAuthFailed,
        Self::RateLimited,
        Self::FaultInjected,
        Self::Unresolved,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::PeerIdentity,
        Self::UpstreamReset,
        Self::UpstreamInvalid,
        Self::UpstreamTimeout,
        Self::Overloaded,
        Self::Draining,
        Self::Internal,
    ];

    // Flags follow Envoy's response flags where it has one, so that log readers feel at home.
    #[rustfmt::skip]
    const fn facts(self) -> Facts {
        use Blame::{Downstream, Proxy, Upstream};
        use GrpcCode as G;
        use Replay::{Always, IfIdempotent, Never};
        use StatusCode as S;
        match self {
            Self::BadRequest => Facts(S::BAD_REQUEST, G::Internal, "bad_request", "DPE", Downstream, Never),
            Self::HeadTooLarge => Facts(S::REQUEST_HEADER_FIELDS_TOO_LARGE, G::ResourceExhausted, "head_too_large", "DPE", Downstream, Never),
            Self::TargetTooLong => Facts(S::URI_TOO_LONG, G::ResourceExhausted, "target_too_long", "DPE", Downstream, Never),
            Self::BodyTooLarge => Facts(S::PAYLOAD_TOO_LARGE, G::ResourceExhausted, "body_too_large", "DPE", Downstream, Never),
            Self::ClientTimeout => Facts(S::REQUEST_TIMEOUT, G::DeadlineExceeded, "client_timeout", "DT", Downstream, Never),
            Self::ClientGone => Facts(S::BAD_REQUEST, G::Cancelled, "client_gone", "DC", Downstream, Never),
            Self::NoRoute => Facts(S::NOT_FOUND, G::Unimplemented, "no_route", "NR", Downstream, Never),
            Self::Misdirected => Facts(S::MISDIRECTED_REQUEST, G::Unimplemented, "misdirected", "NR", Downstream, Never),
            Self::CredentialMissing => Facts(S::UNAUTHORIZED, G::Unauthenticated, "credential_missing", "UA", Downstream, Never),
            Self::CredentialInvalid => Facts(S::UNAUTHORIZED, G::Unauthenticated, "credential_invalid", "UA", Downstream, Never),
            Self::Denied => Facts(S::FORBIDDEN, G::PermissionDenied, "denied", "RBAC", Downstream, Never),
            Self::ExternalDenied => Facts(S::FORBIDDEN, G::PermissionDenied, "external_denied", "UAEX", Downstream, Never),
            Self::ExternalAuthFailed => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "external_auth_failed", "UAEX", Upstream, Never),
            Self::RateLimited => Facts(S::TOO_MANY_REQUESTS, G::Unavailable, "rate_limited", "RL", Downstream, Never),
            Self::FaultInjected => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "fault_injected", "FI", Proxy, Never),
            Self::Unresolved => Facts(S::INTERNAL_SERVER_ERROR, G::Unavailable, "unresolved", "NC", Proxy, Never),
            Self::NoEndpoint => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "no_endpoint", "UH", Upstream, Never),
            Self::ConnectFailed => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "connect_failed", "UF", Upstream, Always),
            Self::ConnectTimeout => Facts(S::GATEWAY_TIMEOUT, G::Unavailable, "connect_timeout", "UF", Upstream, Always),
            Self::PeerIdentity => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "peer_identity", "UF", Upstream, Always),
            Self::UpstreamReset => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "upstream_reset", "UC", Upstream, IfIdempotent),
            Self::UpstreamInvalid => Facts(S::BAD_GATEWAY, G::Internal, "upstream_invalid", "UPE", Upstream, Never),
            Self::UpstreamTimeout => Facts(S::GATEWAY_TIMEOUT, G::DeadlineExceeded, "upstream_timeout", "UT", Upstream, IfIdempotent),
            Self::Overloaded => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "overloaded", "UO", Proxy, Never),
            Self::Draining => Facts(S::SERVICE_UNAVAILABLE, G::Unavailable, "draining", "DR", Proxy, Never),
            Self::Internal => Facts(S::INTERNAL_SERVER_ERROR, G::Internal, "internal", "IE", Proxy, Never),
        }
    }

    /// HTTP status of the response.
    pub const fn status(self) -> StatusCode {
        self.facts().0
    }

    /// `grpc-status` of the response to a gRPC request.
    pub const fn grpc(self) -> GrpcCode {
        self.facts().1
    }

    /// Value of the `reason` label in metrics and of `reason` in the log.
    pub const fn label(self) -> &'static str {
        self.facts().2
    }

    /// Short flag of the access log.
    pub const fn flag(self) -> &'static str {
        self.facts().3
    }

    /// Who is to blame.
    pub const fn blame(self) -> Blame {
        self.facts().4
    }

    /// Whether the request may be sent again, unless the fault itself knows better.
    pub const fn replay(self) -> Replay {
        self.facts().5
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The end of a request that was not answered by its destination. It travels as the error of every service until
/// [`RescueLayer`](crate::RescueLayer) makes it a response.
#[derive(Debug, Clone)]
pub struct Fault {
    reason: Reason,
    replay: Replay,
    answer: Option<(StatusCode, u16)>,
    detail: Cow<'static, str>,
    policy: Option<Arc<str>>,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault with nothing but its reason.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            replay: reason.replay(),
            answer: None,
            detail: Cow::Borrowed(""),
            policy: None,
            retry_after: None,
            challenge: None,
            source: None,
        }
    }

    /// Adds a sentence for the log. Clients never see it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names the policy (`namespace/name`) that refused.
    #[must_use]
    pub fn with_policy(mut self, policy: Arc<str>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Tells the client when to come back (`Retry-After`, RFC 9110 section 10.2.3).
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Tells the client how to prove who it is (`WWW-Authenticate`, RFC 9110 section 11.6.1): visible ASCII, such as
    /// `Bearer`. A 401 has to carry one.
    #[must_use]
    pub fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Keeps the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Says what is known about processing in this very case, in place of the reason's general rule.
    #[must_use]
    pub fn with_replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// Answers with this HTTP status, and with this `grpc-status` where the request is one of gRPC, in place of the
    /// reason's.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode, grpc: u16) -> Self {
        self.answer = Some((status, grpc));
        self
    }

    /// HTTP status of the response: that of the reason, unless the fault has one of its own.
    pub fn status(&self) -> StatusCode {
        self.answer.map_or_else(|| self.reason.status(), |(status, _)| status)
    }

    /// `grpc-status` of the response to a gRPC request.
    pub fn grpc_status(&self) -> u16 {
        self.answer.map_or_else(|| self.reason.grpc() as u16, |(_, grpc)| grpc)
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether the request may be sent again.
    pub fn replay(&self) -> Replay {
        self.replay
    }

    /// The sentence for the log.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The policy that refused.
    pub fn policy(&self) -> Option<&Arc<str>> {
        self.policy.as_ref()
    }

    /// When to come back.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// How to prove who one is.
    pub fn challenge(&self) -> Option<&'static str> {
        self.challenge
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.label())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(policy) = &self.policy {
            write!(f, " (policy {policy})")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Infallible> for Fault {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_list_of_all_reasons_is_whole_and_labels_are_unique() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert_eq!(Reason::ALL.last().map(|r| *r as usize), Some(Reason::ALL.len() - 1));
    }

    #[test]
    fn statuses_fit_the_blame() {
        for reason in Reason::ALL {
            let client = reason.status().is_client_error();
            assert_eq!(client, reason.blame() == Blame::Downstream, "{reason}");
        }
    }

    #[test]
    fn nothing_that_reached_an_endpoint_is_replayed_blindly() {
        for reason in [Reason::UpstreamReset, Reason::UpstreamTimeout, Reason::UpstreamInvalid] {
            assert_ne!(reason.replay(), Replay::Always, "{reason}");
        }
    }

    #[test]
    fn a_fault_says_all_it_knows_in_the_log() {
        let fault =
            Fault::new(Reason::Denied).with_detail("POST /admin").with_policy("shop/deny-admin".into());
        assert_eq!(fault.to_string(), "denied: POST /admin (policy shop/deny-admin)");
    }
}

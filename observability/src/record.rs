//! What is logged of one request.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::Version;
use serde::Serialize;
use towpath_gateway_core::{Attempt, Connection, Context, Fault, Outcome, Reason, SpanId, TraceId};

use crate::recorder::Origin;
use crate::wire;

/// One request from its arrival to the end of its response. It serializes to one JSON object; what is not known is
/// left out.
#[derive(Debug, Clone, Serialize)]
pub struct Record<'a> {
    /// When the request arrived.
    #[serde(serialize_with = "wire::rfc3339")]
    pub time: SystemTime,
    /// What the process is: `gateway`, `ingress`, `sidecar`.
    pub role: &'a str,
    /// `namespace/name` of the workload that the process belongs to.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub workload: &'a str,
    /// The process's cluster.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cluster: &'a str,
    /// The process's number.
    pub pid: u32,
    /// Listener that the request came in on.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub listener: &'a str,
    /// The trace.
    #[serde(serialize_with = "wire::text", skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// The span of this pass.
    #[serde(serialize_with = "wire::text", skip_serializing_if = "Option::is_none")]
    pub span_id: Option<SpanId>,
    /// The span of the caller.
    #[serde(serialize_with = "wire::text", skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SpanId>,
    /// Request method.
    pub method: &'a str,
    /// Authority of the target, or else the `host` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Cow<'a, str>>,
    /// Path as it came in, without the query.
    pub path: &'a str,
    /// HTTP version of the request.
    pub protocol: &'static str,
    /// Status of the response; `None` if the client went away before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// From arrival to the end of the response.
    #[serde(rename = "duration_us", serialize_with = "wire::micros")]
    pub duration: Duration,
    /// Bytes of the request body that were read.
    pub bytes_in: u64,
    /// Bytes of the response body that were handed to the server.
    pub bytes_out: u64,
    /// Why the request ended early.
    #[serde(serialize_with = "wire::label", skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The short form of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<&'static str>,
    /// What is known beyond the reason, with the errors underneath.
    #[serde(serialize_with = "wire::text", skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail<'a>>,
    /// `namespace/name` of the policy that refused, or else of the one that let the request pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a str>,
    /// Who used the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<&'a str>,
    /// The route that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The rule in the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'a str>,
    /// Where the request was to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'a str>,
    /// Whether the response body came to its proper end.
    pub complete: bool,
    /// The connection that the request came in on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downstream: Option<DownstreamRecord<'a>>,
    /// Every try, oldest first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub attempts: Vec<AttemptRecord<'a>>,
}

/// The connection that a request came in on.
#[derive(Debug, Clone, Serialize)]
pub struct DownstreamRecord<'a> {
    /// Address of the other side.
    pub peer: SocketAddr,
    /// Address of our side.
    pub local: SocketAddr,
    /// TLS version; `None` on plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    /// Application protocol that TLS agreed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<&'a str>,
    /// Server name that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
    /// SPIFFE id that the other side proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<&'a str>,
}

/// One try at one endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRecord<'a> {
    /// Address of the endpoint.
    pub endpoint: SocketAddr,
    /// Workload behind it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub workload: &'a str,
    /// Cluster of that workload.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub cluster: &'a str,
    /// Our address of the connection that carried the try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// TLS version; `None` on plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    /// SPIFFE id that the endpoint proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<&'a str>,
    /// Client span of the try.
    #[serde(serialize_with = "wire::text", skip_serializing_if = "Option::is_none")]
    pub span_id: Option<SpanId>,
    /// Status that the endpoint answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it did not answer.
    #[serde(serialize_with = "wire::label", skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Time to the response head or to the fault.
    #[serde(
        rename = "duration_us",
        serialize_with = "wire::optional_micros",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration: Option<Duration>,
}

/// What the record takes from the request's head.
pub(crate) struct Head<'a> {
    pub(crate) time: SystemTime,
    pub(crate) method: &'a str,
    pub(crate) host: Option<Cow<'a, str>>,
    pub(crate) path: &'a str,
    pub(crate) version: Version,
}

/// How the request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) status: Option<u16>,
    pub(crate) duration: Duration,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) complete: bool,
}

impl<'a> Record<'a> {
    /// The record of a request. `fault` is why it ended early; `attempts` are those of `context`.
    pub(crate) fn new(
        origin: &'a Origin,
        head: Head<'a>,
        end: End,
        context: &'a Context,
        fault: Option<&'a Fault>,
        attempts: &'a [Attempt],
    ) -> Self {
        let trace = context.trace();
        let reason = fault.map(Fault::reason);
        let decided = || context.decision().and_then(|decision| decision.policy.as_deref());
        Self {
            time: head.time,
            role: &origin.facts.role,
            workload: &origin.facts.workload,
            cluster: &origin.facts.cluster,
            pid: origin.pid,
            listener: &origin.listener,
            trace_id: trace.map(|trace| trace.trace_id),
            span_id: trace.map(|trace| trace.span_id),
            parent_id: trace.and_then(|trace| trace.parent),
            method: head.method,
            host: head.host,
            path: head.path,
            protocol: protocol(head.version),
            status: end.status,
            duration: end.duration,
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            reason,
            flag: reason.map(Reason::flag),
            detail: fault.and_then(Detail::of),
            policy: fault.and_then(|fault| fault.policy().map(|name| &**name)).or_else(decided),
            consumer: context.consumer().map(|consumer| &*consumer.name),
            route: context.route().map(|name| &*name.route),
            rule: context.route().map(|name| &*name.rule),
            backend: context.backend().map(|backend| &*backend.name),
            complete: end.complete,
            downstream: context.connection().map(|connection| DownstreamRecord::new(connection)),
            attempts: attempts.iter().map(AttemptRecord::new).collect(),
        }
    }
}

impl<'a> DownstreamRecord<'a> {
    fn new(connection: &'a Connection) -> Self {
        let tls = connection.tls.as_ref();
        Self {
            peer: connection.peer,
            local: connection.local,
            tls: tls.map(|tls| tls.version.as_str()),
            alpn: tls.and_then(|tls| tls.alpn.as_deref()),
            server_name: tls.and_then(|tls| tls.server_name.as_deref()),
            identity: connection.identity().map(towpath_gateway_core::SpiffeId::as_str),
        }
    }
}

impl<'a> AttemptRecord<'a> {
    fn new(attempt: &'a Attempt) -> Self {
        let endpoint = attempt.endpoint();
        let connection = attempt.connection();
        let (status, reason) = match attempt.outcome() {
            Some((Outcome::Status(status), _)) => (Some(status), None),
            Some((Outcome::Fault(reason), _)) => (None, Some(reason)),
            None => (None, None),
        };
        Self {
            endpoint: endpoint.address,
            workload: &endpoint.workload.name,
            cluster: &endpoint.workload.cluster,
            local: connection.map(|connection| connection.local),
            tls: connection.and_then(|connection| Some(connection.tls.as_ref()?.version.as_str())),
            identity: connection.and_then(|connection| Some(connection.identity()?.as_str())),
            span_id: attempt.span(),
            status,
            reason,
            duration: attempt.outcome().map(|(_, took)| took),
        }
    }
}

/// A fault's sentence and the errors underneath, joined by colons.
#[derive(Debug, Clone, Copy)]
pub struct Detail<'a>(&'a Fault);

impl<'a> Detail<'a> {
    fn of(fault: &'a Fault) -> Option<Self> {
        (!fault.detail().is_empty() || fault.source().is_some()).then_some(Self(fault))
    }
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.detail().to_owned();
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Some errors show the one underneath themselves.
            if !said.ends_with(&text) {
                let colon = if said.is_empty() { "" } else { ": " };
                said = said + colon + &text;
            }
            source = error.source();
        }
        f.write_str(&said)
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
pub(crate) mod tests;

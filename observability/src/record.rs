//! What is logged of one request.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::Version;
use towpath_gateway_core::{Attempt, Connection, Context, DryRun, Fault, Outcome, Reason, SpanId, TraceId};

use crate::json::Object;
use crate::recorder::Origin;
use crate::time::Rfc3339;

/// One request from its arrival to the end of its response. [`Record::write_json`] makes one JSON object of it; what is
/// not known is left out.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When the request arrived.
    pub time: SystemTime,
    /// What the process is: `gateway`, `ingress`, `sidecar`.
    pub role: &'a str,
    /// `namespace/name` of the workload that the process belongs to.
    pub workload: &'a str,
    /// The process's cluster.
    pub cluster: &'a str,
    /// The process's number.
    pub pid: u32,
    /// Listener that the request came in on.
    pub listener: &'a str,
    /// The trace.
    pub trace_id: Option<TraceId>,
    /// The span of this pass.
    pub span_id: Option<SpanId>,
    /// The span of the caller.
    pub parent_id: Option<SpanId>,
    /// Request method.
    pub method: &'a str,
    /// Authority of the target, or else the `host` header.
    pub host: Option<Cow<'a, str>>,
    /// Path as it came in, without the query.
    pub path: &'a str,
    /// HTTP version of the request.
    pub protocol: &'static str,
    /// Status of the response; `None` if the client went away before there was one.
    pub status: Option<u16>,
    /// From arrival to the end of the response.
    pub duration: Duration,
    /// How long the request was held back by an injected delay.
    pub injected_delay: Option<Duration>,
    /// Bytes of the request body that were read.
    pub bytes_in: u64,
    /// Bytes of the response body that were handed to the server.
    pub bytes_out: u64,
    /// Why the request ended early.
    pub reason: Option<Reason>,
    /// The short form of the reason.
    pub flag: Option<&'static str>,
    /// What is known beyond the reason, with the errors underneath.
    pub detail: Option<Detail<'a>>,
    /// `namespace/name` of the policy that refused, or else of the one that let the request pass.
    pub policy: Option<&'a str>,
    /// The AUDIT policy that matches.
    pub audit: Option<&'a str>,
    /// What policies in dry-run would have decided.
    pub dry_run: Option<&'a DryRun>,
    /// Who used the API.
    pub consumer: Option<&'a str>,
    /// The route that matched.
    pub route: Option<&'a str>,
    /// The rule in the route.
    pub rule: Option<&'a str>,
    /// Where the request was to go.
    pub backend: Option<&'a str>,
    /// Whether the response body came to its proper end.
    pub complete: bool,
    /// The connection that the request came in on.
    pub downstream: Option<DownstreamRecord<'a>>,
    /// Every try, oldest first.
    pub attempts: Vec<AttemptRecord<'a>>,
}

/// The connection that a request came in on.
#[derive(Debug, Clone)]
pub struct DownstreamRecord<'a> {
    /// Address of the other side.
    pub peer: SocketAddr,
    /// Address of our side.
    pub local: SocketAddr,
    /// TLS version; `None` on plaintext.
    pub tls: Option<&'static str>,
    /// Application protocol that TLS agreed on.
    pub alpn: Option<&'a str>,
    /// Server name that the client asked for.
    pub server_name: Option<&'a str>,
    /// SPIFFE id that the other side proved.
    pub identity: Option<&'a str>,
}

/// One try at one endpoint.
#[derive(Debug, Clone)]
pub struct AttemptRecord<'a> {
    /// Address of the endpoint.
    pub endpoint: SocketAddr,
    /// Workload behind it.
    pub workload: &'a str,
    /// Cluster of that workload.
    pub cluster: &'a str,
    /// Our address of the connection that carried the try.
    pub local: Option<SocketAddr>,
    /// TLS version; `None` on plaintext.
    pub tls: Option<&'static str>,
    /// SPIFFE id that the endpoint proved.
    pub identity: Option<&'a str>,
    /// Client span of the try.
    pub span_id: Option<SpanId>,
    /// Status that the endpoint answered with.
    pub status: Option<u16>,
    /// Why it did not answer.
    pub reason: Option<Reason>,
    /// Time to the response head or to the fault.
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
            injected_delay: context.held().copied(),
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            reason,
            flag: reason.map(Reason::flag),
            detail: fault.and_then(Detail::of),
            policy: fault.and_then(|fault| fault.policy().map(|name| &**name)).or_else(decided),
            audit: context.decision().and_then(|decision| decision.audit.as_deref()),
            dry_run: context.decision().and_then(|decision| decision.dry_run.as_ref()),
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

impl Record<'_> {
    /// Appends the record as one JSON object, without a line's end.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        Object::write(out, |object| {
            object.plain("time", Rfc3339(self.time));
            object.text("role", self.role);
            object.filled("workload", self.workload);
            object.filled("cluster", self.cluster);
            object.number("pid", u64::from(self.pid));
            object.filled("listener", self.listener);
            self.trace(object);
            object.text("method", self.method);
            object.some("host", self.host.as_deref());
            object.text("path", self.path);
            object.text("protocol", self.protocol);
            status(object, self.status);
            object.number("duration_us", micros(self.duration));
            if let Some(delay) = self.injected_delay {
                object.number("injected_delay_us", micros(delay));
            }
            object.number("bytes_in", self.bytes_in);
            object.number("bytes_out", self.bytes_out);
            self.verdict(object);
            self.route(object);
            object.flag("complete", self.complete);
            if let Some(downstream) = &self.downstream {
                object.object("downstream", |object| downstream.fill(object));
            }
            if !self.attempts.is_empty() {
                object.list("attempts", &self.attempts, AttemptRecord::fill);
            }
        });
    }

    fn trace(&self, object: &mut Object<'_>) {
        if let Some(id) = self.trace_id {
            object.plain("trace_id", id);
        }
        span(object, "span_id", self.span_id);
        span(object, "parent_id", self.parent_id);
    }

    fn verdict(&self, object: &mut Object<'_>) {
        object.some("reason", self.reason.map(Reason::label));
        object.some("flag", self.flag);
        if let Some(detail) = self.detail {
            object.text("detail", &detail.to_string());
        }
        object.some("policy", self.policy);
        told(object, self.audit, self.dry_run);
    }

    fn route(&self, object: &mut Object<'_>) {
        object.some("consumer", self.consumer);
        object.some("route", self.route);
        object.some("rule", self.rule);
        object.some("backend", self.backend);
    }
}

/// What policies say that are not enforced.
pub(crate) fn told(object: &mut Object<'_>, audit: Option<&str>, dry_run: Option<&DryRun>) {
    object.some("audit", audit);
    if let Some(DryRun { allowed, policy }) = dry_run {
        object.text("dry_run", if *allowed { "allow" } else { "deny" });
        object.some("dry_run_policy", policy.as_deref());
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn status(object: &mut Object<'_>, status: Option<u16>) {
    if let Some(status) = status {
        object.number("status", u64::from(status));
    }
}

fn span(object: &mut Object<'_>, name: &'static str, id: Option<SpanId>) {
    if let Some(id) = id {
        object.plain(name, id);
    }
}

impl<'a> DownstreamRecord<'a> {
    pub(crate) fn fill(&self, object: &mut Object<'_>) {
        object.address("peer", self.peer);
        object.address("local", self.local);
        object.some("tls", self.tls);
        object.some("alpn", self.alpn);
        object.some("server_name", self.server_name);
        object.some("identity", self.identity);
    }

    pub(crate) fn new(connection: &'a Connection) -> Self {
        let tls = connection.tls.as_ref();
        Self {
            peer: connection.peer,
            local: connection.local,
            tls: tls.map(|tls| tls.version.as_str()),
            alpn: tls.and_then(|tls| tls.alpn.as_deref()),
            server_name: connection.server_name(),
            identity: connection.identity().map(towpath_gateway_core::SpiffeId::as_str),
        }
    }
}

impl<'a> AttemptRecord<'a> {
    pub(crate) fn fill(&self, object: &mut Object<'_>) {
        object.address("endpoint", self.endpoint);
        object.filled("workload", self.workload);
        object.filled("cluster", self.cluster);
        if let Some(local) = self.local {
            object.address("local", local);
        }
        object.some("tls", self.tls);
        object.some("identity", self.identity);
        span(object, "span_id", self.span_id);
        status(object, self.status);
        object.some("reason", self.reason.map(Reason::label));
        if let Some(duration) = self.duration {
            object.number("duration_us", micros(duration));
        }
    }

    pub(crate) fn new(attempt: &'a Attempt) -> Self {
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
    pub(crate) fn of(fault: &'a Fault) -> Option<Self> {
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

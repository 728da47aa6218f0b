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
        time: SystemTime,
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
            time,
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
pub(crate) mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use towpath_gateway_core::{
        Backend, Balance, Consumer, Decision, Endpoint, Policies, RouteName, TlsFacts, TlsVersion,
        TraceContext, Workload,
    };

    use super::*;
    use crate::ProcessFacts;

    fn origin() -> Origin {
        let facts = ProcessFacts::new("gateway", "edge/gateway", "west");
        Origin { facts, pid: 42, listener: "public".into() }
    }

    fn shown(context: &Context, fault: Option<&Fault>, end: End) -> Value {
        let (origin, attempts) = (origin(), context.attempts());
        let head =
            Head { method: "GET", host: Some("shop.example".into()), path: "/a", version: Version::HTTP_2 };
        let record = Record::new(&origin, SystemTime::UNIX_EPOCH, head, end, context, fault, &attempts);
        serde_json::to_value(&record).unwrap()
    }

    fn end() -> End {
        let duration = Duration::from_micros(1500);
        End { status: Some(200), duration, bytes_in: 3, bytes_out: 5, complete: true }
    }

    /// A record with hardly anything in it, for tests of the sink.
    pub(crate) fn sample(take: impl FnOnce(&Record<'_>)) {
        let (origin, context) = (origin(), Context::new());
        let head = Head { method: "GET", host: None, path: "/", version: Version::HTTP_11 };
        take(&Record::new(&origin, SystemTime::now(), head, end(), &context, None, &[]));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(
            shown(&Context::new(), None, end()),
            json!({
                "time": "1970-01-01T00:00:00.000Z", "role": "gateway", "workload": "edge/gateway", "cluster": "west",
                "pid": 42, "listener": "public", "method": "GET", "host": "shop.example", "path": "/a",
                "protocol": "HTTP/2.0", "status": 200, "duration_us": 1500, "bytes_in": 3, "bytes_out": 5,
                "complete": true,
            })
        );
    }

    fn connection() -> Arc<Connection> {
        let (peer, local) = ("127.0.0.1:5".parse().unwrap(), "127.0.0.1:443".parse().unwrap());
        let tls = Some(TlsFacts {
            version: TlsVersion::Tls13,
            server_name: Some("shop.example".into()),
            alpn: Some("h2".into()),
            identity: Some("spiffe://td/ns/a/sa/b".parse().unwrap()),
        });
        Arc::new(Connection { peer, local, tls })
    }

    fn busy() -> Context {
        let context = Context::on(connection());
        let (trace_id, span_id) = (TraceId([1; 16]), SpanId([2; 8]));
        context
            .set_trace(TraceContext { trace_id, span_id, parent: Some(SpanId([3; 8])), sampled: true })
            .unwrap();
        context.set_route(RouteName::new("shop/pages", "1"), Policies::default()).unwrap();
        context.set_consumer(Consumer::new("shop/alice")).unwrap();
        context.set_backend(Arc::new(Backend::new("shop/pages:80", Balance::default(), Vec::new()))).unwrap();
        context.set_decision(Decision { allowed: true, policy: Some("shop/allow".into()) }).unwrap();
        let mut endpoint = Endpoint::plaintext("127.0.0.1:9".parse().unwrap());
        endpoint.workload = Workload { name: "shop/pages-1".into(), cluster: "east".into() };
        let endpoint = Arc::new(endpoint);
        let first = context.begin_attempt(endpoint.clone());
        first.set_outcome(Outcome::Fault(Reason::ConnectFailed), Duration::from_micros(7)).unwrap();
        let second = context.begin_attempt(endpoint);
        second.set_connection(connection()).unwrap();
        second.set_span(SpanId([4; 8])).unwrap();
        second.set_outcome(Outcome::Status(503), Duration::from_micros(9)).unwrap();
        context
    }

    #[test]
    fn what_is_known_is_there() {
        let value = shown(&busy(), None, end());
        assert_eq!(value["trace_id"], "01".repeat(16));
        assert_eq!(value["span_id"], "02".repeat(8));
        assert_eq!(value["parent_id"], "03".repeat(8));
        assert_eq!((&value["route"], &value["rule"]), (&json!("shop/pages"), &json!("1")));
        assert_eq!((&value["consumer"], &value["backend"]), (&json!("shop/alice"), &json!("shop/pages:80")));
        assert_eq!(value["policy"], "shop/allow");
        assert_eq!(
            value["downstream"],
            json!({
                "peer": "127.0.0.1:5", "local": "127.0.0.1:443", "tls": "TLSv1.3", "alpn": "h2",
                "server_name": "shop.example", "identity": "spiffe://td/ns/a/sa/b",
            })
        );
        assert_eq!(
            value["attempts"],
            json!([
                { "endpoint": "127.0.0.1:9", "workload": "shop/pages-1", "cluster": "east",
                  "reason": "connect_failed", "duration_us": 7 },
                { "endpoint": "127.0.0.1:9", "workload": "shop/pages-1", "cluster": "east",
                  "local": "127.0.0.1:443", "tls": "TLSv1.3", "identity": "spiffe://td/ns/a/sa/b",
                  "span_id": "04".repeat(8), "status": 503, "duration_us": 9 },
            ])
        );
    }

    #[test]
    fn a_fault_tells_all_it_knows() {
        let fault = Fault::new(Reason::Denied)
            .with_detail("POST \"/admin\"\n")
            .with_policy("shop/deny".into())
            .with_source(Fault::new(Reason::Internal).with_source("deepest"));
        let value = shown(&busy(), Some(&fault), end());
        assert_eq!((&value["reason"], &value["flag"]), (&json!("denied"), &json!("RBAC")));
        assert_eq!(value["policy"], "shop/deny", "the policy that refused comes before the one that allowed");
        let detail = value["detail"].as_str().unwrap();
        assert_eq!(detail, "POST \"/admin\"\n: internal: deepest");
    }

    #[test]
    fn a_bare_fault_has_no_detail() {
        let value = shown(&Context::new(), Some(&Fault::new(Reason::NoRoute)), end());
        assert_eq!((&value["reason"], value.get("detail")), (&json!("no_route"), None));
    }
}

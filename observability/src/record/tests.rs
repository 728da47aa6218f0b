use std::sync::Arc;

use serde_json::{Value, json};
use towpath_gateway_core::{
    Backend, Balance, Consumer, Decision, Endpoint, Policies, RouteName, TlsFacts, TlsVersion, TraceContext,
    Workload,
};

use super::*;
use crate::ProcessFacts;

fn origin() -> Origin {
    let facts = ProcessFacts::new("gateway", "edge/gateway", "west");
    Origin { facts, pid: 42, listener: "public".into() }
}

fn shown(context: &Context, fault: Option<&Fault>, end: End) -> Value {
    let (origin, attempts) = (origin(), context.attempts());
    let head = Head {
        time: SystemTime::UNIX_EPOCH,
        method: "GET",
        host: Some("shop.example".into()),
        path: "/a",
        version: Version::HTTP_2,
    };
    let record = Record::new(&origin, head, end, context, fault, &attempts);
    let mut line = Vec::new();
    record.write_json(&mut line);
    serde_json::from_slice(&line).unwrap()
}

fn end() -> End {
    let duration = Duration::from_micros(1500);
    End { status: Some(200), duration, bytes_in: 3, bytes_out: 5, complete: true }
}

/// A record with hardly anything in it, for tests of the sink.
pub(crate) fn sample(take: impl FnOnce(&Record<'_>)) {
    let (origin, context) = (origin(), Context::new());
    let head =
        Head { time: SystemTime::now(), method: "GET", host: None, path: "/", version: Version::HTTP_11 };
    take(&Record::new(&origin, head, end(), &context, None, &[]));
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
        forwarded_cert: None,
    });
    Arc::new(Connection { tls, ..Connection::plaintext(peer, local) })
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
    context.set_decision(Decision::by(true, Some("shop/allow".into()))).unwrap();
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

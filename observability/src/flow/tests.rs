use std::sync::Mutex;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::{Backend, Connection, Policies, RouteName};

use super::*;
use crate::{AccessLog, Metrics, ProcessFacts};

struct Silent;
impl Datagrams for Silent {
    fn poll_recv(&mut self, _: &mut Task<'_>) -> Poll<Option<Bytes>> {
        Poll::Pending
    }

    fn send(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Book {
    lines: Lines,
    log: AccessLog,
    metrics: Metrics,
}

impl Book {
    fn new() -> Self {
        let lines = Lines::default();
        Self { log: AccessLog::writer(lines.clone()).unwrap(), lines, metrics: Metrics::new() }
    }

    fn layer(&self) -> FlowRecordLayer {
        let facts = ProcessFacts::new("gateway", "", "");
        FlowRecordLayer::new(
            Recorder::new(facts, self.metrics.shard(), self.log.clone()).listener("edge:5432"),
        )
    }

    /// The one line of the log.
    fn line(&self) -> Value {
        assert!(self.log.flush(std::time::Duration::from_secs(5)));
        serde_json::from_slice(&self.lines.0.lock().unwrap()).unwrap()
    }
}

fn connection(name: Option<&str>) -> Connection {
    let at = "127.0.0.1:5432".parse().unwrap();
    Connection { passed_name: name.map(Into::into), ..Connection::plaintext(at, at) }
}

#[tokio::test]
async fn a_connection_is_one_line_and_one_count_with_its_bytes() {
    let book = Book::new();
    let inner = service_fn(|mut flow: Flow<BoxIo>| async move {
        flow.context.set_route(RouteName::new("shop/db", "0"), Policies::default())?;
        flow.context.set_backend(Arc::new(Backend::unresolved("shop/db:5432")))?;
        flow.io.read_exact(&mut [0; 5]).await.unwrap();
        flow.io.write_all(b"hi").await.unwrap();
        Ok::<_, Fault>(())
    });
    let (mut client, io) = duplex(64);
    client.write_all(b"hello").await.unwrap();
    let accepted = Accepted { io: Box::new(io), connection: connection(Some("db.example")) };
    book.layer().layer(inner).oneshot(accepted).await.unwrap();
    let line = book.line();
    for (field, wanted) in [
        ("protocol", Value::from("TLS")),
        ("listener", "edge:5432".into()),
        ("route", "shop/db".into()),
        ("backend", "shop/db:5432".into()),
        ("bytes_in", 5.into()),
        ("bytes_out", 2.into()),
        ("complete", true.into()),
    ] {
        assert_eq!(line[field], wanted, "{line}");
    }
    assert_eq!(line["downstream"]["server_name"], "db.example");
    let text = book.metrics.encode().unwrap();
    let labels = r#"{role="gateway",listener="edge:5432",protocol="TLS",route="shop/db",reason="none"}"#;
    for line in [
        format!("towpath_flows_total{labels} 1"),
        format!("towpath_flow_received_bytes_total{labels} 5"),
        format!("towpath_flow_sent_bytes_total{labels} 2"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_fault_ends_here_and_shows_its_policy() {
    let book = Book::new();
    let inner = service_fn(|_: Flow<BoxIo>| async {
        Err::<(), _>(Fault::new(Reason::Denied).with_policy("shop/deny".into()))
    });
    let accepted = Accepted { io: Box::new(duplex(1).1), connection: connection(None) };
    book.layer().layer(inner).oneshot(accepted).await.unwrap();
    let line = book.line();
    assert_eq!((&line["protocol"], &line["flag"]), (&"TCP".into(), &"RBAC".into()), "{line}");
    assert_eq!((&line["policy"], &line["complete"]), (&"shop/deny".into(), &false.into()), "{line}");
    assert!(
        book.metrics.encode().unwrap().contains("refused_total{policy=\"shop/deny\",reason=\"denied\"} 1")
    );
}

#[tokio::test]
async fn a_flow_that_is_cut_off_has_a_record_too() {
    let book = Book::new();
    let inner = service_fn(|_: Flow<BoxDatagrams>| std::future::pending::<Result<(), Fault>>());
    let context = Context::on(Arc::new(connection(None)));
    drop(book.layer().layer(inner).oneshot(Flow { context, io: Box::new(Silent) as BoxDatagrams }));
    let mut service = book.layer().layer(inner);
    let context = Context::on(Arc::new(connection(None)));
    drop(service.call(Flow { context, io: Box::new(Silent) as BoxDatagrams }));
    let line = book.line();
    assert_eq!((&line["protocol"], &line["reason"]), (&"UDP".into(), &"draining".into()), "{line}");
}

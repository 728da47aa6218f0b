//! The layers at work around axum's handlers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use towpath_embed_axum::{Arrived, app};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};

struct Lines(mpsc::Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Fixture {
    app: Router,
    metrics: Metrics,
    log: AccessLog,
    lines: mpsc::Receiver<Vec<u8>>,
}

fn fixture() -> Fixture {
    let (sender, lines) = mpsc::channel();
    let (metrics, log) = (Metrics::new(), AccessLog::writer(Lines(sender)).unwrap());
    let recorder = Recorder::new(ProcessFacts::new("app", "", ""), metrics.shard(), log.clone());
    Fixture { app: app(recorder.listener("http")), metrics, log, lines }
}

impl Fixture {
    async fn get(&self, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    fn records(&self) -> Vec<Value> {
        assert!(self.log.flush(Duration::from_secs(10)));
        let bytes: Vec<u8> = self.lines.try_iter().flatten().collect();
        serde_json::Deserializer::from_slice(&bytes).into_iter().map(Result::unwrap).collect()
    }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const KEY: (&str, &str) = ("x-api-key", "alice-demo-key");

#[tokio::test]
async fn a_key_lets_in_names_the_caller_and_is_counted() {
    let fixture = fixture();
    let caller = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let response = fixture.get(&[KEY, caller]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "hello demo/alice\n");
    let record = &fixture.records()[0];
    assert_eq!((&record["consumer"], &record["status"]), (&"demo/alice".into(), &200.into()));
    assert_eq!(record["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(record["parent_id"], "00f067aa0ba902b7");
    assert!(!record.to_string().contains("alice-demo-key"), "keys are never logged");
    assert!(fixture.metrics.encode().unwrap().contains("code=\"200\",reason=\"none\"} 1"));
}

#[tokio::test]
async fn strangers_are_refused_and_the_log_says_by_whom() {
    let fixture = fixture();
    for headers in [&[][..], &[("x-api-key", "wrong")]] {
        let response = fixture.get(headers).await;
        assert_eq!(response.status(), 401);
        text(response).await;
    }
    let records = fixture.records();
    assert_eq!(records[0]["reason"], "credential_missing");
    assert_eq!(records[1]["reason"], "credential_invalid");
    assert!(records.iter().all(|record| record["policy"] == "demo/keys"));
}

#[tokio::test]
async fn the_sixth_request_of_the_hour_is_over_the_limit() {
    let fixture = fixture();
    for _ in 0..5 {
        assert_eq!(fixture.get(&[KEY]).await.status(), 200);
    }
    let response = fixture.get(&[KEY]).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    // Those who are refused for their key do not use up anybody's limit.
    assert_eq!(fixture.get(&[]).await.status(), 401);
}

#[tokio::test]
async fn behind_a_real_listener_the_log_names_the_peer() {
    let Fixture { app, log, lines, .. } = fixture();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<Arrived>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let peer = client.local_addr().unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(log.flush(Duration::from_secs(10)));
    let record: Value = serde_json::from_slice(&lines.try_recv().unwrap()).unwrap();
    assert_eq!(record["downstream"]["peer"], peer.to_string());
    assert_eq!(record["downstream"]["local"], address.to_string());
    server.abort();
}

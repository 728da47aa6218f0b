//! The record of a request in every way that it can end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use towpath_gateway_core::{Body, Consumer, Context, Fault, HttpService, Reason, RescueLayer};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, RecordLayer, Recorder};

const PATIENCE: Duration = Duration::from_secs(10);

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
    layer: RecordLayer,
    log: AccessLog,
    lines: mpsc::Receiver<Vec<u8>>,
    metrics: Metrics,
}

fn fixture() -> Fixture {
    let (sender, lines) = mpsc::channel();
    let (log, metrics) = (AccessLog::writer(Lines(sender)).unwrap(), Metrics::new());
    let recorder = Recorder::new(ProcessFacts::new("test", "", ""), metrics.shard(), log.clone());
    Fixture { layer: RecordLayer::new(recorder.listener("in")), log, lines, metrics }
}

impl Fixture {
    /// Every record so far.
    fn records(&self) -> Vec<Value> {
        assert!(self.log.flush(PATIENCE));
        let bytes: Vec<u8> = self.lines.try_iter().flatten().collect();
        bytes
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    fn record(&self) -> Value {
        let mut records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    /// Sends `request` to a service that answers with what `answer` makes.
    async fn send<B>(&self, request: Request<B>, answer: fn() -> Response<Body>) -> Response<Body>
    where
        B: HttpBody<Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let inner = service_fn(move |request: Request<Body>| async move {
            request.into_body().collect().await.unwrap();
            Ok::<_, Infallible>(answer())
        });
        self.layer.layer(inner).oneshot(request).await.unwrap()
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// A streamed body of these frames, whose length nobody knows.
fn frames<const N: usize>(frames: [Result<Frame<Bytes>, Fault>; N]) -> Body {
    Body::new(StreamBody::new(stream::iter(frames)))
}

#[allow(clippy::unnecessary_wraps)] // beside frames that are errors
fn data(text: &'static str) -> Result<Frame<Bytes>, Fault> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

#[tokio::test]
async fn the_record_waits_for_the_end_of_the_stream_and_counts_both_ways() {
    let fixture = fixture();
    let request = Request::post("http://shop.example/a?q=1").body(frames([data("abc"), data("de")])).unwrap();
    let response = fixture.send(request, || Response::new(frames([data("1234"), data("567")]))).await;
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(fixture.records().is_empty(), "the stream still runs");
    body.collect().await.unwrap();
    let record = fixture.record();
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&5.into(), &7.into()));
    assert_eq!((&record["status"], &record["complete"]), (&200.into(), &true.into()));
    assert_eq!((&record["method"], &record["path"]), (&"POST".into(), &"/a".into()));
    assert_eq!((&record["host"], &record["listener"]), (&"shop.example".into(), &"in".into()));
    assert!(record.get("reason").is_none());
}

#[tokio::test]
async fn what_inner_layers_learn_is_seen() {
    let fixture = fixture();
    let inner = ServiceBuilder::new().layer(fixture.layer.clone()).layer(RescueLayer::new()).service(
        service_fn(|mut request: Request<Body>| async move {
            Context::of(request.extensions_mut()).set_consumer(Consumer::new("alice")).unwrap();
            Err::<Response<Body>, _>(Fault::new(Reason::Denied).with_policy("shop/deny".into()))
        }),
    );
    let response = inner.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    response.into_body().collect().await.unwrap();
    let record = fixture.record();
    assert_eq!((&record["consumer"], &record["reason"]), (&"alice".into(), &"denied".into()));
    assert_eq!((&record["policy"], &record["complete"]), (&"shop/deny".into(), &true.into()));
    assert!(fixture.metrics.encode().unwrap().contains("code=\"403\",reason=\"denied\"} 1"));
}

#[tokio::test]
async fn a_client_that_leaves_midway_is_named() {
    let fixture = fixture();
    let response = fixture.send(get("/"), || Response::new(frames([data("1234"), data("567")]))).await;
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let record = fixture.record();
    assert_eq!((&record["reason"], &record["flag"]), (&"client_gone".into(), &"DC".into()));
    assert_eq!((&record["complete"], &record["bytes_out"]), (&false.into(), &4.into()));
    assert_eq!(record["status"], 200);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_named() {
    let fixture = fixture();
    let inner = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let answer = fixture.layer.layer(inner).oneshot(get("/"));
    assert!(futures_util::future::FutureExt::now_or_never(answer).is_none());
    let record = fixture.record();
    assert_eq!((record.get("status"), &record["reason"]), (None, &"client_gone".into()));
    assert!(fixture.metrics.encode().unwrap().contains("code=\"0\",reason=\"client_gone\"} 1"));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_blamed_on_its_source() {
    let unknown = || {
        Response::new(Body::new(StreamBody::new(stream::iter([
            Ok(Frame::data(Bytes::from_static(b"12"))),
            Err(io::Error::other("reset by peer")),
        ]))))
    };
    let known = || Response::new(frames([data("12"), Err(Fault::new(Reason::UpstreamTimeout))]));
    let cases: [(fn() -> Response<Body>, &str); 2] =
        [(unknown, "upstream_reset"), (known, "upstream_timeout")];
    for (answer, reason) in cases {
        let fixture = fixture();
        let response = fixture.send(get("/"), answer).await;
        response.into_body().collect().await.unwrap_err();
        let record = fixture.record();
        assert_eq!((&record["reason"], &record["complete"]), (&reason.into(), &false.into()));
        assert_eq!(record["bytes_out"], 2);
    }
}

#[tokio::test]
async fn a_response_without_a_body_is_recorded_at_its_head() {
    let with_body = || Response::new(Body::from("never sent"));
    let switching = || {
        let mut response = Response::new(frames([data("another protocol")]));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
    };
    let head = Request::head("/").body(Body::empty()).unwrap();
    let connect = Request::builder().method(Method::CONNECT).uri("a:1").body(Body::empty()).unwrap();
    for (request, answer) in [
        (head, with_body as fn() -> _),
        (connect, with_body),
        (get("/"), switching),
        (get("/"), || Response::new(Body::empty())),
    ] {
        let fixture = fixture();
        let response = fixture.send(request, answer).await;
        assert_eq!(fixture.record()["complete"], true);
        drop(response);
        assert!(fixture.records().is_empty(), "one record each");
    }
}

#[tokio::test]
async fn a_reached_length_is_the_end() {
    let fixture = fixture();
    let response = fixture.send(get("/"), || Response::new(Body::from("12345"))).await;
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    // A server that announced five bytes sends five and does not ask for more.
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(fixture.record()["complete"], true);
}

#[tokio::test]
async fn trailers_pass_and_end_the_stream() {
    let fixture = fixture();
    let response = fixture
        .send(get("/"), || {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            Response::new(frames([data("1"), Ok(Frame::trailers(trailers))]))
        })
        .await;
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(fixture.record()["complete"], true);
}

#[tokio::test]
async fn a_body_in_hand_stays_in_hand() {
    let fixture = fixture();
    let inner = service_fn(|request: Request<Body>| async move {
        assert_eq!(request.body().bytes().as_deref(), Some(&b"abc"[..]));
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let request = Request::post("/").body(Body::from("abc")).unwrap();
    fixture.layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(fixture.record()["bytes_in"], 3);
}

#[tokio::test]
async fn with_rescue_inside_it_fits_under_the_boxed_seam() {
    let fixture = fixture();
    let refuse =
        service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Fault::new(Reason::NoRoute)) });
    let stack = ServiceBuilder::new().layer(fixture.layer.clone()).layer(RescueLayer::new()).service(refuse);
    let response = HttpService::new(stack).oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    drop(response);
    assert_eq!(fixture.record()["reason"], "no_route");
}

#[tokio::test]
async fn an_error_that_nobody_rescued_is_recorded() {
    let fixture = fixture();
    let inner = service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(io::Error::other("lost")) });
    fixture.layer.layer(inner).oneshot(get("/")).await.unwrap_err();
    let record = fixture.record();
    assert_eq!((&record["reason"], record.get("status")), (&"internal".into(), None));
}

#[tokio::test]
async fn a_panic_leaves_a_record() {
    let fixture = fixture();
    let inner = service_fn(|request: Request<Body>| async move {
        assert!(request.uri().path() != "/", "a handler's fault");
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let answer = fixture.layer.layer(inner).oneshot(get("/"));
    assert!(tokio::spawn(answer).await.unwrap_err().is_panic());
    assert_eq!(fixture.record()["reason"], "internal");
}

#[tokio::test]
async fn a_server_that_reads_to_the_end_makes_one_complete_record() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fixture = fixture();
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "hello" }))
        .route("/endless", axum::routing::get(|| async { axum::body::Body::from_stream(endless()) }))
        .layer(fixture.layer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    let record = fixture.record();
    assert_eq!((&record["complete"], &record["bytes_out"]), (&true.into(), &5.into()));
    assert_eq!((&record["host"], &record["protocol"]), (&"a".into(), &"HTTP/1.1".into()));

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    client.read_exact(&mut [0; 1000]).await.unwrap();
    drop(client);
    let line =
        tokio::task::spawn_blocking(move || fixture.lines.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    let record: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&record["reason"], &record["complete"]), (&"client_gone".into(), &false.into()));
    server.abort();
}

fn endless() -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    stream::repeat(Bytes::from_static(&[b'x'; 1024])).map(Ok)
}

//! External authorization over sockets, by both protocols: what the service is asked, and what its answer does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{World, free, send};

/// What the authorization service saw: path and body of each question.
type Log = Arc<Mutex<Vec<(String, Bytes)>>>;
type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A service that allows requests with the authorization `alice`, on a thread of its own.
fn service(grpc: bool) -> (SocketAddr, Log) {
    let (address, log) = (free(), Log::default());
    let noting = Arc::clone(&log);
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&noting);
                let answer = service_fn(move |request| answer(grpc, request, Arc::clone(&log)));
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    if grpc {
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, answer)
                            .await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
                    }
                });
            }
        });
    });
    (address, log)
}

async fn answer(grpc: bool, request: Request<Incoming>, log: Log) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let alice = request.headers().get("authorization").is_some_and(|value| value == "alice");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mentions = |word: &[u8]| body.windows(word.len()).any(|part| part == word);
    let alice = if grpc { mentions(b"alice") } else { alice };
    log.lock().unwrap().push((path, body.clone()));
    Ok(if grpc { grpc_answer(alice) } else { http_answer(alice) })
}

fn http_answer(alice: bool) -> Answer {
    let mut response = Response::new(Full::from(if alice { "" } else { "who are you?" }).boxed());
    if alice {
        response.headers_mut().insert("x-user", HeaderValue::from_static("alice"));
    } else {
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Basic"));
    }
    response
}

/// `CheckResponse`, byte by byte: status 0 with `x-user: alice`, or status 7 with HTTP status 401 and a body.
fn grpc_answer(alice: bool) -> Answer {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let message = if alice {
        let line = [field(1, b"x-user"), field(2, b"alice")].concat();
        [field(1, &[8, 0]), field(3, &field(2, &field(1, &line)))].concat()
    } else {
        let denied = [field(1, &[8, 0x91, 0x03]), field(3, b"who are you?")].concat();
        [field(1, &[8, 7]), field(2, &denied)].concat()
    };
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0][..], &length, &message].concat();
    let trailers: HeaderMap =
        [(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))].into_iter().collect();
    let body = Full::from(framed).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

fn world(auth: SocketAddr, settings: &str) -> World {
    let rule = format!(
        "    - matches: [{{path: {{type: PathPrefix, value: /private}}}}]
      filters: [{{type: ExternalAuth, externalAuth: {{backendRef: {{name: auth, port: 80}}, {settings}}}}}]
      backendRefs: [{{name: app, port: 80}}]
"
    );
    let more = support::service_of("auth", auth);
    World::start(&rule, &more)
}

fn decides(grpc: bool, settings: &str) -> (World, Log) {
    let (auth, log) = service(grpc);
    let world = world(auth, settings);
    let open = send(world.address, "GET /open HTTP/1.1", "");
    assert!(open.starts_with("HTTP/1.1 200 ") && log.lock().unwrap().is_empty(), "{open}");

    let refused = send(world.address, "GET /private HTTP/1.1\r\nx-user: root", "");
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.ends_with("who are you?"), "{refused}");
    let line = world.logged("/private");
    assert_eq!(
        (&line["reason"], &line["flag"], &line["policy"]),
        (&"external_denied".into(), &"UAEX".into(), &"edge/all".into())
    );

    let allowed =
        send(world.address, "GET /private/seen HTTP/1.1\r\nauthorization: alice\r\nx-user: root", "");
    assert!(allowed.starts_with("HTTP/1.1 200 ") && allowed.contains("\"x-user\": \"alice\""), "{allowed}");
    (world, log)
}

#[test]
fn an_http_service_decides() {
    let (world, log) = decides(
        false,
        "protocol: HTTP, http: {path: /check, allowedResponseHeaders: [x-user]}, forwardBody: {maxSize: 4}",
    );
    assert_eq!(log.lock().unwrap()[1], ("/check/private/seen".to_owned(), Bytes::new()));
    let head = "POST /private/seen HTTP/1.1\r\nauthorization: alice\r\ncontent-length: ";
    let whole = send(world.address, &format!("{head}4"), "four");
    assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
    assert_eq!(log.lock().unwrap()[2].1, "four");
    assert!(send(world.address, &format!("{head}5"), "fives").starts_with("HTTP/1.1 413 "));
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[test]
fn a_grpc_service_decides() {
    let (_world, log) = decides(true, "protocol: GRPC, grpc: {}");
    assert_eq!(log.lock().unwrap()[0].0, "/envoy.service.auth.v3.Authorization/Check");
}

#[test]
fn nothing_passes_while_the_service_is_away() {
    for settings in ["protocol: GRPC, grpc: {}", "protocol: HTTP, http: {}"] {
        let world = world(free(), settings);
        let refused = send(world.address, "GET /private HTTP/1.1\r\nauthorization: alice", "");
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
        assert_eq!(world.logged("/private")["reason"], "external_auth_failed");
    }
}

//! What budgets and benches measure: stacks as the compiler makes them of 100 routes and a policy.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use towpath_config::{Duty, Options, Role, Source, compile};
use towpath_gateway_core::{HttpService, Live};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_routing::Routes;
use towpath_stacks::{Entry, Parts, Reach, upstream};

pub const REQUEST: &[u8] =
    b"GET /r7/books?page=2 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: budget\r\naccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nserver: app\r\n\r\nhello";

/// One request and its answer.
pub fn exchange(stream: &mut TcpStream) {
    stream.write_all(REQUEST).unwrap();
    let (mut answer, mut length) = ([0; 4096], 0);
    while !answer[..length].ends_with(b"\r\n\r\nhello") {
        let read = stream.read(&mut answer[length..]).unwrap();
        assert!(read > 0, "the proxy hung up after {}", String::from_utf8_lossy(&answer[..length]));
        length += read;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
}

/// A backend that answers the same to everything, each connection on a thread of its own.
pub fn backend() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer_all(stream.unwrap()));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let (mut request, mut length) = ([0; 4096], 0);
    loop {
        match stream.read(&mut request[length..]) {
            Ok(0) | Err(_) => return,
            Ok(read) => length += read,
        }
        if request[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            if stream.write_all(RESPONSE).is_err() {
                return;
            }
        }
    }
}

pub fn parts() -> Parts {
    let reach = Reach { identity: None, connect_timeout: Duration::from_secs(5) };
    Parts {
        recorder: Recorder::new(ProcessFacts::default(), Metrics::new().shard(), AccessLog::off()),
        limits: Arc::new(Store::new()),
        upstream: HttpService::new(upstream(reach)),
    }
}

/// What the compiler makes of a directory such as people write.
pub fn entry(backend: SocketAddr) -> Entry {
    let source = Source::from_files(vec![("all.yaml".to_owned(), resources(backend))]);
    let options = Options {
        workload: Some("shop/gateway-0".parse().unwrap()),
        port_map: Some("shop/gateway:80=127.0.0.1:8080".parse().unwrap()),
        ..Options::new(Role::Gateway)
    };
    let snapshot = compile(&source, &options, None);
    assert!(!snapshot.has_errors(), "{:?}", snapshot.problems);
    let Some(Duty::Edge { routes, guard, .. }) = snapshot.listeners.into_iter().map(|l| l.duty).next() else {
        panic!("the Gateway has no listener");
    };
    Entry {
        routes: Live::new(Routes::new(routes)),
        normalization: Live::new(guard.normalization),
        authentication: Live::new(guard.authentication),
        authorization: Live::new(guard.authorization),
        port: 80,
    }
}

fn resources(backend: SocketAddr) -> String {
    let mut text = include_str!("gateway.yaml").replace("BACKEND_PORT", &backend.port().to_string());
    let prefixes: Vec<_> = (0..100).map(|n| format!("/r{n}/")).chain(["/".to_owned()]).collect();
    for (number, prefixes) in prefixes.chunks(16).enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{namespace: shop, name: r{number}}}\nspec:\n  parentRefs: [{{name: gateway}}]\n  rules:\n"
        );
        for prefix in prefixes {
            let _ = writeln!(
                text,
                "    - {{matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}], \
                 backendRefs: [{{name: app, port: 80}}]}}"
            );
        }
    }
    text
}

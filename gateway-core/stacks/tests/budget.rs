//! Budgets: how often a stack may ask the heap for memory per request. Noise of the machine does not touch these figures.
//!
//! Each stack is served over real loopback connections with what ships by default: 100 routes and a catch-all, an
//! authorization policy by path and method, metrics, trace context, limits and time limits; the access log is off. Only
//! the proxy's thread counts: client and backend have threads of their own. Mesh TLS is not part of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use towpath_config::{Duty, Options, Role, Source, compile};
use towpath_gateway_core::{HttpService, Live};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_routing::Routes;
use towpath_server::{ConnectionService, Drain, Limits, Serve, serve_on};
use towpath_stacks::{Entry, Parts, Reach, gateway, ingress, sidecar_inbound, sidecar_outbound, upstream};

/// Allocations per request: what was measured when the bound was set, plus one. Lower it whenever the
/// printed figure allows; raise it only with a reason.
const GATEWAY: f64 = 21.0;
const INGRESS: f64 = 21.0;
const SIDECAR_INBOUND: f64 = 19.0;
const SIDECAR_OUTBOUND: f64 = 19.0;
/// Bytes per request, of all stacks: what was measured for the dearest, plus one kibibyte.
const BYTES: f64 = 13_500.0;

const WARM_UP: usize = 200;
const COUNTED: usize = 500;
const REQUEST: &[u8] =
    b"GET /r7/books?page=2 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: budget\r\naccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nserver: app\r\n\r\nhello";

#[test]
fn the_gateway_keeps_its_budget() {
    hold("gateway", GATEWAY, |parts, entry| HttpService::new(gateway(parts, entry)));
}

#[test]
fn the_ingress_keeps_its_budget() {
    hold("ingress", INGRESS, |parts, entry| HttpService::new(ingress(parts, entry)));
}

#[test]
fn the_sidecar_keeps_its_budget_inbound() {
    hold("sidecar inbound", SIDECAR_INBOUND, |parts, entry| HttpService::new(sidecar_inbound(parts, entry)));
}

#[test]
fn the_sidecar_keeps_its_budget_outbound() {
    hold("sidecar outbound", SIDECAR_OUTBOUND, |parts, entry| {
        HttpService::new(sidecar_outbound(parts, entry.routes))
    });
}

/// Measures a stack, prints the figures (`--nocapture`), and holds them to the bounds.
fn hold(name: &str, allocations: f64, stack: impl FnOnce(Parts, Entry) -> HttpService) {
    let (count, bytes) = measured(stack);
    println!("{name}: {count:.2} allocations and {bytes:.0} bytes per request");
    // A count of nothing would be a counter that is not in place.
    assert!(count > 0.5, "{name}: nothing was counted");
    assert!(
        count <= allocations,
        "{name}: {count:.2} allocations per request, at most {allocations} are allowed"
    );
    assert!(bytes <= BYTES, "{name}: {bytes:.0} bytes per request, at most {BYTES} are allowed");
}

/// Allocations and bytes per request once everything is warm.
fn measured(stack: impl FnOnce(Parts, Entry) -> HttpService) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let Client { warm, go, done } = Client::start(listener.local_addr().unwrap());
    let entry = entry(backend());
    runtime.block_on(async {
        let service = Serve::new(stack(parts(), entry), Limits::default(), Drain::default());
        tokio::spawn(serve_on(listener, ConnectionService::new(service), Drain::default()));
        warm.await.unwrap();
    });
    let info = allocation_counter::measure(|| {
        go.send(()).unwrap();
        runtime.block_on(done).unwrap();
    });
    let per_request = |count: u64| count as f64 / COUNTED as f64;
    (per_request(info.count_total), per_request(info.bytes_total))
}

/// A client that sends one request after the other on one connection.
struct Client {
    warm: oneshot::Receiver<()>,
    go: mpsc::Sender<()>,
    done: oneshot::Receiver<()>,
}

impl Client {
    fn start(proxy: SocketAddr) -> Self {
        let ((warm_up, warm), (finish, done)) = (oneshot::channel(), oneshot::channel());
        let (go, gone) = mpsc::channel();
        thread::spawn(move || {
            let mut stream = TcpStream::connect(proxy).unwrap();
            stream.set_nodelay(true).unwrap();
            (0..WARM_UP).for_each(|_| exchange(&mut stream));
            warm_up.send(()).unwrap();
            gone.recv().unwrap();
            (0..COUNTED).for_each(|_| exchange(&mut stream));
            finish.send(()).unwrap();
        });
        Self { warm, go, done }
    }
}

fn exchange(stream: &mut TcpStream) {
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
fn backend() -> SocketAddr {
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

fn parts() -> Parts {
    let reach = Reach { identity: None, connect_timeout: Duration::from_secs(5) };
    Parts {
        recorder: Recorder::new(ProcessFacts::default(), Metrics::new().shard(), AccessLog::off()),
        limits: Arc::new(Store::new()),
        upstream: HttpService::new(upstream(reach)),
    }
}

/// What the compiler makes of a directory such as people write.
fn entry(backend: SocketAddr) -> Entry {
    let source = Source::from_files(vec![("all.yaml".to_owned(), resources(backend))]);
    let options = Options {
        workload: Some("shop/gateway-0".parse().unwrap()),
        port_map: Some("shop/gateway:80=127.0.0.1:8080".parse().unwrap()),
        ..Options::new(Role::Gateway)
    };
    let snapshot = compile(&source, &options, None);
    assert!(!snapshot.has_errors(), "{:?}", snapshot.problems);
    let Some(Duty::Edge { routes, authorization, .. }) =
        snapshot.listeners.into_iter().map(|l| l.duty).next()
    else {
        panic!("the Gateway has no listener");
    };
    Entry { routes: Live::new(Routes::new(routes)), authorization: Live::new(authorization), port: 80 }
}

fn resources(backend: SocketAddr) -> String {
    let mut text = include_str!("budget.yaml").replace("BACKEND_PORT", &backend.port().to_string());
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

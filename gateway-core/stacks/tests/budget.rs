//! Budgets: how often a stack may ask the heap for memory per request. Noise of the machine does not touch these figures.
//!
//! Each stack is served over real loopback connections with what ships by default: 100 routes and a catch-all, an
//! authorization policy by path and method, metrics, trace context, limits and time limits; the access log is off. Only
//! the proxy's thread counts: client and backend have threads of their own. Mesh TLS is not part of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(clippy::cast_precision_loss)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use support::{backend, entry, exchange, parts};
use tokio::sync::oneshot;
use towpath_gateway_core::HttpService;
use towpath_server::{ConnectionService, Drain, Limits, Serve, serve_on};
use towpath_stacks::{Entry, Parts, gateway, ingress, sidecar_inbound, sidecar_outbound};

/// Allocations per request: what was measured when the bound was set, plus one. Lower it whenever the
/// printed figure allows; raise it only with a reason.
const GATEWAY: f64 = 18.0;
const INGRESS: f64 = 18.0;
const SIDECAR_INBOUND: f64 = 16.0;
const SIDECAR_OUTBOUND: f64 = 16.0;
/// Bytes per request, of all stacks: what was measured for the dearest, plus one kibibyte.
const BYTES: f64 = 5_700.0;

const WARM_UP: usize = 200;
const COUNTED: usize = 500;

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
        HttpService::new(sidecar_outbound(parts, entry.routes, entry.normalization))
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

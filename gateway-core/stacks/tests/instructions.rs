//! Budget: how many instructions the default gateway spends in user space on a request, by valgrind's callgrind. Noise of
//! the machine does not touch the figure; the compiler does, so that it holds for an optimized build only:
//!
//! ```sh
//! cargo test --release -p towpath-stacks --test instructions -- --ignored --nocapture
//! ```
//!
//! The program runs itself under callgrind twice, serving few requests and many; the difference counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use support::{backend, entry, exchange, parts};
use towpath_gateway_core::HttpService;
use towpath_server::{ConnectionService, Drain, Limits, Serve, serve_on};
use towpath_stacks::gateway;

/// Instructions per request: what was measured when the bound was set (thin LTO, glibc's allocator, one connection), plus a little.
const GATEWAY: u64 = 41_200;

const FEW: u64 = 300;
const MANY: u64 = 1300;
const BACKEND: &str = "TOWPATH_INSTRUCTIONS_BACKEND";

#[test]
#[ignore = "needs valgrind and an optimized build"]
fn the_gateway_keeps_its_budget() {
    if let Ok(backend) = std::env::var(BACKEND) {
        return serve_one_connection(backend.parse().unwrap());
    }
    let backend = backend();
    let (few, many) = (counted(backend, FEW), counted(backend, MANY));
    let each = (many - few) / (MANY - FEW);
    println!("gateway: {each} instructions per request");
    assert!(each > 1000, "nothing was counted");
    assert!(each <= GATEWAY, "{each} instructions per request, at most {GATEWAY} are allowed");
}

/// What this program spends under callgrind until `requests` are answered.
fn counted(backend: SocketAddr, requests: u64) -> u64 {
    let mut child = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_gateway_keeps_its_budget", "--ignored", "--nocapture", "--test-threads=1"])
        .env(BACKEND, backend.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("serving ")?.1.to_owned())).unwrap();
    let mut client = TcpStream::connect(address.trim()).unwrap();
    client.set_nodelay(true).unwrap();
    (0..requests).for_each(|_| exchange(&mut client));
    drop(client);
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected =
        report.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind reports");
    collected.1.trim().parse().unwrap()
}

/// Serves until the first client leaves.
fn serve_one_connection(backend: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("serving {}", listener.local_addr().unwrap());
        let stack = HttpService::new(gateway(parts(), entry(backend)));
        let drain = Drain::default();
        let gone = drain.clone();
        let service = Serve::new(stack, Limits::default(), drain.clone());
        let service = tower::service_fn(move |accepted| {
            let (mut service, gone) = (service.clone(), gone.clone());
            async move {
                let served = tower::Service::call(&mut service, accepted).await;
                gone.signal();
                served
            }
        });
        serve_on(listener, ConnectionService::new(service), drain).await;
    });
}

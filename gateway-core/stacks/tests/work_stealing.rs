//! A work-stealing runtime serves the same stacks: what it must not do is gather connections that no thread finds again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::{backend, entry, exchange, parts};
use towpath_gateway_core::HttpService;
use towpath_server::{ConnectionService, Drain, Limits, Serve, serve_on};
use towpath_stacks::gateway;

const CLIENTS: usize = 8;
const REQUESTS: usize = 200;

#[test]
fn tasks_that_move_between_threads_share_one_pool() {
    let opened = Arc::new(AtomicUsize::new(0));
    let entry = entry(counting(backend(), Arc::clone(&opened)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let drain = Drain::default();
    let (address, serving) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Serve::new(HttpService::new(gateway(parts(), entry)), Limits::default(), drain.clone());
        (address, tokio::spawn(serve_on(listener, ConnectionService::new(service), drain.clone())))
    });
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(move || ask(address))).collect();
    for client in clients {
        client.join().unwrap();
    }
    let opened = opened.load(Ordering::Relaxed);
    assert!((1..=CLIENTS).contains(&opened), "{opened} connections for {CLIENTS} clients at a time");
    drain.signal();
    runtime.block_on(serving).unwrap();
}

fn ask(address: SocketAddr) {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    (0..REQUESTS).for_each(|_| exchange(&mut client));
}

/// Passes connections on to `backend` and counts them.
fn counting(backend: SocketAddr, opened: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            opened.fetch_add(1, Ordering::Relaxed);
            let (client, server) = (client.unwrap(), TcpStream::connect(backend).unwrap());
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    address
}

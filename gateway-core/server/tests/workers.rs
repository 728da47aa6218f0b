//! Workers, their listeners, and the bounds on connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{LOCAL, handler, hello};
use towpath_gateway_core::{Body, Response};
use towpath_server::{ConnectionService, Drain, Limits, Listening, Serve, Workers, bind};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn open(workers: &Workers, limits: Limits, drain: &Drain) -> Listening {
    let bound = bind(LOCAL, workers.count()).unwrap();
    let serving = drain.clone();
    let stack = move |_| ConnectionService::new(Serve::new(hello(), limits, serving.clone()));
    workers.open(bound, stack, &limits, drain).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

/// Sends a request; the body of the answer, or `None` if the server closed.
fn ask(client: &mut TcpStream) -> Option<String> {
    client.write_all(GET).ok()?;
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("hello") && !text.ends_with('!') {
        if client.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(char::from(byte[0]));
    }
    text.split("\r\n\r\n").nth(1).map(str::to_owned)
}

/// Waits for another thread, which signals by nothing but its effect.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never: {what}");
}

#[test]
fn the_factory_is_called_once_for_each_worker_on_its_own_thread() {
    let workers = Workers::start(3).unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, drain) = (Arc::clone(&calls), Drain::default());
    let serving = drain.clone();
    let stack = move |worker: usize| {
        let thread = std::thread::current();
        seen.lock().unwrap().push((worker, thread.name().unwrap().to_owned()));
        let name = thread.name().unwrap().to_owned();
        let service = handler(move |_| {
            let here = std::thread::current();
            assert_eq!(here.name(), Some(&*name), "a connection stays on its worker");
            let answer = format!("{name}!");
            async move { Ok(Response::new(Body::from(answer))) }
        });
        ConnectionService::new(Serve::new(service, Limits::edge(), serving.clone()))
    };
    let listening = workers.open(bind(LOCAL, 3).unwrap(), stack, &Limits::edge(), &drain).unwrap();
    let answers: HashSet<String> =
        (0..60).map(|_| ask(&mut connect(listening.local_addr())).expect("an answer")).collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    let mut calls = calls.lock().unwrap().clone();
    calls.sort();
    let expected: Vec<_> = (0..3).map(|n| (n, format!("worker-{n}"))).collect();
    assert_eq!(calls, expected);
    workers.shutdown();
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_rest_live_on() {
    let workers = Workers::start(2).unwrap();
    let limits = Limits { max_connections: 3, ..Limits::edge() };
    let drain = Drain::default();
    let listening = open(&workers, limits, &drain);
    // Another listener counts the same connections against a bound of its own.
    let admin = open(&workers, Limits { max_connections: 100, ..limits }, &drain);
    let mut clients: Vec<_> = (0..3).map(|_| connect(listening.local_addr())).collect();
    assert!(clients.iter_mut().all(|client| ask(client).is_some()));
    assert_eq!(workers.connections(), 3);
    assert_eq!(ask(&mut connect(listening.local_addr())), None);
    assert_eq!(ask(&mut connect(admin.local_addr())).as_deref(), Some("hello"));
    assert!(clients.iter_mut().all(|client| ask(client).is_some()));
    clients.pop();
    eventually("a place is free", || ask(&mut connect(listening.local_addr())).is_some());
    workers.shutdown();
}

#[test]
fn a_closed_listener_refuses_while_its_connections_live_on() {
    let workers = Workers::start(2).unwrap();
    let drain = Drain::default();
    let listening = open(&workers, Limits::edge(), &drain);
    let mut client = connect(listening.local_addr());
    assert!(ask(&mut client).is_some());
    listening.close();
    workers.handles().next().unwrap().block_on(listening.closed());
    assert!(TcpStream::connect(listening.local_addr()).is_err());
    assert_eq!(ask(&mut client).as_deref(), Some("hello"));
    assert!(bind(listening.local_addr(), 2).is_ok(), "the port is free");
    workers.shutdown();
}

#[test]
fn connections_in_the_queue_are_served_before_the_listener_closes() {
    let workers = Workers::start(1).unwrap();
    let drain = Drain::default();
    let listening = open(&workers, Limits::edge(), &drain);
    // The worker is kept from accepting until all clients wait and the listener is told to close.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (there, arrived) = std::sync::mpsc::channel();
    workers.handles().next().unwrap().spawn(async move {
        there.send(()).unwrap();
        wait.recv().unwrap();
    });
    arrived.recv().unwrap();
    let mut clients: Vec<_> = (0..50).map(|_| connect(listening.local_addr())).collect();
    listening.close();
    go.send(()).unwrap();
    assert!(clients.iter_mut().all(|client| ask(client).is_some()));
    workers.shutdown();
}

#[test]
fn a_drain_stops_all_workers_and_resolves() {
    let workers = Workers::start(2).unwrap();
    let drain = Drain::default();
    let listening = open(&workers, Limits::edge(), &drain);
    let mut clients: Vec<_> = (0..10).map(|_| connect(listening.local_addr())).collect();
    assert!(clients.iter_mut().all(|client| ask(client).is_some()));
    drain.signal();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(drain.drained()));
    runtime.block_on(listening.closed());
    assert!(TcpStream::connect(listening.local_addr()).is_err());
    workers.shutdown();
}

#[test]
fn a_port_that_workers_share_cannot_be_bound_a_second_time() {
    let workers = Workers::start(2).unwrap();
    let listening = open(&workers, Limits::edge(), &Drain::default());
    let error = bind(listening.local_addr(), 2).unwrap_err();
    assert!(error.to_string().contains("address already in use"), "{error}");
    workers.shutdown();
}

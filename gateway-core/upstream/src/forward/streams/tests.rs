use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower::ServiceExt;
use towpath_gateway_core::{Backend, Balance, Endpoint, Outcome};

use super::*;
use crate::{MESH_CONNECT_TIMEOUT, TcpConnector};

fn backend(addresses: &[SocketAddr]) -> (Context, Vec<Arc<Endpoint>>) {
    let endpoints: Vec<_> = addresses.iter().map(|at| Arc::new(Endpoint::plaintext(*at))).collect();
    let backend = Backend::new("shop/db:5432", Balance::RoundRobin, endpoints.clone());
    let context = Context::new();
    context.set_backend(Arc::new(backend)).unwrap();
    (context, endpoints)
}

fn carried(context: &Context, idle: Duration) -> (DuplexStream, JoinHandle<Result<(), Fault>>) {
    let forward = ForwardStreams::new(TcpConnector::new(MESH_CONNECT_TIMEOUT)).idle_timeout(idle);
    let (client, io) = duplex(1024);
    let flow = Flow { context: context.clone(), io: Box::new(io) as BoxIo };
    (client, tokio::spawn(forward.oneshot(flow)))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address at which nothing listens.
async fn closed() -> SocketAddr {
    listener().await.1
}

#[tokio::test]
async fn each_half_closes_on_its_own() {
    let (listener, address) = listener().await;
    let (context, endpoints) = backend(&[address]);
    let (mut client, carried) = carried(&context, IDLE_TIMEOUT);
    let (mut server, _) = listener.accept().await.unwrap();
    assert_eq!(endpoints[0].load.current(), 1);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut seen = String::new();
    server.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    seen.clear();
    client.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "answer");
    carried.await.unwrap().unwrap();
    assert_eq!(endpoints[0].load.current(), 0);
    assert_eq!(context.attempt().unwrap().connection().unwrap().peer, address);
}

#[tokio::test]
async fn another_endpoint_takes_the_flow_if_one_cannot_be_connected_to() {
    let (dead, (listener, alive)) = (closed().await, listener().await);
    for _ in 0..2 {
        let (context, _) = backend(&[dead, alive]);
        let _ = context.backend().unwrap().turn();
        let (_client, _carried) = carried(&context, IDLE_TIMEOUT);
        let _ = listener.accept().await.unwrap();
    }
    let (context, endpoints) = backend(&[dead, alive]);
    let (client, carried) = carried(&context, IDLE_TIMEOUT);
    drop((client, listener.accept().await.unwrap()));
    let _ = carried.await.unwrap();
    let outcomes: Vec<_> = context.attempts().iter().map(|a| a.outcome().map(|(o, _)| o)).collect();
    assert_eq!(outcomes, [Some(Outcome::Fault(Reason::ConnectFailed)), None]);
    assert!(endpoints.iter().all(|endpoint| endpoint.load.current() == 0));
}

#[tokio::test]
async fn a_flow_that_nothing_takes_is_closed_with_the_last_fault() {
    let (context, _) = backend(&[closed().await, closed().await]);
    let (mut client, carried) = carried(&context, IDLE_TIMEOUT);
    assert_eq!(carried.await.unwrap().unwrap_err().reason(), Reason::ConnectFailed);
    assert_eq!(context.attempt_count(), 2);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);

    let (context, _) = backend(&[]);
    assert_eq!(
        self::carried(&context, IDLE_TIMEOUT).1.await.unwrap().unwrap_err().reason(),
        Reason::NoEndpoint
    );
    let context = Context::new();
    context.set_backend(Arc::new(Backend::unresolved("shop/db:5432"))).unwrap();
    assert_eq!(
        self::carried(&context, IDLE_TIMEOUT).1.await.unwrap().unwrap_err().reason(),
        Reason::Unresolved
    );
    assert_eq!(
        self::carried(&Context::new(), IDLE_TIMEOUT).1.await.unwrap().unwrap_err().reason(),
        Reason::Internal
    );
}

#[tokio::test]
async fn it_is_told_which_side_broke() {
    let (listener, address) = listener().await;
    let (context, _) = backend(&[address]);
    let (mut client, carried) = carried(&context, IDLE_TIMEOUT);
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"unread").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    // Bytes that were not read make the close a reset.
    drop(server);
    assert_eq!(carried.await.unwrap().unwrap_err().reason(), Reason::UpstreamReset);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_flow_and_movement_on_either_side_keeps_it() {
    let (mut client, near) = duplex(64);
    let (mut server, far) = duplex(64);
    let idle = Duration::from_mins(1);
    let carried = tokio::spawn(carry(Box::new(near), Box::new(far), idle));
    for turn in 0..6 {
        let (one, other) =
            if turn % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
        tokio::time::sleep(Duration::from_secs(50)).await;
        one.write_all(b"x").await.unwrap();
        other.read_exact(&mut [0]).await.unwrap();
    }
    let quiet = tokio::time::Instant::now();
    assert_eq!(carried.await.unwrap().unwrap_err().reason(), Reason::ClientTimeout);
    assert_eq!(quiet.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn a_client_that_resets_is_gone() {
    let (listener, address) = listener().await;
    let (front, front_address) = self::listener().await;
    let (context, _) = backend(&[address]);
    let mut client = TcpStream::connect(front_address).await.unwrap();
    let (io, _) = front.accept().await.unwrap();
    let forward = ForwardStreams::new(TcpConnector::new(MESH_CONNECT_TIMEOUT));
    let carried = tokio::spawn(forward.oneshot(Flow { context, io: Box::new(io) as BoxIo }));
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"unread").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    drop(client);
    assert_eq!(carried.await.unwrap().unwrap_err().reason(), Reason::ClientGone);
}

use std::convert::Infallible;
use std::future::poll_fn;

use tokio::task::JoinHandle;
use tower::service_fn;
use towpath_gateway_core::BoxDatagrams;

use super::*;
use crate::Drain;
use crate::admission::OpenConnections;

struct Served {
    address: SocketAddr,
    open: OpenConnections,
    drain: Drain,
    running: JoinHandle<()>,
}

/// Answers each datagram with itself and the number of the datagram in its flow; `bye` ends a flow.
async fn serve(max: usize) -> Served {
    let service = DatagramService::new(service_fn(|mut flow: Flow<BoxDatagrams>| async move {
        let mut count = 0;
        while let Some(datagram) = poll_fn(|cx| flow.io.poll_recv(cx)).await {
            count += 1;
            flow.io.send(&[&datagram[..], format!(" {count}").as_bytes()].concat()).unwrap();
            if &datagram[..] == b"bye" {
                break;
            }
        }
        Ok::<_, Infallible>(())
    }));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, drain, open) = (socket.local_addr().unwrap(), Drain::default(), OpenConnections::default());
    let admission = Admission { open: open.clone(), max, drain: drain.clone() };
    let stop = drain.clone();
    let running = tokio::spawn(run(socket, service, admission, async move { stop.signalled().await }));
    Served { address, open, drain, running }
}

async fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn ask(client: &UdpSocket, text: &str) -> String {
    client.send(text.as_bytes()).await.unwrap();
    let mut room = [0; 64];
    let n = client.recv(&mut room).await.unwrap();
    String::from_utf8(room[..n].to_vec()).unwrap()
}

#[tokio::test]
async fn each_client_has_a_flow_and_begins_another_when_it_has_ended() {
    let served = serve(10).await;
    let (one, two) = (client(served.address).await, client(served.address).await);
    assert_eq!(ask(&one, "a").await, "a 1");
    assert_eq!(ask(&two, "b").await, "b 1");
    assert_eq!(ask(&one, "bye").await, "bye 2");
    assert_eq!(ask(&two, "c").await, "c 2");
    assert_eq!(ask(&one, "d").await, "d 1");
    assert_eq!(served.open.count(), 2);
}

#[tokio::test]
async fn beyond_the_limit_clients_are_not_heard_until_a_place_is_free() {
    let served = serve(1).await;
    let (one, two) = (client(served.address).await, client(served.address).await);
    assert_eq!(ask(&one, "a").await, "a 1");
    two.send(b"lost").await.unwrap();
    assert_eq!(ask(&one, "bye").await, "bye 2");
    while served.open.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&two, "b").await, "b 1");
}

#[tokio::test]
async fn a_drain_takes_no_new_clients_and_waits_a_moment_for_the_others() {
    let served = serve(10).await;
    let (known, stranger) = (client(served.address).await, client(served.address).await);
    assert_eq!(ask(&known, "a").await, "a 1");
    served.drain.signal();
    tokio::task::yield_now().await;
    stranger.send(b"late").await.unwrap();
    assert_eq!(ask(&known, "b").await, "b 2");
    served.running.await.unwrap();
    assert!(served.drain.drained().await);
    assert!(stranger.try_recv(&mut [0; 8]).is_err());
}

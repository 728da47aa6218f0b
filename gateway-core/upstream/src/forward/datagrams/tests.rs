use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use towpath_gateway_core::{Backend, Balance, Context, Datagrams, Endpoint};

use super::*;

struct Client(mpsc::UnboundedReceiver<Bytes>, Arc<Mutex<Vec<Vec<u8>>>>);

impl Datagrams for Client {
    fn poll_recv(&mut self, cx: &mut Task<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.1.lock().unwrap().push(datagram.to_vec());
        Ok(())
    }
}

type Sent = (mpsc::UnboundedSender<Bytes>, Arc<Mutex<Vec<Vec<u8>>>>, JoinHandle<Result<(), Fault>>);

fn carried(address: SocketAddr, idle: Duration) -> Sent {
    let backend =
        Backend::new("dns/dns:53", Balance::RoundRobin, vec![Arc::new(Endpoint::plaintext(address))]);
    let context = Context::new();
    context.set_backend(Arc::new(backend)).unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    let answers = Arc::default();
    let io = Box::new(Client(receiver, Arc::clone(&answers))) as BoxDatagrams;
    let forward = ForwardDatagrams::new().idle_timeout(idle);
    (sender, answers, tokio::spawn(forward.oneshot(Flow { context, io })))
}

#[tokio::test]
async fn datagrams_keep_their_bounds_both_ways_until_silence() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (client, answers, carried) = carried(server.local_addr().unwrap(), Duration::from_millis(200));
    client.send(Bytes::from_static(b"one")).unwrap();
    client.send(Bytes::from_static(b"")).unwrap();
    client.send(Bytes::from(vec![7; 9000])).unwrap();
    let mut room = vec![0; LARGEST];
    for length in [3, 0, 9000] {
        let (n, from) = server.recv_from(&mut room).await.unwrap();
        assert_eq!(n, length);
        server.send_to(&room[..n], from).await.unwrap();
    }
    carried.await.unwrap().unwrap();
    let lengths: Vec<_> = answers.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(lengths, [3, 0, 9000]);
}

#[tokio::test]
async fn strangers_cannot_answer() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (client, answers, carried) = carried(server.local_addr().unwrap(), Duration::from_millis(200));
    client.send(Bytes::from_static(b"q")).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).await.unwrap();
    stranger.send_to(b"forged", ("127.0.0.1", from.port())).await.unwrap();
    server.send_to(b"true", ("127.0.0.1", from.port())).await.unwrap();
    carried.await.unwrap().unwrap();
    assert_eq!(*answers.lock().unwrap(), [b"true".to_vec()]);
}

#[tokio::test]
async fn a_port_at_which_nothing_listens_ends_the_flow() {
    let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (client, _, carried) = carried(address, IDLE_TIMEOUT);
    client.send(Bytes::from_static(b"q")).unwrap();
    assert_eq!(carried.await.unwrap().unwrap_err().reason(), Reason::ConnectFailed);
}

#[tokio::test]
async fn a_flow_ends_with_its_client() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (client, _, carried) = carried(server.local_addr().unwrap(), IDLE_TIMEOUT);
    drop(client);
    carried.await.unwrap().unwrap();
}

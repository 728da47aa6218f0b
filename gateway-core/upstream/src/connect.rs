//! The innermost connector: TCP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;
use towpath_gateway_core::{Connected, Connection, Destination, Fault, Reason};

/// How long a connection to a neighbour in the mesh may take (the value of Linkerd's outbound proxy).
pub const MESH_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection across networks may take (Envoy's default).
pub const EDGE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens TCP connections, with `TCP_NODELAY` set.
///
/// A refused connection ends as `ConnectFailed`, one that is not made in time as `ConnectTimeout`. Layers that protect
/// the bytes go around it.
#[derive(Debug, Clone, Copy)]
pub struct TcpConnector {
    limit: Duration,
}

impl TcpConnector {
    /// Gives up on a connection after `limit`: [`MESH_CONNECT_TIMEOUT`], [`EDGE_CONNECT_TIMEOUT`] or another.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl Service<Destination> for TcpConnector {
    type Response = Connected;
    type Error = Fault;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Destination) -> ConnectFuture {
        ConnectFuture(Box::pin(connect(destination.endpoint.address, self.limit)))
    }
}

/// A connection that is being opened.
pub struct ConnectFuture(Pin<Box<dyn Future<Output = Result<Connected, Fault>> + Send>>);

impl Future for ConnectFuture {
    type Output = Result<Connected, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> Result<Connected, Fault> {
    match timeout(limit, open(address)).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) => {
            Err(Fault::new(Reason::ConnectFailed).with_detail(address.to_string()).with_source(error))
        }
        Err(_) => Err(Fault::new(Reason::ConnectTimeout).with_detail(format!("{address} within {limit:?}"))),
    }
}

async fn open(address: SocketAddr) -> io::Result<Connected> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connection = Connection::plaintext(stream.peer_addr()?, stream.local_addr()?);
    Ok(Connected { io: Box::new(stream), connection: Arc::new(connection) })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tower::ServiceExt;
    use towpath_gateway_core::{Endpoint, Protocol};

    use super::*;

    fn to(address: SocketAddr) -> Destination {
        Destination { endpoint: Arc::new(Endpoint::plaintext(address)), protocol: Protocol::Http1 }
    }

    #[tokio::test]
    async fn a_connection_knows_both_of_its_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connected = TcpConnector::new(EDGE_CONNECT_TIMEOUT).oneshot(to(address)).await.unwrap();
        let (_, client) = listener.accept().await.unwrap();
        assert_eq!((connected.connection.peer, connected.connection.local), (address, client));
        assert!(connected.connection.tls.is_none());
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_address() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let fault = TcpConnector::new(EDGE_CONNECT_TIMEOUT).oneshot(to(address)).await.err().unwrap();
        assert_eq!(fault.reason(), Reason::ConnectFailed);
        assert!(fault.detail().contains(&address.to_string()), "{fault}");
    }

    #[tokio::test]
    async fn a_connection_that_is_not_made_in_time_is_given_up() {
        // A listener whose queue is full neither accepts nor refuses.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut kept = Vec::new();
        let fault = loop {
            match TcpConnector::new(Duration::from_millis(100)).oneshot(to(address)).await {
                Ok(connected) => kept.push(connected),
                Err(fault) => break fault,
            }
            assert!(kept.len() < 100, "the queue never filled");
        };
        assert_eq!(fault.reason(), Reason::ConnectTimeout);
        assert!(fault.detail().contains(&address.to_string()), "{fault}");
    }
}

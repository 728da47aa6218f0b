//! Connections that the kernel redirected here, and where they were for.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::accept::Accept;

/// Tells of each connection the address that its client meant, in place of ours.
pub(crate) struct Redirected(TcpListener);

impl Redirected {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Accept for Redirected {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr, SocketAddr)> {
        let (stream, peer, local) = Accept::accept(&mut self.0).await?;
        match meant(&stream, local) {
            // Who connects to us means us: to hand it on to where it was for would be to connect to ourselves, for ever.
            Some(meant) if meant != local => Ok((stream, peer, meant)),
            _ => {
                tracing::debug!(%peer, %local, "closed a connection that was not redirected");
                // An error of this connection, not of the listener.
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn meant(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let meant = found.ok()?.as_socket()?;
    // Zones and labels of IPv6 flows are none of ours.
    Some(SocketAddr::new(meant.ip(), meant.port()))
}

#[cfg(not(target_os = "linux"))]
fn meant(_: &TcpStream, _: SocketAddr) -> Option<SocketAddr> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_means_us_is_turned_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let mut redirected = Redirected::new(listener);
        let (client, accepted) = tokio::join!(client, redirected.accept());
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::NotConnected);
        let mut client = client.unwrap();
        let ended = tokio::io::AsyncReadExt::read(&mut client, &mut [0; 8]).await;
        assert_eq!(ended.unwrap(), 0, "the connection is closed, not left open");
    }
}

//! A relay on the edge leg that sees every byte: it counts them and looks for a marker and for TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A secret word that the checks put into requests and look for on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Marker(Arc<[u8]>);

impl Marker {
    /// A word that no other run uses.
    pub(crate) fn random() -> Self {
        let word: String = std::iter::repeat_with(fastrand::alphanumeric).take(32).collect();
        Self(word.into_bytes().into())
    }

    /// The word as text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What the relay saw so far.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    marker: Marker,
    found: AtomicBool,
    client_hellos: AtomicU64,
    connections: AtomicU64,
    bytes: AtomicU64,
}

impl Recorder {
    /// Listens at `listen` and passes every connection on to `target`.
    pub(crate) async fn start(listen: SocketAddr, target: SocketAddr, marker: Marker) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let zero = || AtomicU64::new(0);
        let seen = Seen {
            marker,
            found: AtomicBool::new(false),
            client_hellos: zero(),
            connections: zero(),
            bytes: zero(),
        };
        let recorder = Self(Arc::new(seen));
        let accepting = recorder.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().relay(client, target));
            }
        });
        Ok(recorder)
    }

    /// Whether the marker passed in the clear.
    pub(crate) fn found_marker(&self) -> bool {
        self.0.found.load(Ordering::Acquire)
    }

    /// Connections that began with a TLS `ClientHello`.
    pub(crate) fn client_hellos(&self) -> u64 {
        self.0.client_hellos.load(Ordering::Acquire)
    }

    /// Connections in all.
    pub(crate) fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::Acquire)
    }

    /// Bytes both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    async fn relay(self, client: TcpStream, target: SocketAddr) {
        let Ok(server) = TcpStream::connect(target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        self.0.connections.fetch_add(1, Ordering::AcqRel);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let up = self.copy(from_client, to_server, true);
        let down = self.copy(from_server, to_client, false);
        // A side that broke ends the whole connection, as a wire would.
        let _ = tokio::try_join!(up, down);
    }

    async fn copy(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        first_side: bool,
    ) -> io::Result<()> {
        let mut scan = Scan::new(self.0.marker.clone());
        let mut buffer = vec![0; 64 * 1024];
        let mut fresh = first_side;
        loop {
            let n = from.read(&mut buffer).await?;
            let seen = buffer.get(..n).unwrap_or_default();
            if n == 0 {
                return to.shutdown().await;
            }
            // A TLS record of type handshake (22) that holds a ClientHello (RFC 8446 section 5.1).
            if std::mem::take(&mut fresh) && seen.starts_with(&[22, 3]) {
                self.0.client_hellos.fetch_add(1, Ordering::AcqRel);
            }
            self.0.bytes.fetch_add(n as u64, Ordering::AcqRel);
            if scan.sees(seen) {
                self.0.found.store(true, Ordering::Release);
            }
            to.write_all(seen).await?;
        }
    }
}

/// Looks for the marker in a stream, across the borders of reads.
struct Scan {
    marker: Marker,
    tail: Vec<u8>,
}

impl Scan {
    fn new(marker: Marker) -> Self {
        Self { marker, tail: Vec::new() }
    }

    fn sees(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        let length = self.marker.0.len();
        let found = self.tail.windows(length).any(|window| *window == *self.marker.0);
        let keep = self.tail.len().saturating_sub(length.saturating_sub(1));
        self.tail.drain(..keep);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_cut_in_two_is_found() {
        let marker = Marker::random();
        let (head, tail) = marker.as_str().split_at(10);
        let mut scan = Scan::new(marker.clone());
        assert!(!scan.sees(format!("xx{head}").as_bytes()));
        assert!(scan.sees(format!("{tail}yy").as_bytes()));
        assert!(!scan.sees(b"zz"));
    }

    #[tokio::test]
    async fn the_relay_passes_bytes_on_and_sees_them() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let marker = Marker::random();
        let recorder = Recorder::start(free, target, marker.clone()).await.unwrap();
        let mut client = TcpStream::connect(free).await.unwrap();
        client.write_all(marker.as_str().as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        let mut got = String::new();
        accepted.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, marker.as_str());
        assert!(recorder.found_marker());
        assert_eq!((recorder.bytes(), recorder.client_hellos()), (32, 0));
    }
}

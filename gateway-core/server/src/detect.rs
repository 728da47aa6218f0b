//! Tells connections that carry HTTP from those that carry something else.
//!
//! - **reads** ALPN in `connection.tls`; where that settles nothing, the first bytes, for a limited time
//! - **writes** nothing; what was read is put back
//! - **ends a connection** that ends before it sent anything, and one that begins HTTP later than it may
//! - **settings** the time that a client has to show what it speaks
//! - **place** on the accept stack, inside whatever ends TLS; two services are behind it

use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxIo, Connection, Prefixed};

use crate::first_line::{LONGEST, Shown, shows};
use crate::sniff::agreed;
use crate::watched::Watched;

/// Enough for most methods, and the beginning of a target.
const ROOM: usize = 32;

/// Hands a connection to one of two services: to `http` if it begins as HTTP/1 or HTTP/2 does, to `opaque` if not. A client
/// that waits for the server to speak first, as with SMTP, is opaque once it was silent for the time that it has; if it comes
/// to speak HTTP then, and the server has said nothing, the connection ends before a request went through.
#[derive(Debug, Clone)]
pub struct Detect<H, O> {
    http: H,
    opaque: O,
    limit: Duration,
}

impl<H, O> Detect<H, O> {
    /// How long a client may take to show what it speaks. Clients of HTTP that open connections ahead of need, and use them later, open others.
    pub const LIMIT: Duration = Duration::from_secs(5);

    /// Waits for what a client speaks for [`Detect::LIMIT`].
    pub fn new(http: H, opaque: O) -> Self {
        Self { http, opaque, limit: Self::LIMIT }
    }
}

impl<H, O> Service<Accepted> for Detect<H, O>
where
    H: Service<Accepted, Response = ()> + Clone + Send + 'static,
    O: Service<Accepted, Response = (), Error = H::Error> + Clone + Send + 'static,
    H::Future: Send,
    O::Future: Send,
    H::Error: Send,
{
    type Response = ();
    type Error = H::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), H::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), H::Error>> {
        std::task::ready!(self.http.poll_ready(cx))?;
        self.opaque.poll_ready(cx)
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        let fresh = self.clone();
        let mut ready = std::mem::replace(self, fresh);
        Box::pin(async move {
            let Accepted { mut io, connection } = accepted;
            // Reading has a box of its own, which is not kept while the connection lives.
            let first = match Box::pin(look(&mut io, &connection, ready.limit)).await {
                Ok(first) => first,
                Err(error) => {
                    tracing::debug!(peer = %connection.peer, %error, "the connection broke off before it showed what it is");
                    return Ok(());
                }
            };
            let (shown, io): (_, BoxIo) = match first {
                First::Nothing => return Ok(()),
                First::Shown(shown, bytes) => (shown, Box::new(Prefixed::new(bytes, io))),
                First::Unsettled(bytes) => {
                    let io = Watched::new(bytes.clone(), io);
                    (Shown::Opaque, Box::new(Prefixed::new(bytes, io)))
                }
            };
            let accepted = Accepted { io, connection };
            match shown {
                Shown::Http => ready.http.call(accepted).await,
                Shown::Opaque => ready.opaque.call(accepted).await,
            }
        })
    }
}

/// What the first bytes say, and the bytes.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// The connection ended before a byte came.
    Nothing,
    Shown(Shown, Vec<u8>),
    /// The client was silent for too long for HTTP, and may yet come to it.
    Unsettled(Vec<u8>),
}

async fn look(
    io: &mut (impl AsyncRead + Unpin),
    connection: &Connection,
    limit: Duration,
) -> io::Result<First> {
    if agreed(connection.tls.as_ref()).is_some() {
        return Ok(First::Shown(Shown::Http, Vec::new()));
    }
    let mut seen = Vec::with_capacity(ROOM);
    let reading = async {
        loop {
            let missing = LONGEST.saturating_sub(seen.len());
            let ended = io.take(missing as u64).read_buf(&mut seen).await? == 0;
            match shows(&seen) {
                Some(shown) => return Ok(Some(shown)),
                None if ended && seen.is_empty() => return Ok(None),
                None if ended => return Ok(Some(Shown::Opaque)),
                None => {}
            }
        }
    };
    match timeout(limit, reading).await {
        Ok(shown) => shown.map(|shown| shown.map_or(First::Nothing, |shown| First::Shown(shown, seen))),
        Err(_) => Ok(First::Unsettled(seen)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// Which service was called, and with what bytes.
    async fn served(bytes: &'static [u8], late: Option<&'static [u8]>) -> Vec<(&'static str, Vec<u8>)> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let service = |name: &'static str| {
            let seen = Arc::clone(&seen);
            service_fn(move |mut accepted: Accepted| {
                let seen = Arc::clone(&seen);
                async move {
                    let mut all = Vec::new();
                    let name = if accepted.io.read_buf(&mut all).await.is_ok() { name } else { "cut" };
                    seen.lock().unwrap().push((name, all));
                    Ok::<_, Infallible>(())
                }
            })
        };
        let (mut client, io) = duplex(1024);
        client.write_all(bytes).await.unwrap();
        let at = "127.0.0.1:1".parse().unwrap();
        let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(at, at) };
        let detect = Detect::new(service("http"), service("opaque"));
        let answer = async move {
            detect.oneshot(accepted).await.unwrap();
        };
        if let Some(late) = late {
            let greet = async {
                tokio::time::sleep(Duration::from_secs(6)).await;
                let _ = client.write_all(late).await;
            };
            tokio::join!(answer, greet);
        } else {
            drop(client);
            answer.await;
        }
        Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_goes_its_way_with_all_its_bytes() {
        assert_eq!(served(b"GET / HTTP/1.1\r\n", None).await, [("http", b"GET / HTTP/1.1\r\n".to_vec())]);
        assert_eq!(served(b"\0\x01", None).await, [("opaque", b"\0\x01".to_vec())]);
        assert_eq!(served(b"GE", None).await, [("opaque", b"GE".to_vec())]);
        assert_eq!(served(b"", None).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_server_is_opaque_in_time() {
        let begun = Instant::now();
        assert_eq!(served(b"", Some(b"late")).await, [("opaque", b"late".to_vec())]);
        assert!(begun.elapsed() < Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn http_that_begins_late_does_not_pass_for_something_else() {
        assert_eq!(served(b"", Some(b"GET /admin HTTP/1.1\r\n")).await, [("cut", Vec::new())]);
        assert_eq!(served(b"\r\n", Some(b"GET /admin HTTP/1.1\r\n")).await, [("opaque", b"\r\n".to_vec())]);
        assert_eq!(served(b"get", Some(b" /admin HTTP/1.1\r\n")).await, [("opaque", b"get".to_vec())]);
    }
}

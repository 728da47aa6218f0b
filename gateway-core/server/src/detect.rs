//! Tells connections that carry HTTP from those that carry something else.
//!
//! - **reads** ALPN in `connection.tls`; where that settles nothing, the first bytes, for a limited time
//! - **writes** nothing; what was read is put back
//! - **ends a connection** that ends before it sent anything
//! - **settings** the time that a client has to send its first byte
//! - **place** on the accept stack, inside whatever ends TLS; two services are behind it

use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use tower_service::Service;
use towpath_gateway_core::{Accepted, Connection, Prefixed};

use crate::sniff::agreed;

/// Longer than any method of HTTP that there is (`UPDATEREDIRECTREF`, RFC 4437).
const ROOM: usize = 24;

/// Hands a connection to one of two services: to `http` if it begins as HTTP/1 or HTTP/2 does, to `opaque` if not. A client
/// that waits for the server to speak first, as with SMTP, is opaque once it was silent for the time that it has.
#[derive(Debug, Clone)]
pub struct Detect<H, O> {
    http: H,
    opaque: O,
    limit: Duration,
}

impl<H, O> Detect<H, O> {
    /// How long a client may be silent. Shorter than clients of HTTP keep connections open ahead of need makes those opaque.
    pub const LIMIT: Duration = Duration::from_secs(5);

    /// Waits for the first byte of a client for [`Detect::LIMIT`].
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
            let (shown, bytes) = match Box::pin(look(&mut io, &connection, ready.limit)).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::debug!(peer = %connection.peer, %error, "the connection broke off before it showed what it is");
                    return Ok(());
                }
            };
            let accepted = Accepted { io: Box::new(Prefixed::new(bytes, io)), connection };
            match shown {
                Shown::Http => ready.http.call(accepted).await,
                Shown::Opaque => ready.opaque.call(accepted).await,
            }
        })
    }
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Http,
    Opaque,
}

/// `None` if the connection ended before a byte came.
async fn look(
    io: &mut (impl AsyncRead + Unpin),
    connection: &Connection,
    limit: Duration,
) -> io::Result<Option<(Shown, Vec<u8>)>> {
    if agreed(connection.tls.as_ref()).is_some() {
        return Ok(Some((Shown::Http, Vec::new())));
    }
    let mut seen = Vec::with_capacity(ROOM);
    let reading = async {
        loop {
            let missing = ROOM - seen.len();
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
        Ok(shown) => shown.map(|shown| shown.map(|shown| (shown, seen))),
        Err(_) => Ok(Some((Shown::Opaque, seen))),
    }
}

/// The verdict on the bytes so far: a method, a space and the first character of a target (RFC 9112 section 3), which the
/// preface of HTTP/2 has, too. `None` while they may still become that.
fn shows(seen: &[u8]) -> Option<Shown> {
    let method =
        seen.iter().take_while(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')).count();
    match seen.get(method..).unwrap_or_default() {
        [] if seen.len() < ROOM => None,
        [b' '] if method > 0 => None,
        // Origin form, asterisk form, and absolute form; the authority form of CONNECT.
        [b' ', b'/' | b'*' | b'h' | b'H', ..] if method > 0 => Some(Shown::Http),
        [b' ', ..] if seen.starts_with(b"CONNECT ") => Some(Shown::Http),
        _ => Some(Shown::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn a_method_and_a_target_are_http() {
        for (bytes, shown) in [
            (&b""[..], None),
            (b"GET", None),
            (b"GET ", None),
            (b"GET /", Some(Shown::Http)),
            (b"OPTIONS * HTTP/1.1", Some(Shown::Http)),
            (b"GET http://a/", Some(Shown::Http)),
            (b"M-SEARCH *", Some(Shown::Http)),
            (b"CONNECT a:1", Some(Shown::Http)),
            (b"PRI * HTTP/2.0", Some(Shown::Http)),
            (b"get /", Some(Shown::Opaque)),
            (b" /", Some(Shown::Opaque)),
            (b"PING\r\n", Some(Shown::Opaque)),
            (b"EHLO a.example", Some(Shown::Opaque)),
            (b"SSH-2.0-a", Some(Shown::Opaque)),
            (b"\x16\x03\x01", Some(Shown::Opaque)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWX", Some(Shown::Opaque)),
        ] {
            assert_eq!(shows(bytes), shown, "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(bytes in "[A-C /*h\r-]{0,24}", at in 0_usize..24) {
            let early = shows(bytes.as_bytes().get(..at).unwrap_or(bytes.as_bytes()));
            prop_assert!(early.is_none() || early == shows(bytes.as_bytes()));
        }
    }

    /// Which service was called, and with what bytes.
    async fn served(bytes: &'static [u8], ends: bool) -> Vec<(&'static str, Vec<u8>)> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let service = |name: &'static str| {
            let seen = Arc::clone(&seen);
            service_fn(move |mut accepted: Accepted| {
                let seen = Arc::clone(&seen);
                async move {
                    let mut all = Vec::new();
                    accepted.io.read_buf(&mut all).await.unwrap();
                    seen.lock().unwrap().push((name, all));
                    Ok::<_, Infallible>(())
                }
            })
        };
        let (mut client, io) = duplex(1024);
        client.write_all(bytes).await.unwrap();
        let client = (!ends).then_some(client);
        let at = "127.0.0.1:1".parse().unwrap();
        let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(at, at) };
        let detect = Detect::new(service("http"), service("opaque"));
        let answer = async move {
            detect.oneshot(accepted).await.unwrap();
        };
        if let Some(mut client) = client {
            let greet = async {
                tokio::time::sleep(Duration::from_secs(6)).await;
                client.write_all(b"late").await.unwrap();
            };
            tokio::join!(answer, greet);
        } else {
            answer.await;
        }
        Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_goes_its_way_with_all_its_bytes() {
        assert_eq!(served(b"GET / HTTP/1.1\r\n", true).await, [("http", b"GET / HTTP/1.1\r\n".to_vec())]);
        assert_eq!(served(b"\0\x01", true).await, [("opaque", b"\0\x01".to_vec())]);
        assert_eq!(served(b"GE", true).await, [("opaque", b"GE".to_vec())]);
        assert_eq!(served(b"", true).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_server_is_opaque_in_time() {
        let begun = Instant::now();
        assert_eq!(served(b"", false).await, [("opaque", b"late".to_vec())]);
        assert!(begun.elapsed() < Duration::from_secs(7));
    }
}

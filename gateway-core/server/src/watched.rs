//! A stream that was taken for opaque before it showed what it is.

use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::first_line::{Shown, shows};

/// Ends the stream where it turns out to be HTTP after all, before its request line is whole. A server that
/// speaks first is none of HTTP, and from its first byte on nothing is looked at.
pub(crate) struct Watched<T> {
    inner: T,
    /// What came so far; `None` once it is settled.
    seen: Option<Vec<u8>>,
}

impl<T> Watched<T> {
    /// `seen` came before, and goes on as well.
    pub(crate) fn new(seen: Vec<u8>, inner: T) -> Self {
        Self { inner, seen: Some(seen) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if let Some(seen) = &mut this.seen {
            seen.extend_from_slice(buf.filled().get(before..).unwrap_or_default());
            match shows(seen) {
                None => {}
                Some(Shown::Opaque) => this.seen = None,
                Some(Shown::Http) => {
                    buf.set_filled(before);
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "HTTP began after the connection was taken for one without",
                    )));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.seen = None;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen = None;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What goes through, and whether it ended well, where the server says `greeting` first.
    async fn through(seen: &[u8], greeting: &[u8], pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut client, io) = duplex(1024);
        let mut watched = Watched::new(seen.to_vec(), io);
        watched.write_all(greeting).await.unwrap();
        let mut all = Vec::new();
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            if watched.read_buf(&mut all).await.is_err() {
                return (all, false);
            }
        }
        (all, true)
    }

    #[tokio::test]
    async fn a_request_line_does_not_go_through_whole() {
        for (seen, greeting, pieces, whole, good) in [
            (&b""[..], &b""[..], &[&b"GET / HTTP/1.1\r\n"[..]][..], &b""[..], false),
            (b"G", b"", &[b"ET /admin HTTP/1.1\r\n"], b"", false),
            (b"", b"", &[b"ge", b"t ", b"/a HTTP/1.1\r\n"], b"get ", false),
            (b"", b"", &[b"ping", b" a\r\n", b"GET / HTTP/1.1\r\n"], b"ping a\r\nGET / HTTP/1.1\r\n", true),
            (b"", b"", &[b"\0", b"GET / HTTP/1.1\r\n"], b"\0GET / HTTP/1.1\r\n", true),
            (b"", b"220 hello\r\n", &[b"GET / HTTP/1.1\r\n"], b"GET / HTTP/1.1\r\n", true),
        ] {
            assert_eq!(through(seen, greeting, pieces).await, (whole.to_vec(), good), "{pieces:?}");
        }
    }
}

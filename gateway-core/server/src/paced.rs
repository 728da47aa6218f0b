//! The byte stream of a connection under HTTP: it notes progress, and holds the drain back while it lives (also as a
//! tunnel, after an upgrade).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::DrainGuard;
use crate::pace::{Framing, Pace};

const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Notes every read and write in a [`Pace`]. Bytes can be put back in front of it, to be read again.
pub(crate) struct Paced<T> {
    prefix: Bytes,
    inner: T,
    pace: Arc<Pace>,
    _guard: DrainGuard,
}

impl<T> Paced<T> {
    /// `prefix` is read first, then what `inner` still has.
    pub(crate) fn new(prefix: Bytes, inner: T, pace: Arc<Pace>, guard: DrainGuard) -> Self {
        Self { prefix, inner, pace, _guard: guard }
    }

    /// Puts bytes that were the last ones read back in front.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.prefix = match (bytes.is_empty(), self.prefix.is_empty()) {
            (true, _) => return,
            (false, true) => bytes,
            (false, false) => [bytes, std::mem::take(&mut self.prefix)].concat().into(),
        };
    }

    fn note<V>(&self, written: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        if written.is_pending() {
            self.pace.blocks();
        } else {
            self.pace.flows();
        }
        written
    }
}

impl<T: AsyncWrite + Unpin> Paced<T> {
    // One attempt, no waiting. A client that sent nothing gets nothing: it might take this for the answer to a request
    // that it is just sending.
    fn refuse(&mut self, cx: &mut Task<'_>) -> io::Error {
        if self.pace.framing() == Framing::H1 && self.pace.spoke() {
            let _ = Pin::new(&mut self.inner).poll_write(cx, TIMED_OUT);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        io::Error::new(io::ErrorKind::TimedOut, "the request head did not arrive in time")
    }
}

impl<T: AsyncRead + Unpin> Paced<T> {
    fn poll_bytes(&mut self, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let bytes = self.prefix.split_to(self.prefix.len().min(buf.remaining()));
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pace.is_timed_out() {
            return Poll::Ready(Err(self.refuse(cx)));
        }
        let before = buf.filled().len();
        let read = self.poll_bytes(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.pace.read(bytes);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.note(closed)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

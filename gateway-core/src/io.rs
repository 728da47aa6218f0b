//! Byte streams as the accept stack and the connect stack pass them on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Connection, Endpoint, Protocol};

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A byte stream whose kind no longer matters.
pub type BoxIo = Box<dyn Io>;

/// A connection on its way in. The accept stack is a tower stack of `Service<Accepted, Response = ()>`:
/// each layer may read and answer bytes, wrap the stream, or add to the facts, and hands it on.
pub struct Accepted {
    /// The byte stream, positioned at the first byte that the next layer has to see.
    pub io: BoxIo,
    /// What is known of the connection so far.
    pub connection: Connection,
}

/// What a connection is wanted for. The connect stack is a tower stack of
/// `Service<Destination, Response = Connected, Error = Fault>`.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Where to, and who must answer.
    pub endpoint: Arc<Endpoint>,
    /// How requests will be framed on it. Under TLS this is the one application protocol offered.
    pub protocol: Protocol,
}

/// A connection on its way out.
pub struct Connected {
    /// The byte stream, ready for the first byte of the request.
    pub io: BoxIo,
    /// What was established about the other side.
    pub connection: Arc<Connection>,
}

/// A stream with bytes that were already read from it put back in front.
#[derive(Debug)]
pub struct Prefixed<T> {
    prefix: Bytes,
    inner: T,
}

impl<T> Prefixed<T> {
    /// `prefix` is read first, then what `inner` still has.
    pub fn new(prefix: impl Into<Bytes>, inner: T) -> Self {
        Self { prefix: prefix.into(), inner }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(self.prefix.get(..n).unwrap_or_default());
        self.prefix.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

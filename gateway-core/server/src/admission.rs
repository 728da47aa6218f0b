//! How many connections are open, and what each of them holds while it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Drain, DrainGuard};

/// The connections that are open, over all listeners that share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenConnections(Arc<AtomicUsize>);

impl OpenConnections {
    /// Counts one more, unless `max` are open.
    pub(crate) fn admit(&self, max: usize) -> Option<Permit> {
        if self.0.fetch_add(1, Ordering::Relaxed) < max {
            return Some(Permit(Arc::clone(&self.0)));
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
        None
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One connection in the count.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An admitted byte stream. Wherever it ends up, it counts until it is dropped.
pub(crate) struct Admitted<T> {
    inner: T,
    _permit: Permit,
    _guard: DrainGuard,
}

impl<T> Admitted<T> {
    pub(crate) fn new(inner: T, permit: Permit, drain: &Drain) -> Self {
        Self { inner, _permit: permit, _guard: drain.guard() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Admitted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Admitted<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let open = OpenConnections::default();
        let (first, _second) = (open.admit(2).unwrap(), open.admit(2).unwrap());
        assert!(open.admit(2).is_none());
        assert_eq!(open.count(), 2, "a refused one does not count");
        assert!(open.admit(3).is_some(), "another listener may have a higher bound");
        drop(first);
        assert!(open.admit(2).is_some());
    }
}

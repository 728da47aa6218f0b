//! A stream that notes when bytes last moved on it, and on which side it broke.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// When something last moved.
#[derive(Debug, Clone)]
pub(super) struct Movement(Arc<Moment>);

#[derive(Debug)]
struct Moment {
    start: Instant,
    /// Milliseconds since then.
    last: AtomicU64,
}

impl Movement {
    /// It moved now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Moment { start: Instant::now(), last: AtomicU64::new(0) }))
    }

    pub(super) fn note(&self) {
        let since = self.0.start.elapsed().as_millis();
        self.0.last.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Resolves when nothing has moved for `limit`.
    pub(super) async fn ceased(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
            let Some(due) = self.0.start.checked_add(last.saturating_add(limit)) else {
                return std::future::pending().await;
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// One side of a forwarded connection.
pub(super) struct Watched<T> {
    inner: T,
    movement: Movement,
    broken: Arc<AtomicBool>,
}

impl<T> Watched<T> {
    /// `broken` is set when this side fails.
    pub(super) fn new(inner: T, movement: Movement, broken: Arc<AtomicBool>) -> Self {
        Self { inner, movement, broken }
    }

    fn seen<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match &result {
            Poll::Ready(Ok(_)) => self.movement.note(),
            Poll::Ready(Err(_)) => self.broken.store(true, Ordering::Relaxed),
            Poll::Pending => {}
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.seen(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.seen(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        // A flush of nothing succeeds at once: it is no movement.
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Awaits `work` unless `movement` ceases first; `None` then.
pub(super) async fn while_moving<F: Future>(
    work: F,
    movement: &Movement,
    limit: Duration,
) -> Option<F::Output> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = movement.ceased(limit) => None,
    }
}

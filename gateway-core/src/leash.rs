//! Streams that can be ended from outside, by whoever handed them on: also those that outlive what served them, such as
//! upgraded connections.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::BoxIo;

/// The hold on a stream that was handed on.
#[derive(Debug)]
pub struct Leash {
    shared: Arc<Shared>,
    /// Ends when the stream is dropped.
    held: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Leash {
    /// The stream as it is to be handed on, and the hold on it.
    pub fn on(io: BoxIo) -> (BoxIo, Self) {
        let (holds, held) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        (Box::new(Held { io, shared: Arc::clone(&shared), _holds: holds }), Self { shared, held })
    }

    /// For when what served the stream has ended: if the stream lives on, it lives until `end` resolves. Its reads and writes
    /// fail from then on.
    pub fn until(mut self, end: impl Future<Output = ()> + Send + 'static) {
        if matches!(self.held.try_recv(), Err(oneshot::error::TryRecvError::Closed)) {
            return;
        }
        tokio::spawn(async move {
            let Self { shared, held } = self;
            tokio::select! {
                _ = held => {}
                () = end => {
                    shared.cut.store(true, Ordering::Release);
                    shared.reader.wake();
                    shared.writer.wake();
                }
            }
        });
    }
}

struct Held {
    io: BoxIo,
    shared: Arc<Shared>,
    _holds: oneshot::Sender<()>,
}

impl Held {
    /// Fails once the stream is ended; whom `waker` is for is woken then.
    fn check<T>(
        &self,
        waits: bool,
        waker: &AtomicWaker,
        cx: &Task<'_>,
        still: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if waits {
            waker.register(cx.waker());
        }
        if self.shared.cut.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        still
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.check(read.is_pending(), &self.shared.reader, cx, read)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.check(written.is_pending(), &self.shared.writer, cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.check(flushed.is_pending(), &self.shared.writer, cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.check(written.is_pending(), &self.shared.writer, cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_outlives_its_service_lives_until_its_end() {
        let (mut far, near) = duplex(64);
        let (mut io, leash) = Leash::on(Box::new(near));
        leash.until(sleep(Duration::from_secs(5)));
        far.write_all(b"a").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'a');
        let began = tokio::time::Instant::now();
        assert_eq!(io.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(began.elapsed(), Duration::from_secs(5), "the wait is ended, too");
        assert!(io.write_all(b"b").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_for_a_stream_that_is_gone() {
        let end = Arc::new(());
        for early in [true, false] {
            let (io, leash) = Leash::on(Box::new(duplex(64).1));
            let waits = Arc::clone(&end);
            let until = async move {
                std::future::pending::<()>().await;
                drop(waits);
            };
            if early {
                drop(io);
                leash.until(until);
            } else {
                leash.until(until);
                drop(io);
            }
            sleep(Duration::from_millis(1)).await;
            assert_eq!(Arc::strong_count(&end), 1, "{early}");
        }
    }
}

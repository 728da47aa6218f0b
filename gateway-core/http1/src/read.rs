//! The bytes that came on a connection and were not yet taken.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::buffers::{Buffers, SMALL};

/// Bytes of the largest read: what the second-level cache still holds when it is written out again. 64 KiB cost a tenth
/// more of CPU time for a large body, 16 KiB half as much again.
const LARGE: usize = 32 * 1024;
/// A read with less room than this is not worth its system call.
const ROOM: usize = 2 * 1024;

/// Reads into buffers that connections share: while nothing is under way, none is held.
pub struct Reader {
    /// What came and was not yet taken.
    pub bytes: BytesMut,
    /// Bytes of the next buffer.
    size: usize,
    buffers: Arc<Buffers>,
}

impl Reader {
    /// A reader with `ahead` as its first bytes.
    pub fn new(buffers: Arc<Buffers>, ahead: Bytes) -> Self {
        Self { bytes: BytesMut::from(ahead), size: SMALL, buffers }
    }

    /// Reads what there is; 0 at the end of the stream. While nothing comes, no buffer is held. Reads that fill their
    /// buffer make the next one larger, and small ones smaller: whoever keeps a byte keeps all of its buffer.
    pub fn poll_fill<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Task<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.bytes.capacity() - self.bytes.len();
        match pin!(io.read_buf(&mut self.bytes)).poll(cx) {
            Poll::Ready(Ok(n)) => {
                if n == room {
                    self.size = (self.size * 2).min(LARGE);
                } else if n < self.size / 4 {
                    self.size = (self.size / 2).max(SMALL);
                }
                Poll::Ready(Ok(n))
            }
            Poll::Pending if self.bytes.is_empty() => {
                self.rest();
                Poll::Pending
            }
            other => other,
        }
    }

    /// Gives the buffer back. Only where all of its bytes were taken.
    pub fn rest(&mut self) {
        self.buffers.give_reader(std::mem::take(&mut self.bytes));
    }

    /// The same, and with it what the last message was like.
    pub fn park(&mut self) {
        self.rest();
        self.size = SMALL;
    }

    /// The next message is not known to be like the last one.
    pub fn forget(&mut self) {
        self.size = SMALL;
    }

    fn make_room(&mut self) {
        let wanted = if self.size == SMALL { ROOM } else { self.size / 2 };
        if self.bytes.capacity() == 0 && self.size == SMALL {
            self.bytes = self.buffers.reader();
        }
        let held = self.bytes.len();
        if self.bytes.capacity() - held < wanted {
            self.bytes.reserve(self.size.saturating_sub(held).max(wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn while_nothing_comes_no_buffer_is_held_and_one_serves_all() {
        let buffers = Arc::new(Buffers::new());
        let mut used = None;
        for _ in 0..3 {
            let (mut client, mut io) = tokio::io::duplex(64);
            let mut read = Reader::new(Arc::clone(&buffers), Bytes::new());
            let first = std::future::poll_fn(|cx| Poll::Ready(read.poll_fill(&mut io, cx).is_ready())).await;
            assert!(!first && read.bytes.capacity() == 0);
            client.write_all(b"abc").await.unwrap();
            let n = std::future::poll_fn(|cx| read.poll_fill(&mut io, cx)).await.unwrap();
            assert_eq!((n, &read.bytes[..]), (3, &b"abc"[..]));
            let place = read.bytes.as_ptr() as usize;
            assert_eq!(*used.get_or_insert(place), place, "the same memory again");
            read.bytes.clear();
            read.rest();
            assert_eq!(read.bytes.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn buffers_grow_with_what_comes_and_large_ones_are_not_kept() {
        let (mut client, mut io) = tokio::io::duplex(1 << 20);
        client.write_all(&vec![b'x'; 200_000]).await.unwrap();
        let mut read = Reader::new(Arc::default(), Bytes::new());
        let mut sizes = Vec::new();
        for _ in 0..5 {
            sizes.push(std::future::poll_fn(|cx| read.poll_fill(&mut io, cx)).await.unwrap());
            read.bytes.clear();
        }
        assert!(sizes.is_sorted() && sizes[0] <= SMALL && sizes[4] >= LARGE, "{sizes:?}");
        read.park();
        assert!(read.buffers.reader().capacity() <= SMALL);
    }
}

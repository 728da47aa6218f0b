//! An open connection and the bytes that came on it.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;
use towpath_gateway_core::{BoxIo, Connected, Connection};

use super::buffers::{Buffers, SMALL};

/// Bytes of the largest read.
const LARGE: usize = 64 * 1024;
/// A read with less room than this is not worth its system call.
const ROOM: usize = 2 * 1024;

/// An HTTP/1.1 connection. No task drives it: who wants something of it does.
pub(in crate::pool) struct Wire {
    pub(super) io: BoxIo,
    pub(super) connection: Arc<Connection>,
    pub(in crate::pool) born: Instant,
    /// What came and was not yet taken.
    pub(super) read: BytesMut,
    /// Bytes of the next buffer.
    size: usize,
    pub(super) buffers: Arc<Buffers>,
}

impl Wire {
    pub(super) fn new(connected: Connected, buffers: Arc<Buffers>) -> Self {
        Self {
            io: connected.io,
            connection: connected.connection,
            born: Instant::now(),
            read: BytesMut::new(),
            size: SMALL,
            buffers,
        }
    }

    /// Whether an unused connection can take a request: it is open, and the server has sent nothing that nobody asked
    /// for.
    pub(in crate::pool) fn is_usable(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut cx = Task::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Reads what there is; 0 at the end of the connection. While nothing comes, no buffer is held.
    pub(super) fn poll_fill(&mut self, left: u64, cx: &mut Task<'_>) -> Poll<io::Result<usize>> {
        self.make_room(left);
        let room = self.read.capacity() - self.read.len();
        match pin!(self.io.read_buf(&mut self.read)).poll(cx) {
            Poll::Ready(Ok(n)) => {
                if n == room {
                    self.size = (self.size * 2).min(LARGE);
                }
                Poll::Ready(Ok(n))
            }
            Poll::Pending if self.read.is_empty() => {
                self.rest();
                Poll::Pending
            }
            other => other,
        }
    }

    /// Ends a use of the connection.
    pub(super) fn rest(&mut self) {
        self.buffers.give_reader(std::mem::take(&mut self.read));
    }

    /// The same, and with it what the last response was like.
    pub(super) fn park(&mut self) {
        self.rest();
        self.size = SMALL;
    }

    fn make_room(&mut self, left: u64) {
        if left > self.size as u64 {
            self.size = LARGE;
        }
        let wanted = if self.size == SMALL { ROOM } else { self.size / 2 };
        if self.read.capacity() == 0 && self.size == SMALL {
            self.read = self.buffers.reader();
        }
        let held = self.read.len();
        if self.read.capacity() - held < wanted {
            self.read.reserve(self.size.saturating_sub(held).max(wanted));
        }
    }
}

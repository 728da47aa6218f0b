//! An open connection and the bytes that came on it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use towpath_gateway_core::{BoxIo, Connected, Connection};
use towpath_http1::{Buffers, Reader};

/// An HTTP/1.1 connection. No task drives it: who wants something of it does.
pub(in crate::pool) struct Wire {
    pub(super) io: BoxIo,
    pub(in crate::pool) connection: Arc<Connection>,
    pub(in crate::pool) born: Instant,
    pub(super) read: Reader,
}

impl Wire {
    pub(super) fn new(connected: Connected, buffers: Arc<Buffers>) -> Self {
        Self {
            io: connected.io,
            connection: connected.connection,
            born: Instant::now(),
            read: Reader::new(buffers, Bytes::new()),
        }
    }

    /// Whether an unused connection can take a request: it is open, and the server has sent nothing that nobody asked
    /// for.
    pub(in crate::pool) fn is_usable(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut cx = Task::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Reads what there is; 0 at the end of the connection.
    pub(super) fn poll_fill(&mut self, cx: &mut Task<'_>) -> Poll<std::io::Result<usize>> {
        self.read.poll_fill(&mut self.io, cx)
    }
}

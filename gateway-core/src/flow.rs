//! What layer 4 passes on: the bytes of one client with the record of what became of them.

use std::fmt;
use std::io;
use std::task::{Context as Task, Poll};

use bytes::Bytes;

use crate::Context;

/// One flow: a TCP connection ([`BoxIo`](crate::BoxIo)) or the datagrams between one client and one socket
/// ([`BoxDatagrams`]). It is to layer 4 what a request is to layer 7: stacks of
/// `Service<Flow<T>, Response = (), Error = Fault>` write what they learn to its context and end when the flow has ended.
pub struct Flow<T> {
    /// The record, on the flow's connection.
    pub context: Context,
    /// The bytes, both ways.
    pub io: T,
}

impl<T> fmt::Debug for Flow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("context", &self.context).finish_non_exhaustive()
    }
}

/// The datagrams of one client. Like UDP itself it may lose some.
pub trait Datagrams: Send + 'static {
    /// The next datagram of the client; `None` when no more will come.
    fn poll_recv(&mut self, cx: &mut Task<'_>) -> Poll<Option<Bytes>>;

    /// Sends a datagram back, or drops it if the system has no room for it now. Fails if the client cannot be sent to.
    fn send(&self, datagram: &[u8]) -> io::Result<()>;
}

/// Datagrams whose kind no longer matters.
pub type BoxDatagrams = Box<dyn Datagrams>;

//! Serves UDP: the datagrams of each client become a flow.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use towpath_gateway_core::{Connection, Context, Datagrams, Flow};

use crate::accept::{Admission, Warnings};
use crate::admission::Permit;
use crate::drain::LAST_WORDS;
use crate::{DatagramService, DrainGuard};

/// The largest datagram that UDP can carry.
const LARGEST: usize = 65_535;

/// Datagrams of one client that may wait; what comes on top is lost.
const WAITING: usize = 64;

/// Takes datagrams until `stop` resolves, and for half a second more those of clients that are known.
pub(crate) async fn run(
    socket: UdpSocket,
    service: DatagramService,
    admission: Admission,
    stop: impl Future<Output = ()>,
) {
    let local = match socket.local_addr() {
        Ok(local) => local,
        Err(error) => return tracing::error!(%error, "a socket for datagrams has no address"),
    };
    let (ended, mut endings) = mpsc::unbounded_channel();
    let warnings = Warnings::default();
    let mut door =
        Door { socket: Arc::new(socket), local, service, admission, flows: HashMap::new(), ended, warnings };
    let (mut room, mut stop) = (vec![0; LARGEST], pin!(stop));
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(peer) = endings.recv() => door.forget(peer),
            arrival = door.socket.recv_from(&mut room) => door.take(arrival, &room, true),
        }
    }
    let mut last_words = pin!(sleep(LAST_WORDS));
    while !door.flows.is_empty() {
        tokio::select! {
            biased;
            () = &mut last_words => break,
            Some(peer) = endings.recv() => door.forget(peer),
            arrival = door.socket.recv_from(&mut room) => door.take(arrival, &room, false),
        }
    }
}

struct Door {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    service: DatagramService,
    admission: Admission,
    flows: HashMap<SocketAddr, mpsc::Sender<Bytes>>,
    ended: mpsc::UnboundedSender<SocketAddr>,
    warnings: Warnings,
}

impl Door {
    /// Gives a datagram to the flow of its client; the first one makes the flow, unless no new ones are taken.
    fn take(&mut self, arrival: io::Result<(usize, SocketAddr)>, room: &[u8], open: bool) {
        let (length, peer) = match arrival {
            Ok(arrival) => arrival,
            // An earlier answer could not be delivered: its client is gone, and its flow will be silent.
            Err(error) => return tracing::debug!(%error, "no datagram"),
        };
        let datagram = Bytes::copy_from_slice(room.get(..length).unwrap_or_default());
        let rest = match self.flows.get(&peer).map(|flow| flow.try_send(datagram.clone())) {
            Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => None,
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Some(datagram),
        };
        if let Some(datagram) = rest.filter(|_| open) {
            self.begin(peer, datagram);
        }
    }

    fn begin(&mut self, peer: SocketAddr, first: Bytes) {
        let Admission { open, max, drain } = &self.admission;
        let Some(permit) = open.admit(*max) else {
            if let Some(count) = self.warnings.due(Instant::now()) {
                tracing::warn!(%peer, max, count, "datagrams turned away: the limit of connections is reached");
            }
            return;
        };
        let (sender, received) = mpsc::channel(WAITING);
        // The channel is empty and has room.
        let _ = sender.try_send(first);
        self.flows.insert(peer, sender);
        let client = Client {
            received,
            socket: Arc::clone(&self.socket),
            peer,
            ended: self.ended.clone(),
            _permit: permit,
            _guard: drain.guard(),
        };
        let context = Context::on(Arc::new(Connection::plaintext(peer, self.local)));
        tokio::spawn(self.service.serve(Flow { context, io: Box::new(client) }));
    }

    /// Forgets a flow that has ended, unless its client has begun another already.
    fn forget(&mut self, peer: SocketAddr) {
        if self.flows.get(&peer).is_some_and(mpsc::Sender::is_closed) {
            self.flows.remove(&peer);
        }
    }
}

/// One client of the socket. It counts as a connection until it is dropped.
struct Client {
    received: mpsc::Receiver<Bytes>,
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    ended: mpsc::UnboundedSender<SocketAddr>,
    _permit: Permit,
    _guard: DrainGuard,
}

impl Datagrams for Client {
    fn poll_recv(&mut self, cx: &mut Task<'_>) -> Poll<Option<Bytes>> {
        self.received.poll_recv(cx)
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.try_send_to(datagram, self.peer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // Without room the datagram is lost, as on any link.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.received.close();
        // If nobody listens, the socket is closed and all flows are forgotten.
        let _ = self.ended.send(self.peer);
    }
}

#[cfg(test)]
mod tests;

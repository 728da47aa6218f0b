//! Carries datagrams.
//!
//! - **reads** the flow's backend
//! - **writes** an attempt for the endpoint that is chosen
//! - **ends a flow with** `Unresolved`, `NoEndpoint`; `ConnectFailed` if no socket can be had or the endpoint says that nothing
//!   listens there. Silence for the idle timeout is how datagrams end
//! - **settings** the idle timeout, 1 minute unless told otherwise (Envoy's default for UDP)
//! - **place** at the end of a layer 4 stack

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tower_service::Service;
use towpath_gateway_core::{BoxDatagrams, Fault, Flow, Reason};

use super::idle::{Movement, while_moving};
use super::{ForwardFuture, begin};
use crate::{Random, random};

const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// The largest datagram that UDP can carry.
const LARGEST: usize = 65_535;

thread_local! {
    // Room for the datagram in hand. Flows are many, and each needs it for a moment only.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// Sends each client's datagrams to an endpoint of its backend, from a socket of its own, and that endpoint's back. A flow keeps
/// its endpoint while it lasts.
#[derive(Debug, Clone)]
pub struct ForwardDatagrams {
    idle: Duration,
    random: Random,
}

impl ForwardDatagrams {
    /// With an idle timeout of one minute.
    pub fn new() -> Self {
        Self { idle: IDLE_TIMEOUT, random: random::below }
    }

    /// How long no datagram may come from either side.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle = limit;
        self
    }

    /// Takes random numbers from `random`.
    #[must_use]
    pub fn random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }
}

impl Default for ForwardDatagrams {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Flow<BoxDatagrams>> for ForwardDatagrams {
    type Response = ();
    type Error = Fault;
    type Future = ForwardFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, flow: Flow<BoxDatagrams>) -> ForwardFuture {
        let Self { idle, random } = self.clone();
        ForwardFuture(Box::pin(async move {
            let attempt = begin(&flow.context, random)?;
            let _load = attempt.endpoint().load.begin();
            let address = attempt.endpoint().address;
            let failed = |error: io::Error| {
                Fault::new(Reason::ConnectFailed).with_detail(address.to_string()).with_source(error)
            };
            let server = open(address).await.map_err(failed)?;
            let movement = Movement::new();
            let carried = async {
                tokio::select! {
                    carried = carry(flow.io, &server, &movement) => carried,
                    refused = refusal(&server) => refused,
                }
            };
            match while_moving(carried, &movement, idle).await {
                Some(Err(error)) => Err(failed(error)),
                Some(Ok(())) | None => Ok(()),
            }
        }))
    }
}

/// A socket that takes datagrams from this endpoint alone.
async fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    // Before the first event of the system tokio takes no socket for writable.
    socket.writable().await?;
    Ok(socket)
}

/// Waits for the system to say that the endpoint cannot be reached (ICMP): tokio does not wake a receiver for it.
async fn refusal(server: &UdpSocket) -> io::Result<()> {
    let stale = || io::Error::from(io::ErrorKind::WouldBlock);
    server.async_io(Interest::ERROR, || Err(server.take_error()?.unwrap_or_else(stale))).await
}

/// Carries datagrams both ways until the client's side ends.
async fn carry(mut client: BoxDatagrams, server: &UdpSocket, movement: &Movement) -> io::Result<()> {
    poll_fn(|cx| {
        while let Poll::Ready(datagram) = client.poll_recv(cx) {
            let Some(datagram) = datagram else { return Poll::Ready(Ok(())) };
            movement.note();
            sent(server.try_send(&datagram))?;
        }
        ROOM.with_borrow_mut(|room| {
            loop {
                let mut buffer = ReadBuf::new(room);
                ready!(server.poll_recv(cx, &mut buffer))?;
                movement.note();
                client.send(buffer.filled())?;
            }
        })
    })
    .await
}

/// A datagram for which there is no room now is lost, as on any link.
fn sent(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

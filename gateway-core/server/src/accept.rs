//! The accept loop: takes connections, counts them, hands them to their service.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use towpath_gateway_core::{Accepted, Connection, Io};

use crate::admission::{Admitted, OpenConnections};
use crate::listen::BACKLOG;
use crate::{ConnectionService, Drain, Limits};

/// Where connections come from. TCP, or whatever stands in for it, such as a simulated network.
pub trait Accept: Send + 'static {
    /// The byte stream of a connection.
    type Io: Io;

    /// The next connection, with the addresses of the other side and of ours. Dropping the future loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok((stream, peer, local))
    }
}

/// Serves the connections of `listener` in the current runtime, until `drain` is signalled and the accept queue is
/// empty. Then await [`Drain::drained`] for the connections. At most [`Limits::max_connections`] of the default
/// limits are open at a time; see [`serve_with`].
pub async fn serve_on(listener: TcpListener, service: ConnectionService, drain: Drain) {
    serve_with(listener, service, Limits::default().max_connections, drain).await;
}

/// [`serve_on`] for any source of connections and with a limit of its own.
pub async fn serve_with<A: Accept>(
    listener: A,
    service: ConnectionService,
    max_connections: usize,
    drain: Drain,
) {
    let stop = drain.clone();
    let admission = Admission { open: OpenConnections::default(), max: max_connections, drain };
    run(listener, service, admission, async move { stop.signalled().await }).await;
}

/// Who may come in.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) open: OpenConnections,
    pub(crate) max: usize,
    pub(crate) drain: Drain,
}

/// Accepts until `stop` resolves, then what is still in the queue.
pub(crate) async fn run<A: Accept>(
    mut listener: A,
    service: ConnectionService,
    admission: Admission,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut door = Door { service, admission, warnings: Warnings::default() };
    loop {
        let arrival = tokio::select! {
            biased;
            () = &mut stop => break,
            arrival = listener.accept() => arrival,
        };
        if let Some(pause) = door.take(arrival) {
            tokio::select! {
                () = &mut stop => break,
                () = sleep(pause) => {}
            }
        }
    }
    // Lets the runtime look at the socket once more: clients in the queue believe that they are connected.
    tokio::task::yield_now().await;
    for _ in 0..BACKLOG {
        match listener.accept().now_or_never() {
            Some(arrival) => door.take(arrival),
            None => break,
        };
    }
}

struct Door {
    service: ConnectionService,
    admission: Admission,
    warnings: Warnings,
}

impl Door {
    /// Serves a connection, or says how long to wait before the next try.
    fn take<T: Io>(&mut self, arrival: io::Result<(T, SocketAddr, SocketAddr)>) -> Option<Duration> {
        match arrival {
            Ok((io, peer, local)) => self.admit(io, Connection::plaintext(peer, local)),
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                if let Some(count) = self.warnings.due(Instant::now()) {
                    tracing::warn!(%error, count, "cannot accept connections; is the file limit too low?");
                }
                return Some(BACK_OFF);
            }
        }
        None
    }

    fn admit<T: Io>(&mut self, io: T, connection: Connection) {
        let Admission { open, max, drain } = &self.admission;
        if let Some(permit) = open.admit(*max) {
            let accepted = Accepted { io: Box::new(Admitted::new(io, permit, drain)), connection };
            tokio::spawn(self.service.serve(accepted));
        } else if let Some(count) = self.warnings.due(Instant::now()) {
            tracing::warn!(peer = %connection.peer, max, count, "connections turned away: the limit is reached");
        }
    }
}

/// Long enough for other connections to give handles back, short enough for clients not to notice.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Errors of a connection that failed before it was accepted; the next one may be fine.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::Interrupted
            | K::InvalidInput
            | K::NotConnected
    )
}

/// One line a second, however many events there are.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    last: Option<Instant>,
    count: u64,
}

impl Warnings {
    /// Counts an event; the number since the last line, when it is time for one.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| now < last + Duration::from_secs(1)) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_one_a_second_and_lose_no_count() {
        let mut warnings = Warnings::default();
        let start = Instant::now();
        assert_eq!(warnings.due(start), Some(1));
        assert_eq!(warnings.due(start + Duration::from_millis(10)), None);
        assert_eq!(warnings.due(start + Duration::from_millis(999)), None);
        assert_eq!(warnings.due(start + Duration::from_secs(1)), Some(3));
    }

    struct Failing(u32, tokio::sync::mpsc::UnboundedSender<Instant>);

    impl Accept for Failing {
        type Io = tokio::io::DuplexStream;

        async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr, SocketAddr)> {
            if self.0 == 0 {
                std::future::pending::<()>().await;
            }
            self.0 -= 1;
            let _ = self.1.send(Instant::now());
            Err(io::Error::other("no handles left"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_listener_is_tried_again_after_a_pause() {
        let (seen, mut tries) = tokio::sync::mpsc::unbounded_channel();
        let service = ConnectionService::new(tower::service_fn(|_: Accepted| async { Ok(()) }));
        let drain = Drain::default();
        let running = tokio::spawn(serve_with(Failing(3, seen), service, 1, drain.clone()));
        let (first, second) = (tries.recv().await.unwrap(), tries.recv().await.unwrap());
        assert!(second - first >= BACK_OFF);
        assert!(tries.recv().await.is_some());
        drain.signal();
        running.await.unwrap();
    }
}

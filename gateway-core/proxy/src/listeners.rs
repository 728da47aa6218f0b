//! All listeners of a process: opened, swapped and closed as snapshots ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use towpath_config::{Duty, Listener, Snapshot};
use towpath_server::{
    BindError, Bound, BoundDatagrams, Drain, Listening, Workers, bind, bind_datagrams, bind_redirected,
};

use towpath_stacks::FlowEntry;

use crate::Failure;
use crate::listener::{LiveDuty, LiveSocket, Shared, datagram_service};
use crate::worker::WorkerParts;

/// A socket: whether it is of UDP, and its address.
type Place = (bool, SocketAddr);

fn place(listener: &Listener) -> Place {
    (listener.is_datagram(), listener.address)
}

/// A listener whose sockets are open and not yet served.
enum Opening {
    Connections(Bound, LiveDuty),
    Datagrams(BoundDatagrams, FlowEntry),
}

impl Opening {
    fn bind(address: SocketAddr, workers: usize, live: LiveSocket) -> Result<Self, BindError> {
        Ok(match live {
            LiveSocket::Connections(duty @ LiveDuty::Captured(_)) => {
                Self::Connections(bind_redirected(address, workers)?, duty)
            }
            LiveSocket::Connections(duty) => Self::Connections(bind(address, workers)?, duty),
            LiveSocket::Datagrams(entry) => Self::Datagrams(bind_datagrams(address, workers)?, entry),
        })
    }
}

/// The listeners at work, by socket.
pub(crate) struct Listeners {
    workers: Workers,
    parts: Arc<WorkerParts>,
    shared: Shared,
    running: HashMap<Place, Running>,
}

struct Running {
    listening: Listening,
    live: LiveSocket,
    // Its connections end with it: what they would be served by is no longer kept current.
    drain: Drain,
    name: Arc<str>,
}

impl Running {
    /// Whether `listener` is this one with other data. Logs and metrics know it by its name.
    fn fits(&self, listener: &Listener) -> bool {
        self.name == listener.name && self.live.fits(listener)
    }

    /// Takes no more connections, and lets those that there are end.
    fn close(&self) {
        self.listening.close();
        self.drain.signal();
        self.live.drain();
    }
}

impl Listeners {
    /// No listener yet.
    pub(crate) fn new(workers: Workers, parts: WorkerParts, shared: Shared) -> Self {
        Self { workers, parts: Arc::new(parts), shared, running: HashMap::new() }
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// Brings the listeners to what `snapshot` says. What fails is told, and all else is done: a listener whose new
    /// data cannot be used keeps its old data.
    pub(crate) async fn apply(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut failures = Vec::new();
        let mut fresh = Vec::new();
        for listener in &snapshot.listeners {
            let told = |error| told(listener, &error);
            match self.running.get(&place(listener)).filter(|running| running.fits(listener)) {
                Some(running) => {
                    failures.extend(running.live.store(listener).err().map(told));
                }
                None => match LiveSocket::new(listener, self.shared.patience) {
                    Ok(live) => fresh.push((listener, live)),
                    Err(error) => failures.push(told(error)),
                },
            }
        }
        self.close_what_is_gone(snapshot, &fresh).await;
        failures.extend(self.open_all(fresh));
        failures
    }

    /// The same for listeners that take in for an application, and only those that are there. What fails is told by
    /// [`apply`](Self::apply), which comes next.
    pub(crate) fn apply_inbound(&self, snapshot: &Snapshot) {
        let inbound = |listener: &&Listener| {
            matches!(listener.duty, Duty::Inbound { .. } | Duty::CapturedInbound { .. })
        };
        for listener in snapshot.listeners.iter().filter(inbound) {
            if let Some(running) = self.running.get(&place(listener)).filter(|running| running.fits(listener))
            {
                let _ = running.live.store(listener);
            }
        }
    }

    /// Every socket is open before the first of them serves.
    fn open_all(&mut self, fresh: Vec<(&Listener, LiveSocket)>) -> Vec<String> {
        let mut failures = Vec::new();
        let mut opened = Vec::new();
        for (listener, live) in fresh {
            match Opening::bind(listener.address, self.workers.count(), live.clone()) {
                Ok(opening) => opened.push((listener, opening, live)),
                Err(error) => failures.push(told(listener, &error)),
            }
        }
        for (listener, opening, live) in opened {
            failures.extend(self.open(listener, opening, live).err().map(|error| told(listener, &*error)));
        }
        failures
    }

    /// Ends all listeners, once they have taken in the clients that believe to be connected; connections live on
    /// under the drain.
    pub(crate) async fn close(&mut self) {
        self.running.values().for_each(Running::close);
        for (_, running) in self.running.drain() {
            running.listening.closed().await;
        }
    }

    /// Ends the workers, once connections have drained.
    pub(crate) fn shutdown(self) {
        self.workers.shutdown();
    }

    /// Closes what the snapshot no longer has, and what stands in the way of `fresh`.
    async fn close_what_is_gone(&mut self, snapshot: &Snapshot, fresh: &[(&Listener, LiveSocket)]) {
        let stays = |at: &Place| {
            snapshot.listeners.iter().any(|listener| place(listener) == *at)
                && fresh.iter().all(|(listener, _)| place(listener) != *at)
        };
        let gone: Vec<_> = self.running.keys().copied().filter(|at| !stays(at)).collect();
        for at in gone {
            if let Some(running) = self.running.remove(&at) {
                running.close();
                running.listening.closed().await;
                tracing::info!("closed {} at {}", running.name, at.1);
            }
        }
    }

    fn open(&mut self, listener: &Listener, opening: Opening, live: LiveSocket) -> Result<(), Failure> {
        let drain = Drain::new(self.shared.patience);
        let shared = Shared { drain: drain.clone(), ..self.shared.clone() };
        let (parts, name) = (Arc::clone(&self.parts), Arc::clone(&listener.name));
        let (limits, process) = (&self.shared.limits, &self.shared.drain);
        let listening = match opening {
            Opening::Connections(bound, duty) => {
                let stack = move |worker: usize| duty.service(&shared, &parts, (worker, &name));
                self.workers.open(bound, stack, limits, process)?
            }
            Opening::Datagrams(bound, entry) => {
                let stack = move |worker: usize| datagram_service(&entry, &shared, &parts, (worker, &name));
                self.workers.open_datagrams(bound, stack, limits, process)?
            }
        };
        let (name, local) = (Arc::clone(&listener.name), listening.local_addr());
        tracing::info!("{name} listens on {local}{}", if listener.is_datagram() { " for UDP" } else { "" });
        self.running.insert(place(listener), Running { listening, live, drain, name });
        Ok(())
    }
}

fn told(listener: &Listener, error: &dyn std::fmt::Display) -> String {
    format!("listener {}: {error}", listener.name)
}

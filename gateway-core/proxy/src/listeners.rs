//! All listeners of a process: opened, swapped and closed as snapshots ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use towpath_config::{Listener, Snapshot};
use towpath_server::{Bound, Drain, Listening, Workers, bind};

use crate::Failure;
use crate::listener::{LiveDuty, Shared};
use crate::worker::WorkerParts;

/// The listeners at work, by address.
pub(crate) struct Listeners {
    workers: Workers,
    parts: Arc<WorkerParts>,
    shared: Shared,
    running: HashMap<SocketAddr, Running>,
}

struct Running {
    listening: Listening,
    live: LiveDuty,
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
            match self.running.get(&listener.address).filter(|running| running.fits(listener)) {
                Some(running) => {
                    failures.extend(running.live.store(listener, self.shared.patience).err().map(told));
                }
                None => match LiveDuty::new(listener, self.shared.patience) {
                    Ok(live) => fresh.push((listener, live)),
                    Err(error) => failures.push(told(error)),
                },
            }
        }
        self.close_what_is_gone(snapshot, &fresh).await;
        failures.extend(self.open_all(fresh));
        failures
    }

    /// Every socket is open before the first of them serves.
    fn open_all(&mut self, fresh: Vec<(&Listener, LiveDuty)>) -> Vec<String> {
        let mut failures = Vec::new();
        let mut opened = Vec::new();
        for (listener, live) in fresh {
            match bind(listener.address, self.workers.count()) {
                Ok(bound) => opened.push((listener, bound, live)),
                Err(error) => failures.push(told(listener, &error)),
            }
        }
        for (listener, bound, live) in opened {
            failures.extend(self.open(listener, bound, live).err().map(|error| told(listener, &*error)));
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
    async fn close_what_is_gone(&mut self, snapshot: &Snapshot, fresh: &[(&Listener, LiveDuty)]) {
        let stays = |address: &SocketAddr| {
            snapshot.listeners.iter().any(|listener| listener.address == *address)
                && fresh.iter().all(|(listener, _)| listener.address != *address)
        };
        let gone: Vec<_> = self.running.keys().copied().filter(|address| !stays(address)).collect();
        for address in gone {
            if let Some(running) = self.running.remove(&address) {
                running.close();
                running.listening.closed().await;
                tracing::info!("closed {} at {address}", running.name);
            }
        }
    }

    fn open(&mut self, listener: &Listener, bound: Bound, live: LiveDuty) -> Result<(), Failure> {
        let drain = Drain::new(self.shared.patience);
        let shared = Shared { drain: drain.clone(), ..self.shared.clone() };
        let (parts, duty) = (Arc::clone(&self.parts), live.clone());
        let name = Arc::clone(&listener.name);
        let of = Arc::clone(&name);
        let factory = move |worker: usize| duty.service(&shared, parts.of(worker, &of));
        let local = bound.local_addr();
        let listening = self.workers.open(bound, factory, &self.shared.limits, &self.shared.drain)?;
        tracing::info!("{name} listens on {local}");
        self.running.insert(listener.address, Running { listening, live, drain, name });
        Ok(())
    }
}

fn told(listener: &Listener, error: &dyn std::fmt::Display) -> String {
    format!("listener {}: {error}", listener.name)
}

//! All listeners of a process: opened, swapped and closed as snapshots ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use towpath_config::{Listener, Snapshot};
use towpath_server::{Bound, Listening, Workers, bind};

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
    name: Arc<str>,
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
        self.close_what_is_gone(snapshot).await;
        // Every socket is open before the first of them serves.
        let mut opened = Vec::new();
        for listener in &snapshot.listeners {
            match self.running.get(&listener.address) {
                Some(running) => {
                    failures.extend(running.live.store(listener).err().map(|e| told(listener, &e)))
                }
                None => match self.bound(listener) {
                    Ok(bound) => opened.push((listener, bound)),
                    Err(error) => failures.push(told(listener, &*error)),
                },
            }
        }
        for (listener, (bound, live)) in opened {
            failures.extend(self.open(listener, bound, live).err().map(|error| told(listener, &*error)));
        }
        failures
    }

    /// Ends all listeners; connections live on under the drain.
    pub(crate) fn close(&mut self) {
        for (_, running) in self.running.drain() {
            running.listening.close();
        }
    }

    /// Ends the workers, once connections have drained.
    pub(crate) fn shutdown(self) {
        self.workers.shutdown();
    }

    async fn close_what_is_gone(&mut self, snapshot: &Snapshot) {
        let stays = |address: &SocketAddr, running: &Running| {
            snapshot
                .listeners
                .iter()
                .any(|listener| listener.address == *address && running.live.fits(listener))
        };
        let gone: Vec<_> = self
            .running
            .iter()
            .filter(|(address, running)| !stays(address, running))
            .map(|(at, _)| *at)
            .collect();
        for address in gone {
            if let Some(running) = self.running.remove(&address) {
                running.listening.close();
                running.listening.closed().await;
                tracing::info!("closed {} at {address}", running.name);
            }
        }
    }

    fn bound(&self, listener: &Listener) -> Result<(Bound, LiveDuty), Failure> {
        let live = LiveDuty::new(listener)?;
        Ok((bind(listener.address, self.workers.count())?, live))
    }

    fn open(&mut self, listener: &Listener, bound: Bound, live: LiveDuty) -> Result<(), Failure> {
        let (parts, shared, duty) = (Arc::clone(&self.parts), self.shared.clone(), live.clone());
        let name = Arc::clone(&listener.name);
        let of = Arc::clone(&name);
        let factory = move |worker: usize| duty.service(&shared, parts.of(worker, &of));
        let local = bound.local_addr();
        let listening = self.workers.open(bound, factory, &self.shared.limits, &self.shared.drain)?;
        tracing::info!("{name} listens on {local}");
        self.running.insert(listener.address, Running { listening, live, name });
        Ok(())
    }
}

fn told(listener: &Listener, error: &dyn std::fmt::Display) -> String {
    format!("listener {}: {error}", listener.name)
}

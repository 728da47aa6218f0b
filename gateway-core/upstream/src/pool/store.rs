//! The connections of one pool and its clones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use towpath_gateway_core::InFlight;
use towpath_http1::Buffers;

use super::PoolSettings;
use super::h1::Wire;
use super::h2::H2;
use super::idle::Idle;
use super::key::Key;
use super::multiplexed::{Gate, Multiplexed};

/// Sweeps in one idle timeout. Only sockets wait for a sweep: an old connection is never handed out.
const SWEEPS: u32 = 10;

/// What the clones of a pool share. Its lock is held for a few instructions, never over an `await`, and only the tasks
/// of one worker meet at it.
pub(super) struct Store {
    settings: PoolSettings,
    buffers: Arc<Buffers>,
    state: Mutex<State>,
}

struct State {
    idle: Idle<Box<Wire>>,
    multiplexed: Multiplexed<H2>,
    sweeping: bool,
}

impl Store {
    pub(super) fn new(settings: PoolSettings) -> Arc<Self> {
        let state = State { idle: Idle::new(), multiplexed: Multiplexed::new(), sweeping: false };
        Arc::new(Self { settings, buffers: Arc::new(Buffers::new()), state: Mutex::new(state) })
    }

    pub(super) fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// Memory that the HTTP/1.1 connections share.
    pub(super) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    pub(super) fn take(&self, key: &Key) -> Option<Box<Wire>> {
        let now = Instant::now();
        let usable = |wire: &mut Box<Wire>| {
            self.is_young(wire.born, now) && wire.connection.standing.holds() && wire.is_usable()
        };
        self.lock().idle.take(key, &self.settings, now.into_std(), usable)
    }

    pub(super) fn put(self: &Arc<Self>, key: Key, connection: Box<Wire>) {
        let now = Instant::now();
        if self.is_young(connection.born, now) {
            let mut state = self.lock();
            state.idle.put(key, connection, &self.settings, now.into_std());
            self.sweep(&mut state);
        }
    }

    /// A connection with room for one more request.
    pub(super) fn pick(&self, key: &Key) -> Option<(H2, InFlight)> {
        let now = Instant::now();
        let usable =
            |h2: &H2| h2.is_usable() && self.is_young(h2.born, now) && h2.connection.standing.holds();
        self.lock().multiplexed.pick(key, self.settings.streams_per_connection, now.into_std(), usable)
    }

    pub(super) fn gate(&self, key: &Key) -> Arc<Gate> {
        self.lock().multiplexed.gate(key)
    }

    /// Shares a new connection, and reserves its first request.
    pub(super) fn add(self: &Arc<Self>, key: &Key, connection: H2) -> InFlight {
        let mut state = self.lock();
        let flight = state.multiplexed.add(key, connection, Instant::now().into_std());
        self.sweep(&mut state);
        flight
    }

    fn is_young(&self, born: Instant, now: Instant) -> bool {
        self.settings.max_age.is_none_or(|age| now.duration_since(born) < age)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the sweeper if it is not at work. It ends when there is nothing left to sweep, or with the pool.
    fn sweep(self: &Arc<Self>, state: &mut State) {
        if state.sweeping {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            state.sweeping = true;
            let every = (self.settings.idle_timeout / SWEEPS).max(Duration::from_millis(10));
            runtime.spawn(sweep(Arc::downgrade(self), every));
        }
    }

    /// One sweep; whether another is needed.
    fn swept(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let usable = |wire: &mut Box<Wire>| {
            self.is_young(wire.born, now) && wire.connection.standing.holds() && wire.is_usable()
        };
        state.idle.evict(&self.settings, now.into_std(), usable);
        let usable =
            |h2: &H2| h2.is_usable() && self.is_young(h2.born, now) && h2.connection.standing.holds();
        state.multiplexed.evict(self.settings.idle_timeout, now.into_std(), usable);
        state.sweeping = !(state.idle.is_empty() && state.multiplexed.is_empty());
        state.sweeping
    }
}

async fn sweep(store: Weak<Store>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !store.upgrade().is_some_and(|store| store.swept()) {
            return;
        }
    }
}

//! HTTP/2 connections, each shared by many requests. No clock: `now` is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};
use towpath_gateway_core::{Fault, InFlight, Load};

use super::key::Key;

/// Open connections by endpoint.
pub(super) struct Multiplexed<T> {
    peers: HashMap<Key, Peer<T>>,
}

struct Peer<T> {
    open: Vec<Shared<T>>,
    gate: Arc<Gate>,
}

struct Shared<T> {
    connection: T,
    streams: Load,
    used: Instant,
}

impl<T: Clone> Multiplexed<T> {
    pub(super) fn new() -> Self {
        Self { peers: HashMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The first connection with fewer than `limit` requests; those that are no longer good take no more and end with
    /// the requests that they carry.
    pub(super) fn pick(
        &mut self,
        key: &Key,
        limit: usize,
        now: Instant,
        usable: impl Fn(&T) -> bool,
    ) -> Option<(T, InFlight)> {
        let peer = self.peers.get_mut(key)?;
        peer.open.retain(|shared| usable(&shared.connection));
        peer.open.iter_mut().find_map(|shared| {
            let flight = shared.streams.begin_below(limit.max(1))?;
            shared.used = now;
            Some((shared.connection.clone(), flight))
        })
    }

    /// Who wants to open a connection passes here.
    pub(super) fn gate(&mut self, key: &Key) -> Arc<Gate> {
        Arc::clone(&self.peer(key).gate)
    }

    pub(super) fn add(&mut self, key: &Key, connection: T, now: Instant) -> InFlight {
        let streams = Load::new();
        let flight = streams.begin();
        self.peer(key).open.push(Shared { connection, streams, used: now });
        flight
    }

    /// Drops what carries no request and is unused for `timeout`, or no longer good.
    pub(super) fn evict(&mut self, timeout: Duration, now: Instant, usable: impl Fn(&T) -> bool) {
        for peer in self.peers.values_mut() {
            peer.open.retain(|shared| {
                let idle = shared.streams.current() == 0;
                let stale = now.saturating_duration_since(shared.used) >= timeout;
                usable(&shared.connection) && !(idle && stale)
            });
        }
        // A gate that someone holds is in use.
        self.peers.retain(|_, peer| !peer.open.is_empty() || Arc::strong_count(&peer.gate) > 1);
    }

    fn peer(&mut self, key: &Key) -> &mut Peer<T> {
        self.peers
            .entry(key.clone())
            .or_insert_with(|| Peer { open: Vec::new(), gate: Arc::new(Gate::new()) })
    }
}

/// Lets one request at a time open a connection to an endpoint, and tells those that waited how it went.
///
/// If the request that opens it goes away, the next in line takes over.
pub(super) struct Gate {
    failures: AtomicU64,
    last: Mutex<Option<Fault>>,
}

impl Gate {
    fn new() -> Self {
        Self { failures: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// Waits for the turn to open a connection. A failure meanwhile ends the wait of all with the same fault: opening
    /// one after the other would add up their timeouts.
    pub(super) async fn enter(&self) -> Result<Turn<'_>, Fault> {
        let seen = self.failures.load(Ordering::Acquire);
        let last = self.last.lock().await;
        if self.failures.load(Ordering::Acquire) == seen {
            return Ok(Turn { gate: self, last });
        }
        last.clone().map_or(Ok(Turn { gate: self, last }), Err)
    }
}

/// The right to open a connection.
pub(super) struct Turn<'a> {
    gate: &'a Gate,
    last: MutexGuard<'a, Option<Fault>>,
}

impl Turn<'_> {
    pub(super) fn failed(mut self, fault: &Fault) {
        *self.last = Some(fault.clone());
        self.gate.failures.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use towpath_gateway_core::{Endpoint, Reason};

    use super::*;

    fn key() -> Key {
        Key::of(&Endpoint::plaintext("127.0.0.1:1".parse().unwrap()))
    }

    #[test]
    fn a_full_connection_takes_no_more_until_a_request_ends() {
        let (mut peers, now) = (Multiplexed::new(), Instant::now());
        let first = peers.add(&key(), "a", now);
        let second = peers.pick(&key(), 2, now, |_| true).unwrap();
        assert!(peers.pick(&key(), 2, now, |_| true).is_none());
        let _other = peers.add(&key(), "b", now);
        assert_eq!(peers.pick(&key(), 2, now, |_| true).map(|(name, _)| name), Some("b"));
        drop((first, second));
        assert_eq!(peers.pick(&key(), 2, now, |_| true).map(|(name, _)| name), Some("a"));
    }

    #[test]
    fn a_connection_that_is_no_longer_good_is_forgotten() {
        let (mut peers, now) = (Multiplexed::new(), Instant::now());
        drop(peers.add(&key(), "a", now));
        assert!(peers.pick(&key(), 2, now, |_| false).is_none());
        assert!(peers.pick(&key(), 2, now, |_| true).is_none());
    }

    #[test]
    fn only_unused_connections_grow_stale() {
        let (mut peers, now) = (Multiplexed::new(), Instant::now());
        let timeout = Duration::from_secs(50);
        let flight = peers.add(&key(), "a", now);
        peers.evict(timeout, now + timeout, |_| true);
        assert!(!peers.is_empty());
        drop(flight);
        peers.evict(timeout, now + timeout, |_| true);
        assert!(peers.is_empty());
    }

    #[tokio::test]
    async fn those_who_wait_share_a_failure() {
        let gate = Gate::new();
        let turn = gate.enter().await.ok().unwrap();
        let waiting = gate.enter();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        turn.failed(&Fault::new(Reason::ConnectTimeout));
        assert_eq!(waiting.await.err().map(|fault| fault.reason()), Some(Reason::ConnectTimeout));
        assert!(gate.enter().await.is_ok(), "who comes later tries anew");
    }

    #[tokio::test]
    async fn the_next_takes_over_from_one_that_went_away() {
        let gate = Gate::new();
        let turn = gate.enter().await.ok().unwrap();
        let waiting = gate.enter();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(waiting.await.is_ok());
    }
}

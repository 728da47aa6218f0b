//! Connections that were refused, counted by kind for metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why an incoming connection was closed before any of its requests was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It spoke plaintext and only mesh mTLS is accepted.
    Plaintext,
    /// It did not begin, or did not finish its handshake, in time.
    Timeout,
    /// This workload has no valid credential of its own.
    NotReady,
    /// The TLS handshake failed; most often because the client's certificate is missing or not trusted.
    Handshake,
    /// The handshake was made, and the client's certificate does not identify it.
    Peer,
}

impl Refusal {
    /// Every kind, in the order of the counters.
    pub const ALL: [Self; 5] = [Self::Plaintext, Self::Timeout, Self::NotReady, Self::Handshake, Self::Peer];

    /// The value of a metric's `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Timeout => "timeout",
            Self::NotReady => "not_ready",
            Self::Handshake => "handshake",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// How many connections were refused, by kind, since the process began. Clones share the counters, so one set can
/// serve several listeners.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    plaintext: AtomicU64,
    timeout: AtomicU64,
    not_ready: AtomicU64,
    handshake: AtomicU64,
    peer: AtomicU64,
}

impl Refusals {
    /// Counters at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refusals of one kind.
    pub fn count(&self, kind: Refusal) -> u64 {
        self.counter(kind).load(Ordering::Relaxed)
    }

    /// Refusals of every kind.
    pub fn total(&self) -> u64 {
        Refusal::ALL.into_iter().map(|kind| self.count(kind)).sum()
    }

    pub(crate) fn add(&self, kind: Refusal) {
        self.counter(kind).fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, kind: Refusal) -> &AtomicU64 {
        match kind {
            Refusal::Plaintext => &self.0.plaintext,
            Refusal::Timeout => &self.0.timeout,
            Refusal::NotReady => &self.0.not_ready,
            Refusal::Handshake => &self.0.handshake,
            Refusal::Peer => &self.0.peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_counter_and_a_label_of_its_own() {
        let refusals = Refusals::new();
        for (index, kind) in Refusal::ALL.into_iter().enumerate() {
            refusals.clone().add(kind);
            assert_eq!((refusals.count(kind), refusals.total()), (1, index as u64 + 1), "{kind}");
        }
        let labels: std::collections::HashSet<_> = Refusal::ALL.into_iter().map(Refusal::label).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }
}

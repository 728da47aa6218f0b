//! How many requests an endpoint is serving for us right now.

use std::sync::Arc;

use crate::sync::{AtomicUsize, Ordering};

/// A shared count of requests in flight. Reading and counting never block.
#[derive(Debug, Clone)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// A count of zero.
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(0)))
    }

    /// Requests in flight at this moment.
    pub fn current(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one request until the guard is dropped.
    pub fn begin(&self) -> InFlight {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Counts one request unless `limit` are in flight already.
    pub fn begin_below(&self, limit: usize) -> Option<InFlight> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| InFlight(self.clone()))
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

/// One request in flight; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight(Load);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_until_it_is_dropped() {
        let load = Load::new();
        let first = load.begin();
        let second = load.begin();
        assert_eq!(load.current(), 2);
        drop(first);
        assert_eq!(load.current(), 1);
        drop(second);
        assert_eq!(load.current(), 0);
    }

    #[test]
    fn the_limit_is_never_passed() {
        let load = Load::new();
        let held: Vec<_> = (0..3).map_while(|_| load.begin_below(2)).collect();
        assert_eq!(held.len(), 2);
        assert!(load.begin_below(2).is_none());
    }
}

#[cfg(all(test, towpath_loom))]
mod interleavings {
    use super::*;

    #[test]
    fn two_threads_never_share_the_last_place() {
        loom::model(|| {
            let load = Load::new();
            let theirs = load.clone();
            let thread = loom::thread::spawn(move || {
                theirs.begin_below(1).is_some_and(|guard| {
                    std::mem::forget(guard);
                    true
                })
            });
            let ours = load.begin_below(1).is_some_and(|guard| {
                std::mem::forget(guard);
                true
            });
            let theirs = thread.join().unwrap();
            assert!(ours ^ theirs, "exactly one of two takes the only place");
            assert_eq!(load.current(), 1);
        });
    }
}

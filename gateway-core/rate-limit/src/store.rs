//! Where buckets are kept: one store for all workers and all limits of a process.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

use tokio::time::Instant;

use crate::gcra::{Pace, Verdict, ticks};
use crate::table::Table;

/// The buckets of all keys. Its size is fixed when it is made, and no thread ever waits for another.
///
/// Every key has a bucket of its own as long as the store is not crowded: with `n` keys in force at once, a key is
/// counted together with a stranger with a probability of about `(n / capacity)³`, and never gets more than its
/// limit. Keys are hashed with a seed of the process, so nobody can choose whom to meet.
///
/// A key is in force until its bucket is full again; idle keys take no room.
pub struct Store {
    table: Table,
    seed: RandomState,
    epoch: Instant,
}

impl Store {
    /// Room for 65,536 keys in 1 MiB.
    pub const DEFAULT_CAPACITY: usize = 1 << 16;

    /// The default size.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// Room for `keys` keys, rounded up to a power of two (at most 2²⁶), at 16 bytes each.
    pub fn with_capacity(keys: usize) -> Self {
        Self { table: Table::with_capacity(keys), seed: RandomState::new(), epoch: Instant::now() }
    }

    /// How many keys can have a bucket of their own.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Charges one request to the bucket of `key`, if `pace` admits it at `now`.
    pub(crate) fn charge(&self, key: impl Hash, pace: Pace, now: Instant) -> Verdict {
        let now = ticks(now.saturating_duration_since(self.epoch));
        self.table.charge(self.seed.hash_one(key), pace, now)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

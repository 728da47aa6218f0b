//! The buckets: a table of fixed size that any number of threads charge without a lock.
//!
//! A key has one **home** slot and one **shared** bucket, both found by its hash. The home holds the key's tag beside
//! the theoretical arrival time, so the key that came first has it alone for as long as its bucket is in force.
//! Meanwhile other keys of the same home charge their shared buckets, which hold no tag: keys that meet there are
//! counted together. So the table never grows, no key ever loses a debt by the arrival of others, and a limit stays
//! a bound; what a crowded table costs is that strangers may be counted together.
//!
//! A key's debt must not be in two places. It moves home only while its shared bucket is idle, in three steps: mark
//! the home as *claimed*, look at the shared bucket once more, open the home. Whoever charges the shared bucket
//! looks at the home afterwards and breaks a claim of its own key that it finds there. Between the write and the
//! look both sides have a sequentially consistent fence, so that at least one of them sees the other.
//!
//! A claim holds the moment of its making. The same claim can be made twice only if the shared bucket was idle at that
//! moment both times, so a claim that was broken and made anew may be opened by either maker.

use crate::gcra::{LAST, Pace, Verdict};
use crate::sync::{AtomicU64, Ordering, fence};

const TIME_BITS: u32 = 52;
const CLAIM: u64 = 1 << 63;
const MAX_SLOTS: usize = 1 << 26;

/// A fixed number of buckets.
pub(crate) struct Table {
    homes: Box<[AtomicU64]>,
    shared: Box<[AtomicU64]>,
}

impl Table {
    /// A table with that many homes and as many shared buckets, rounded up to a power of two.
    pub(crate) fn with_capacity(slots: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS).next_power_of_two();
        let empty = || (0..slots).map(|_| AtomicU64::new(0)).collect();
        Self { homes: empty(), shared: empty() }
    }

    /// Number of homes.
    pub(crate) fn capacity(&self) -> usize {
        self.homes.len()
    }

    /// Charges one request to the bucket of `key` (a hash) at `now`, if its pace admits it.
    pub(crate) fn charge(&self, key: u64, pace: Pace, now: u64) -> Verdict {
        let now = now.min(LAST);
        match self.bucket(key) {
            Some(bucket) => bucket.charge(pace, now),
            // Not reached: both indices are reduced to the table's size.
            None => Verdict::Refuse { retry_after: 1 },
        }
    }

    fn bucket(&self, key: u64) -> Option<Bucket<'_>> {
        let mask = self.homes.len() as u64 - 1;
        // The tag and the index come from different bits. All that is used of the hash is in `home` and `tag`, so
        // keys that are alike in both are one key in every respect.
        // An empty home reads as tag 0, which is why no key has it.
        let tag = (key >> (TIME_BITS + 1)).max(1);
        let home = key & mask;
        let shared = home.wrapping_add(tag.wrapping_mul(0x9e37_79b9)) & mask;
        Some(Bucket {
            home: self.homes.get(usize::try_from(home).ok()?)?,
            shared: self.shared.get(usize::try_from(shared).ok()?)?,
            tag,
        })
    }
}

/// Where one key's debt may be.
struct Bucket<'a> {
    home: &'a AtomicU64,
    shared: &'a AtomicU64,
    tag: u64,
}

/// What a home holds, seen by one key.
enum Home {
    /// This key's bucket.
    Own(u64),
    /// A claim of this key by another thread.
    OwnClaim,
    /// Nothing in force.
    Free,
    /// The bucket of another key, or its claim.
    Taken,
}

impl Bucket<'_> {
    fn charge(&self, pace: Pace, now: u64) -> Verdict {
        loop {
            let word = self.home.load(Ordering::Acquire);
            let done = match self.view(word, now) {
                Home::Own(tat) => self.charge_home(word, tat, pace, now),
                Home::Free if self.shared.load(Ordering::Acquire) <= now => self.claim(word, pace, now),
                Home::Free | Home::OwnClaim | Home::Taken => self.charge_shared(pace, now),
            };
            if let Some(verdict) = done {
                return verdict;
            }
            pause();
        }
    }

    fn view(&self, word: u64, now: u64) -> Home {
        let own = (word & !CLAIM) >> TIME_BITS == self.tag;
        let tat = word & LAST;
        match (word & CLAIM != 0, own) {
            (true, true) => Home::OwnClaim,
            (false, true) => Home::Own(tat),
            (false, false) if tat <= now => Home::Free,
            (_, false) => Home::Taken,
        }
    }

    /// `None` if another thread was first: look again.
    fn charge_home(&self, word: u64, tat: u64, pace: Pace, now: u64) -> Option<Verdict> {
        let verdict = pace.decide(tat, now);
        match verdict {
            Verdict::Allow { tat, .. } => replace(self.home, word, self.open(tat)).then_some(verdict),
            Verdict::Refuse { .. } => Some(verdict),
        }
    }

    /// Moves into a free home. `None` if anything came between: look again.
    fn claim(&self, free: u64, pace: Pace, now: u64) -> Option<Verdict> {
        let verdict = pace.decide(0, now);
        let Verdict::Allow { tat, .. } = verdict else { return Some(verdict) };
        let claim = CLAIM | self.open(now);
        if !replace(self.home, free, claim) {
            return None;
        }
        fence(Ordering::SeqCst);
        if self.shared.load(Ordering::Acquire) <= now {
            return replace(self.home, claim, self.open(tat)).then_some(verdict);
        }
        // The shared bucket was charged meanwhile. Someone may have broken the claim already.
        let _ = replace(self.home, claim, 0);
        None
    }

    fn charge_shared(&self, pace: Pace, now: u64) -> Option<Verdict> {
        loop {
            let tat = self.shared.load(Ordering::Acquire);
            let verdict = pace.decide(tat, now);
            let Verdict::Allow { tat: moved, .. } = verdict else { return Some(verdict) };
            if replace(self.shared, tat, moved) {
                fence(Ordering::SeqCst);
                return self.still_away(now).then_some(verdict);
            }
            pause();
        }
    }

    /// Whether the key has no home after all; a claim on the way is broken. If it has one by now, that is where the
    /// request must be admitted, and what the shared bucket was charged is waste.
    fn still_away(&self, now: u64) -> bool {
        loop {
            let word = self.home.load(Ordering::Acquire);
            match self.view(word, now) {
                Home::Own(_) => return false,
                Home::Free | Home::Taken => return true,
                Home::OwnClaim if replace(self.home, word, 0) => return true,
                Home::OwnClaim => pause(),
            }
        }
    }

    fn open(&self, tat: u64) -> u64 {
        self.tag << TIME_BITS | tat
    }
}

fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Between two looks at a word that another thread is changing.
fn pause() {
    #[cfg(towpath_loom)]
    loom::thread::yield_now();
    #[cfg(not(towpath_loom))]
    std::hint::spin_loop();
}

#[cfg(test)]
#[cfg(not(towpath_loom))]
mod tests;

#[cfg(test)]
#[cfg(towpath_loom)]
mod interleavings;

//! How much of a backend's traffic may be retries.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{AtomicU64, Ordering};

/// Keeps retries from making an outage worse: they may be a share of all tries, and a few are always allowed (Gateway API
/// GEP-3388, `retryConstraint`).
///
/// One is shared by all workers, without a lock; of retries that ask in the same instant all may be refused where one was left. Tries are counted in the tenth of the interval that they fall into, so the
/// interval that is looked at is that much shorter at times.
///
/// ```
/// use std::time::Duration;
/// use towpath_gateway_core::{RetryBudget, RetryConstraint};
///
/// let second = Duration::from_secs(1);
/// let constraint = RetryConstraint { percent: 20, interval: second, min_retries: 1, min_interval: second };
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let budget = RetryBudget::new(constraint);
/// budget.request();
/// assert!(budget.retry(), "one is always allowed");
/// assert!(!budget.retry(), "two of three tries are more than a fifth");
/// # });
/// ```
#[derive(Debug)]
pub struct RetryBudget {
    constraint: RetryConstraint,
    started: Instant,
    requests: Window,
    retries: Window,
    /// Retries again, over the interval of those that are always allowed.
    recent: Window,
}

/// What a budget allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryConstraint {
    /// Retries are at most so many of a hundred tries, first ones included…
    pub percent: u32,
    /// …over so long.
    pub interval: Duration,
    /// So many are allowed whatever their share…
    pub min_retries: u32,
    /// …over so long.
    pub min_interval: Duration,
}

impl Default for RetryConstraint {
    /// 20 percent over 10 seconds, and 10 in a second (GEP-3388).
    fn default() -> Self {
        let (interval, min_interval) = (Duration::from_secs(10), Duration::from_secs(1));
        Self { percent: 20, interval, min_retries: 10, min_interval }
    }
}

impl RetryBudget {
    /// Nothing has been tried yet.
    pub fn new(constraint: RetryConstraint) -> Self {
        Self {
            constraint,
            started: Instant::now(),
            requests: Window::over(constraint.interval),
            retries: Window::over(constraint.interval),
            recent: Window::over(constraint.min_interval),
        }
    }

    /// What it allows.
    pub fn constraint(&self) -> RetryConstraint {
        self.constraint
    }

    /// Counts the first try of a request.
    pub fn request(&self) {
        self.requests.add(self.started.elapsed());
    }

    /// Takes a retry out of the budget; `false` if there is none left.
    pub fn retry(&self) -> bool {
        let now = self.started.elapsed();
        // Counted first: of several that come together none is overlooked.
        self.recent.add(now);
        self.retries.add(now);
        let (requests, retries) = (self.requests.sum(now), self.retries.sum(now));
        let share = retries * 100 <= u64::from(self.constraint.percent) * (requests + retries);
        if share || self.recent.sum(now) <= u64::from(self.constraint.min_retries) {
            return true;
        }
        self.recent.take_back(now);
        self.retries.take_back(now);
        false
    }
}

/// Parts of an interval that are counted apart.
const PARTS: u64 = 10;

/// A count over the last interval: each part in a number of its own, with the part's place in time above it.
#[derive(Debug)]
struct Window {
    parts: [AtomicU64; 10],
    part: Duration,
}

/// Which part of time, and how many were counted in it.
type Part = (u64, u64);

fn packed((place, count): Part) -> u64 {
    place << 32 | count
}

fn unpacked(packed: u64) -> Part {
    (packed >> 32, packed & u64::from(u32::MAX))
}

impl Window {
    fn over(interval: Duration) -> Self {
        let part = (interval / 10).max(Duration::from_millis(1));
        Self { parts: std::array::from_fn(|_| AtomicU64::new(0)), part }
    }

    /// Parts are counted from 1, so that a number of nothing belongs to none; after 2³² of them they begin anew.
    fn place(&self, now: Duration) -> u64 {
        let place = now.as_nanos() / self.part.as_nanos();
        u64::try_from(place).unwrap_or(u64::MAX) % u64::from(u32::MAX) + 1
    }

    fn change(&self, now: Duration, change: impl Fn(u64) -> u64) {
        let place = self.place(now);
        let Some(part) = usize::try_from(place % PARTS).ok().and_then(|at| self.parts.get(at)) else {
            return;
        };
        let mut known = part.load(Ordering::Relaxed);
        loop {
            let (there, count) = unpacked(known);
            let count = if there == place { count } else { 0 };
            let new = packed((place, change(count)));
            // Nothing else is published by it.
            match part.compare_exchange_weak(known, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => known = other,
            }
        }
    }

    fn add(&self, now: Duration) {
        self.change(now, |count| (count + 1).min(u64::from(u32::MAX)));
    }

    fn take_back(&self, now: Duration) {
        self.change(now, |count| count.saturating_sub(1));
    }

    fn sum(&self, now: Duration) -> u64 {
        let last = self.place(now);
        let first = last.saturating_sub(PARTS - 1);
        let parts = self.parts.iter().map(|part| unpacked(part.load(Ordering::Relaxed)));
        parts.filter(|(place, _)| (first..=last).contains(place)).map(|(_, count)| count).sum()
    }
}

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(percent: u32, min_retries: u32) -> RetryBudget {
        RetryBudget::new(RetryConstraint {
            percent,
            interval: 10 * SECOND,
            min_retries,
            min_interval: SECOND,
        })
    }

    fn allowed(budget: &RetryBudget, asked: usize) -> usize {
        (0..asked).filter(|_| budget.retry()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_share_of_all_tries() {
        for (percent, requests, retries) in
            [(20, 80, 20), (50, 10, 10), (0, 100, 0), (100, 0, 50), (20, 3, 0)]
        {
            let budget = budget(percent, 0);
            (0..requests).for_each(|_| budget.request());
            assert_eq!(allowed(&budget, 50), retries, "{percent} % of {requests}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn some_are_always_allowed() {
        let budget = budget(20, 3);
        assert_eq!(allowed(&budget, 10), 3);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(allowed(&budget, 10), 3);
        (0..100).for_each(|_| budget.request());
        // What was always allowed counts in the share as well.
        assert_eq!(allowed(&budget, 50), 25 - 6);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_is_forgotten() {
        let budget = budget(20, 0);
        (0..80).for_each(|_| budget.request());
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(allowed(&budget, 50), 20);
        tokio::time::advance(SECOND).await;
        (0..8).for_each(|_| budget.request());
        assert_eq!(allowed(&budget, 50), 0, "the retries are remembered, and the requests are not");
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(allowed(&budget, 50), 2);
        tokio::time::advance(1000 * SECOND).await;
        assert_eq!(allowed(&budget, 50), 0);
    }
}

#[cfg(all(test, towpath_loom))]
mod interleavings {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Counts two things at once at two moments, and says what is left.
    fn met(one: Duration, other: Duration, begin: &[Duration]) -> u64 {
        let window = Arc::new(Window::over(Duration::from_secs(10)));
        begin.iter().for_each(|at| window.add(*at));
        let theirs = Arc::clone(&window);
        let thread = thread::spawn(move || theirs.add(one));
        window.add(other);
        thread.join().unwrap();
        window.sum(other)
    }

    #[test]
    fn no_count_is_lost() {
        loom::model(|| assert_eq!(met(Duration::ZERO, Duration::ZERO, &[]), 2));
        // The number still holds a part that is over.
        let later = Duration::from_secs(10);
        loom::model(move || assert_eq!(met(later, later, &[Duration::ZERO]), 2));
    }

    #[test]
    fn what_is_taken_back_is_as_if_it_never_was() {
        loom::model(|| {
            let window = Arc::new(Window::over(Duration::from_secs(10)));
            let theirs = Arc::clone(&window);
            let thread = thread::spawn(move || {
                theirs.add(Duration::ZERO);
                theirs.take_back(Duration::ZERO);
            });
            window.add(Duration::ZERO);
            thread.join().unwrap();
            assert_eq!(window.sum(Duration::ZERO), 1);
        });
    }
}

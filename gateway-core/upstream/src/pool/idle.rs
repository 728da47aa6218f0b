//! Connections that wait for their next request. No clock: `now` is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::PoolSettings;
use super::key::{Key, Spread};

/// Stacks of idle connections, one per endpoint. The last one in is the first one out, so that those that a lower
/// load does not need grow old and are closed.
pub(super) struct Idle<T> {
    stacks: HashMap<Key, VecDeque<Parked<T>>, Spread>,
    total: usize,
}

struct Parked<T> {
    connection: T,
    since: Instant,
}

impl<T> Idle<T> {
    pub(super) fn new() -> Self {
        Self { stacks: HashMap::default(), total: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Keeps a connection. Over a bound, the endpoint's oldest goes, or this one if the endpoint has none.
    pub(super) fn put(&mut self, key: Key, connection: T, bounds: &PoolSettings, now: Instant) {
        let stack = self.stacks.entry(key).or_default();
        if stack.len() >= bounds.idle_per_endpoint || self.total >= bounds.idle_total {
            if stack.pop_front().is_none() {
                return;
            }
            self.total -= 1;
        }
        if bounds.idle_per_endpoint > 0 {
            stack.push_back(Parked { connection, since: now });
            self.total += 1;
        }
    }

    /// The newest connection that is still good; those that are not are dropped on the way.
    pub(super) fn take(
        &mut self,
        key: &Key,
        bounds: &PoolSettings,
        now: Instant,
        usable: impl Fn(&mut T) -> bool,
    ) -> Option<T> {
        let stack = self.stacks.get_mut(key)?;
        while let Some(mut parked) = stack.pop_back() {
            self.total -= 1;
            if parked.fresh(bounds, now) && usable(&mut parked.connection) {
                return Some(parked.connection);
            }
        }
        None
    }

    /// Drops what is unused for too long or no longer good.
    pub(super) fn evict(&mut self, bounds: &PoolSettings, now: Instant, usable: impl Fn(&mut T) -> bool) {
        for stack in self.stacks.values_mut() {
            stack.retain_mut(|parked| parked.fresh(bounds, now) && usable(&mut parked.connection));
        }
        self.stacks.retain(|_, stack| !stack.is_empty());
        self.total = self.stacks.values().map(VecDeque::len).sum();
    }
}

impl<T> Parked<T> {
    fn fresh(&self, bounds: &PoolSettings, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < bounds.idle_timeout
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use towpath_gateway_core::Endpoint;

    use super::*;

    fn key(port: u16) -> Key {
        Key::of(&Endpoint::plaintext(([127, 0, 0, 1], port).into()))
    }

    fn bounds(per_endpoint: usize, total: usize) -> PoolSettings {
        PoolSettings { idle_per_endpoint: per_endpoint, idle_total: total, ..PoolSettings::default() }
    }

    #[test]
    fn the_last_in_is_the_first_out() {
        let (mut idle, bounds, now) = (Idle::new(), bounds(8, 8), Instant::now());
        (0..3).for_each(|n| idle.put(key(1), n, &bounds, now));
        assert_eq!(idle.take(&key(1), &bounds, now, |_| true), Some(2));
        assert_eq!(idle.take(&key(2), &bounds, now, |_| true), None);
    }

    #[test]
    fn what_is_no_longer_good_is_passed_over() {
        let (mut idle, bounds, now) = (Idle::new(), bounds(8, 8), Instant::now());
        (0..4).for_each(|n| idle.put(key(1), n, &bounds, now));
        assert_eq!(idle.take(&key(1), &bounds, now, |n| *n < 2), Some(1));
        assert_eq!(idle.total, 1);
    }

    #[test]
    fn nothing_is_handed_out_after_the_idle_timeout() {
        let (mut idle, bounds, now) = (Idle::new(), bounds(8, 8), Instant::now());
        idle.put(key(1), 1, &bounds, now);
        let late = now + bounds.idle_timeout;
        assert_eq!(idle.take(&key(1), &bounds, late, |_| true), None);
        idle.put(key(1), 2, &bounds, late);
        let just_before = late + bounds.idle_timeout.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(idle.take(&key(1), &bounds, just_before, |_| true), Some(2));
    }

    #[test]
    fn over_the_bound_the_oldest_goes() {
        let (mut idle, bounds, now) = (Idle::new(), bounds(2, 8), Instant::now());
        (0..3).for_each(|n| idle.put(key(1), n, &bounds, now));
        assert_eq!(idle.take(&key(1), &bounds, now, |_| true), Some(2));
        assert_eq!(idle.take(&key(1), &bounds, now, |_| true), Some(1));
        assert_eq!(idle.take(&key(1), &bounds, now, |_| true), None);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_the_count_is_right(
            steps in proptest::collection::vec((0u16..4, 0u8..4, 0u64..60), 0..80),
            per_endpoint in 0usize..4,
            total in 0usize..6,
        ) {
            let (mut idle, bounds, mut now) = (Idle::new(), bounds(per_endpoint, total), Instant::now());
            for (port, step, seconds) in steps {
                match step {
                    0 => drop(idle.take(&key(port), &bounds, now, |()| true)),
                    1 => { now += Duration::from_secs(seconds); idle.evict(&bounds, now, |()| true); }
                    _ => idle.put(key(port), (), &bounds, now),
                }
                prop_assert!(idle.stacks.values().all(|stack| stack.len() <= per_endpoint));
                prop_assert_eq!(idle.total, idle.stacks.values().map(VecDeque::len).sum::<usize>());
                prop_assert!(idle.total <= total);
            }
        }
    }
}

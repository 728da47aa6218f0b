//! The arithmetic of a limit: the generic cell rate algorithm (ITU-T I.371, annex A), integers only, no clock.
//!
//! A bucket is one number, the *theoretical arrival time*: when the bucket will be full again. Every request moves
//! it on by one emission interval, and is refused if that would lead further ahead of now than the burst allows.
//! In any window, however it lies, at most `burst + window / interval` requests pass.

use std::num::NonZeroU32;
use std::time::Duration;

/// Nanoseconds per tick. Time is counted in ticks so that it fits beside a key's tag in one word of the store; the
/// pace of a limit is exact to one tick per request.
const TICK: u128 = 64;

/// The last moment that can be told: 52 bits of ticks, nine years after the store was made.
pub(crate) const LAST: u64 = (1 << 52) - 1;

const LONGEST_INTERVAL: u64 = 1 << 48;
const LARGEST_CAPACITY: u64 = 1 << 50;

/// A duration in ticks, rounded down; [`LAST`] for anything longer.
pub(crate) fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos() / TICK).map_or(LAST, |ticks| ticks.min(LAST))
}

/// Ticks as a duration.
pub(crate) fn duration(ticks: u64) -> Duration {
    let nanos = u128::from(ticks) * TICK;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How fast a bucket refills, and how much it holds; both in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pace {
    interval: u64,
    capacity: u64,
}

impl Pace {
    /// `requests` per `period`, `burst` of them at once. Limits beyond 15 million requests per second, one request
    /// per 200 days, or a burst worth two years are held to these bounds.
    pub(crate) fn new(requests: NonZeroU32, period: Duration, burst: NonZeroU32) -> Self {
        let interval = (ticks(period) / u64::from(requests.get())).clamp(1, LONGEST_INTERVAL);
        let capacity = interval.saturating_mul(u64::from(burst.get())).min(LARGEST_CAPACITY);
        Self { interval, capacity }
    }

    /// Whether a request may pass at `now`, given the bucket's theoretical arrival time `tat`.
    pub(crate) fn decide(self, tat: u64, now: u64) -> Verdict {
        let moved = tat.max(now).saturating_add(self.interval);
        let ahead = moved - now;
        if ahead <= self.capacity && moved <= LAST {
            Verdict::Allow { tat: moved, remaining: (self.capacity - ahead) / self.interval, reset: ahead }
        } else {
            Verdict::Refuse { retry_after: ahead.saturating_sub(self.capacity).max(1) }
        }
    }
}

/// What the arithmetic says; times in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request passes.
    Allow {
        /// The bucket's new theoretical arrival time.
        tat: u64,
        /// How many more would pass at this very moment.
        remaining: u64,
        /// How long until the bucket is full again.
        reset: u64,
    },
    /// The request is refused; nothing changes.
    Refuse {
        /// When the next one passes if none comes before.
        retry_after: u64,
    },
}

#[cfg(test)]
#[cfg(not(towpath_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(requests: u32, period: Duration, burst: u32) -> Pace {
        Pace::new(NonZeroU32::new(requests).unwrap(), period, NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_fresh_bucket_admits_its_burst_and_then_one_per_interval() {
        let pace = Pace { interval: 10, capacity: 30 };
        for (tat, now, verdict) in [
            (0, 100, Verdict::Allow { tat: 110, remaining: 2, reset: 10 }),
            (110, 100, Verdict::Allow { tat: 120, remaining: 1, reset: 20 }),
            (120, 100, Verdict::Allow { tat: 130, remaining: 0, reset: 30 }),
            (130, 100, Verdict::Refuse { retry_after: 10 }),
            (130, 109, Verdict::Refuse { retry_after: 1 }),
            (130, 110, Verdict::Allow { tat: 140, remaining: 0, reset: 30 }),
            (130, 130, Verdict::Allow { tat: 140, remaining: 2, reset: 10 }),
            (130, 999, Verdict::Allow { tat: 1009, remaining: 2, reset: 10 }),
        ] {
            assert_eq!(pace.decide(tat, now), verdict, "tat {tat}, now {now}");
        }
    }

    #[test]
    fn settings_become_ticks_of_64_nanoseconds() {
        let second = Duration::from_secs(1);
        for (made, interval, capacity) in [
            (pace(10, second, 10), 1_562_500, 15_625_000),
            (pace(3, second, 3), 5_208_333, 15_624_999),
            (pace(60, Duration::from_mins(1), 1), 15_625_000, 15_625_000),
            (pace(u32::MAX, second, 5), 1, 5),
            (pace(1, Duration::ZERO, 5), 1, 5),
            (pace(1, Duration::MAX, u32::MAX), LONGEST_INTERVAL, LARGEST_CAPACITY),
        ] {
            assert_eq!(made, Pace { interval, capacity });
        }
    }

    #[test]
    fn a_full_second_brings_back_a_full_burst_of_an_uneven_pace() {
        let pace = pace(3, Duration::from_secs(1), 3);
        let mut tat = 0;
        for now in [0, 0, 0, 1, 1, 1].map(|second| ticks(Duration::from_secs(second))) {
            let Verdict::Allow { tat: moved, .. } = pace.decide(tat, now) else { panic!("refused at {now}") };
            tat = moved;
        }
        assert!(matches!(pace.decide(tat, ticks(Duration::from_secs(1))), Verdict::Refuse { .. }));
    }

    #[test]
    fn the_end_of_time_refuses() {
        let pace = Pace { interval: 10, capacity: 30 };
        assert!(matches!(pace.decide(0, LAST), Verdict::Refuse { .. }));
        assert!(matches!(pace.decide(u64::MAX, LAST), Verdict::Refuse { .. }));
    }

    #[test]
    fn durations_survive_the_ticks() {
        assert_eq!(duration(ticks(Duration::from_millis(1500))), Duration::from_millis(1500));
        assert_eq!(ticks(Duration::MAX), LAST);
    }

    fn allows(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Allow { .. })
    }

    fn refuses(verdict: Verdict) -> bool {
        !allows(verdict)
    }

    /// Admits by the definition alone: no window that ends now may hold more than its length and the burst allow.
    #[derive(Default)]
    struct Oracle(Vec<u64>);

    impl Oracle {
        fn admits(&mut self, pace: Pace, now: u64) -> bool {
            let fits = self.0.iter().chain([&now]).enumerate().all(|(first, began)| {
                let count = (self.0.len() - first + 1) as u64;
                count * pace.interval <= pace.capacity + (now - began)
            });
            if fits {
                self.0.push(now);
            }
            fits
        }
    }

    fn any_pace() -> impl Strategy<Value = Pace> {
        (1_u64..50, 1_u64..12).prop_map(|(interval, burst)| Pace { interval, capacity: interval * burst })
    }

    proptest! {
        #[test]
        fn every_decision_is_the_oracles(pace in any_pace(), gaps in prop::collection::vec(0_u64..60, 1..120)) {
            let (mut tat, mut now, mut oracle) = (0, 1000, Oracle::default());
            for gap in gaps {
                now += gap;
                let verdict = pace.decide(tat, now);
                prop_assert_eq!(matches!(verdict, Verdict::Allow { .. }), oracle.admits(pace, now));
                if let Verdict::Allow { tat: moved, .. } = verdict {
                    tat = moved;
                }
            }
        }

        #[test]
        fn waiting_as_told_is_enough_and_waiting_less_is_not(pace in any_pace(), tat in 0_u64..2000, now in 0_u64..2000) {
            if let Verdict::Refuse { retry_after } = pace.decide(tat, now) {
                let earlier = pace.decide(tat, now + retry_after - 1);
                prop_assert!(refuses(earlier));
                let told = pace.decide(tat, now + retry_after);
                prop_assert!(allows(told));
            }
        }

        #[test]
        fn remaining_is_what_would_pass_at_once(pace in any_pace(), tat in 0_u64..600, now in 0_u64..600) {
            if let Verdict::Allow { tat: mut moved, remaining, .. } = pace.decide(tat, now) {
                for _ in 0..remaining {
                    let Verdict::Allow { tat: next, .. } = pace.decide(moved, now) else {
                        return Err(TestCaseError::fail("promised more than it admits"));
                    };
                    prop_assert!(next > moved);
                    moved = next;
                }
                let over = pace.decide(moved, now);
                prop_assert!(refuses(over));
            }
        }

        #[test]
        fn no_numbers_overflow(tat: u64, now in 0..=LAST, requests in 1_u32.., nanos: u64, burst in 1_u32..) {
            let pace = pace(requests, Duration::from_nanos(nanos), burst);
            if let Verdict::Allow { tat: moved, .. } = pace.decide(tat, now) {
                prop_assert!(moved <= LAST && moved > tat);
            }
        }
    }
}

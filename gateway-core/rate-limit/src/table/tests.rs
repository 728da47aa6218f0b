use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::gcra::ticks;

const SECOND: u64 = 15_625_000;

fn pace(requests: u32, burst: u32) -> Pace {
    Pace::new(NonZeroU32::new(requests).unwrap(), Duration::from_secs(1), NonZeroU32::new(burst).unwrap())
}

/// A key with this tag and this home.
fn key(tag: u64, home: u64) -> u64 {
    tag << (TIME_BITS + 1) | home
}

fn admits(table: &Table, key: u64, pace: Pace, now: u64) -> bool {
    matches!(table.charge(key, pace, now), Verdict::Allow { .. })
}

fn burst(table: &Table, key: u64, pace: Pace, now: u64) -> u32 {
    (0..100).map(|_| u32::from(admits(table, key, pace, now))).sum()
}

#[test]
fn capacity_is_a_power_of_two_within_bounds() {
    for (asked, given) in [(0, 1), (1, 1), (3, 4), (1024, 1024)] {
        assert_eq!(Table::with_capacity(asked).capacity(), given);
    }
}

#[test]
fn each_key_has_a_bucket_of_its_own() {
    let table = Table::with_capacity(64);
    for home in 0..64 {
        assert_eq!(burst(&table, key(7, home), pace(1, 5), SECOND), 5, "home {home}");
    }
    for home in 0..64 {
        assert_eq!(burst(&table, key(7, home), pace(1, 5), SECOND), 0, "home {home}");
        assert_eq!(burst(&table, key(7, home), pace(1, 5), 3 * SECOND), 2, "home {home}");
    }
}

#[test]
fn neighbours_in_force_leave_a_key_its_debt() {
    let table = Table::with_capacity(64);
    assert_eq!(burst(&table, key(1, 0), pace(1, 5), SECOND), 5);
    for tag in 2..1000 {
        admits(&table, key(tag, 0), pace(1, 5), SECOND);
    }
    assert_eq!(burst(&table, key(1, 0), pace(1, 5), SECOND), 0);
}

#[test]
fn keys_without_a_home_are_counted_together() {
    let table = Table::with_capacity(1);
    assert!(admits(&table, key(1, 0), pace(1, 3), SECOND));
    assert_eq!(burst(&table, key(2, 0), pace(1, 3), SECOND), 3);
    assert_eq!(burst(&table, key(3, 0), pace(1, 3), SECOND), 0);
}

#[test]
fn a_key_moves_home_only_when_its_shared_bucket_is_idle() {
    let table = Table::with_capacity(1);
    assert!(admits(&table, key(1, 0), pace(1, 3), SECOND));
    assert_eq!(burst(&table, key(2, 0), pace(1, 3), SECOND), 3);
    // The home is free now, but the debt of three seconds is not paid off.
    assert_eq!(burst(&table, key(2, 0), pace(1, 3), 2 * SECOND), 1);
    assert_eq!(burst(&table, key(2, 0), pace(1, 3), 5 * SECOND), 3);
    // It has moved: a neighbour takes the shared bucket and finds it full.
    assert_eq!(burst(&table, key(3, 0), pace(1, 3), 5 * SECOND), 3);
}

#[test]
fn no_tag_is_taken_for_an_empty_home() {
    let table = Table::with_capacity(1);
    assert!(admits(&table, key(9, 0), pace(1, 1), SECOND));
    assert_eq!(burst(&table, key(0, 0), pace(1, 1), SECOND), 1);
    assert_eq!(burst(&table, key(0, 0), pace(1, 1), 2 * SECOND - 1), 0);
}

#[test]
fn the_end_of_time_refuses_without_a_loop() {
    let table = Table::with_capacity(4);
    assert!(!admits(&table, key(1, 0), pace(1, 1), u64::MAX));
}

#[test]
fn threads_together_pass_no_more_than_the_limit() {
    // Sixteen keys on four slots, so that homes change hands all the time.
    let (table, pace) = (Table::with_capacity(4), pace(2_000, 10));
    let counts: Vec<AtomicU32> = (0..16).map(|_| AtomicU32::new(0)).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (table, counts) = (&table, &counts);
            scope.spawn(move || {
                for n in 0..100_000_u64 {
                    let index = (n * 7 + thread * 5) % 16;
                    let now = SECOND + ticks(start.elapsed());
                    let admitted = admits(table, key(index + 1, index % 4), pace, now);
                    counts[usize::try_from(index).unwrap()].fetch_add(u32::from(admitted), Ordering::Relaxed);
                }
            });
        }
    });
    let bound = 10 + u32::try_from(start.elapsed().as_micros() / 500).unwrap() + 1;
    for count in counts {
        let count = count.into_inner();
        assert!((1..=bound).contains(&count), "{count} admitted, {bound} allowed");
    }
}

proptest! {
    #[test]
    fn no_order_of_requests_takes_any_key_over_its_limit(
        requests in prop::collection::vec((0_u64..6, 0_u64..SECOND), 1..300),
    ) {
        let (table, pace) = (Table::with_capacity(2), pace(2, 3));
        let mut alone: HashMap<u64, (u64, u32)> = HashMap::new();
        let mut now = SECOND;
        for (index, gap) in requests {
            now += gap / 4;
            if admits(&table, key(index + 1, index % 2), pace, now) {
                // Whatever the table admits, a bucket of the key's own would have admitted.
                let (tat, count) = alone.entry(index).or_default();
                let Verdict::Allow { tat: moved, .. } = pace.decide(*tat, now) else {
                    return Err(TestCaseError::fail(format!("key {index} over its limit after {count}")));
                };
                (*tat, *count) = (moved, *count + 1);
            }
        }
    }

    #[test]
    fn a_table_with_room_is_exact(requests in prop::collection::vec((0_u64..8, 0_u64..SECOND), 1..300)) {
        let (table, pace) = (Table::with_capacity(8), pace(2, 3));
        let mut alone: HashMap<u64, u64> = HashMap::new();
        let mut now = SECOND;
        for (index, gap) in requests {
            now += gap / 4;
            let tat = alone.entry(index).or_default();
            let expected = pace.decide(*tat, now);
            if let Verdict::Allow { tat: moved, .. } = expected {
                *tat = moved;
            }
            prop_assert_eq!(table.charge(key(index + 1, index), pace, now), expected);
        }
    }
}

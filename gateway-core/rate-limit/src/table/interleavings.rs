//! Every order in which threads can meet at one home, within loom's bounds.
//!
//! A table of one slot makes all keys neighbours: they share the one home and the one shared bucket.

use std::num::NonZeroU32;
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::*;

const A: u64 = 1 << 53;
const B: u64 = 2 << 53;

/// One request per second, so many at once.
fn pace(burst: u32) -> Pace {
    Pace::new(NonZeroU32::MIN, Duration::from_secs(1), NonZeroU32::new(burst).unwrap())
}

const SECOND: u64 = 15_625_000;

fn admitted(verdict: Verdict) -> u32 {
    u32::from(matches!(verdict, Verdict::Allow { .. }))
}

/// The newcomers' requests at `now`, each on a thread of its own but the last; how many were admitted.
fn race(table: &Arc<Table>, burst: u32, requests: &[(u64, u64)]) -> u32 {
    let (last, others) = requests.split_last().unwrap();
    let threads: Vec<_> = others
        .iter()
        .map(|&(key, now)| {
            let table = Arc::clone(table);
            thread::spawn(move || admitted(table.charge(key, pace(burst), now)))
        })
        .collect();
    let own = admitted(table.charge(last.0, pace(burst), last.1));
    own + threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
}

#[test]
fn two_threads_with_a_new_key_get_one_bucket() {
    loom::model(|| {
        let table = Arc::new(Table::with_capacity(1));
        assert_eq!(race(&table, 1, &[(A, SECOND), (A, SECOND)]), 1);
    });
}

#[test]
fn a_known_key_is_charged_exactly() {
    loom::model(|| {
        let table = Arc::new(Table::with_capacity(1));
        assert_eq!(admitted(table.charge(A, pace(2), SECOND)), 1);
        assert_eq!(race(&table, 2, &[(A, SECOND), (A, SECOND)]), 1);
    });
}

#[test]
fn a_key_that_moves_home_takes_no_second_burst() {
    // To the first thread the neighbour is still in force, to the second no longer.
    loom::model(|| {
        let table = Arc::new(Table::with_capacity(1));
        table.charge(B, pace(1), SECOND);
        assert_eq!(race(&table, 1, &[(A, 2 * SECOND - 1), (A, 2 * SECOND)]), 1);
    });
}

#[test]
fn three_threads_around_a_move_take_no_second_burst() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let table = Arc::new(Table::with_capacity(1));
        table.charge(B, pace(1), SECOND);
        let all = [(A, 2 * SECOND - 1), (A, 2 * SECOND), (A, 2 * SECOND)];
        assert_eq!(race(&table, 1, &all), 1);
    });
}

#[test]
fn neighbours_that_race_for_a_home_each_keep_to_their_limit() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let table = Arc::new(Table::with_capacity(1));
        let table_of_b = Arc::clone(&table);
        let b = thread::spawn(move || admitted(table_of_b.charge(B, pace(1), SECOND)));
        let a = race(&table, 1, &[(A, SECOND), (A, SECOND)]);
        // Neighbours may be counted together, so that one of the two is refused, but never both.
        assert!(a <= 1 && a + b.join().unwrap() >= 1);
    });
}

//! Whether a request is sent again. No tower, no clock: `now` is an argument.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use towpath_gateway_core::Replay;

use crate::Retry;

/// The longest wait, as a multiple of the first.
const MOST: u32 = 10;

/// What is known when a try has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// How the try ended.
    pub(super) end: End,
    /// Whether sending the request twice does no more than sending it once (RFC 9110 section 9.2.2).
    pub(super) idempotent: bool,
    /// Whether its body can be sent once more from the start.
    pub(super) body_in_hand: bool,
    /// Tries so far.
    pub(super) tries: u32,
    /// When the whole request must have been answered.
    pub(super) deadline: Option<Instant>,
    /// A random number, 0 to 1023, that spreads the waits of many.
    pub(super) jitter: u32,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fault(Replay),
    Status(StatusCode),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send the request again after this wait.
    Again { after: Duration },
    /// What there is, is the answer.
    Stop,
    /// Another try is due, and there is no time left for it.
    TooLate,
}

pub(super) fn decide(policy: &Retry, facts: &Facts, now: Instant) -> Verdict {
    if facts.tries > policy.attempts || !facts.body_in_hand || !is_safe(policy, facts) {
        return Verdict::Stop;
    }
    let after = wait(policy.backoff, facts.tries, facts.jitter);
    match facts.deadline {
        Some(deadline) if now + after >= deadline => Verdict::TooLate,
        _ => Verdict::Again { after },
    }
}

fn is_safe(policy: &Retry, facts: &Facts) -> bool {
    match facts.end {
        End::Fault(Replay::Always) => true,
        End::Fault(Replay::IfIdempotent) => facts.idempotent,
        End::Fault(Replay::Never) => false,
        End::Status(status) => facts.idempotent && policy.codes.contains(&status),
    }
}

/// Doubled with each try, up to half as long again by chance; never shorter than `first` (GEP-1731: a minimum).
fn wait(first: Duration, tries: u32, jitter: u32) -> Duration {
    let doubled = first.saturating_mul(1 << tries.saturating_sub(1).min(MOST));
    let spread = doubled / 2048 * jitter.min(1023);
    doubled.saturating_add(spread).min(first.saturating_mul(MOST))
}

/// Methods that may be repeated without harm (RFC 9110 section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Retry {
        Retry {
            attempts: 2,
            codes: vec![StatusCode::SERVICE_UNAVAILABLE],
            backoff: Duration::from_millis(25),
        }
    }

    fn facts(end: End, idempotent: bool) -> Facts {
        Facts { end, idempotent, body_in_hand: true, tries: 1, deadline: None, jitter: 0 }
    }

    fn again(policy: &Retry, facts: &Facts) -> bool {
        matches!(decide(policy, facts, Instant::now()), Verdict::Again { .. })
    }

    #[test]
    fn methods() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(&method.parse().unwrap()), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "LOCK"] {
            assert!(!is_idempotent(&method.parse().unwrap()), "{method}");
        }
    }

    #[test]
    fn what_is_repeated() {
        let table = [
            (End::Fault(Replay::Always), true, true),
            (End::Fault(Replay::Always), false, true),
            (End::Fault(Replay::IfIdempotent), true, true),
            (End::Fault(Replay::IfIdempotent), false, false),
            (End::Fault(Replay::Never), true, false),
            (End::Fault(Replay::Never), false, false),
            (End::Status(StatusCode::SERVICE_UNAVAILABLE), true, true),
            (End::Status(StatusCode::SERVICE_UNAVAILABLE), false, false),
            (End::Status(StatusCode::BAD_GATEWAY), true, false),
            (End::Status(StatusCode::OK), true, false),
        ];
        for (end, idempotent, expected) in table {
            assert_eq!(
                again(&policy(), &facts(end, idempotent)),
                expected,
                "{end:?}, idempotent: {idempotent}"
            );
        }
    }

    #[test]
    fn the_number_of_tries_and_the_body_bound_it() {
        let first = facts(End::Fault(Replay::Always), true);
        assert!(again(&policy(), &Facts { tries: 2, ..first }));
        assert!(!again(&policy(), &Facts { tries: 3, ..first }));
        assert!(!again(&policy(), &Facts { body_in_hand: false, ..first }));
        assert!(!again(&Retry { attempts: 0, ..policy() }, &first));
    }

    #[test]
    fn waits_double_up_to_ten_times_the_first() {
        let first = Duration::from_millis(20);
        let waits: Vec<_> = (1..=6).map(|tries| wait(first, tries, 0).as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 200, 200]);
        assert!(wait(first, 1, 1023) > Duration::from_millis(29));
    }

    #[test]
    fn nothing_begins_after_the_deadline() {
        let now = Instant::now();
        let at = |millis| Some(now + Duration::from_millis(millis));
        let base = facts(End::Fault(Replay::Always), true);
        assert_eq!(decide(&policy(), &Facts { deadline: at(25), ..base }, now), Verdict::TooLate);
        let after = Duration::from_millis(25);
        assert_eq!(decide(&policy(), &Facts { deadline: at(26), ..base }, now), Verdict::Again { after });
    }

    proptest! {
        #[test]
        fn what_may_have_been_processed_is_repeated_only_if_idempotent(
            replay in prop_oneof![Just(Replay::IfIdempotent), Just(Replay::Never)],
            status in proptest::option::of(100u16..600),
            attempts in 0u32..5, tries in 1u32..6, jitter: u32, body_in_hand: bool,
        ) {
            let end = status.map_or(End::Fault(replay), |code| End::Status(StatusCode::from_u16(code).unwrap()));
            let policy = Retry { attempts, codes: (100..600).map(|c| StatusCode::from_u16(c).unwrap()).collect(), ..policy() };
            let facts = Facts { end, idempotent: false, body_in_hand, tries, deadline: None, jitter };
            prop_assert!(!again(&policy, &facts));
        }

        #[test]
        fn waits_stay_within_their_bounds(millis in 0u64..10_000, tries in 0u32..100, jitter: u32) {
            let first = Duration::from_millis(millis);
            let wait = wait(first, tries, jitter);
            prop_assert!(wait >= first && wait <= first * MOST);
        }
    }
}

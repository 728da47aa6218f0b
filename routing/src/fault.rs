//! Which requests are delayed or aborted on purpose. No tower, no clock: random numbers are an argument.

use std::time::Duration;

use http::StatusCode;
use towpath_gateway_core::{GrpcStatus, Policy};

use crate::filter::Draw;

/// Failures that a rule injects, to try out how callers take them (Istio, `HTTPFaultInjection`). Which requests are
/// delayed and which are aborted is drawn independently of each other; a request that is both is aborted after its delay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FaultInjection {
    /// Holds requests back.
    pub delay: Option<Delay>,
    /// Answers requests in place of the backend.
    pub abort: Option<Abort>,
}

impl Policy for FaultInjection {}

/// Holds a share of the requests back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// For how long.
    pub fixed: Duration,
    /// How many.
    pub share: Share,
}

/// Ends a share of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// With what.
    pub status: AbortStatus,
    /// How many.
    pub share: Share,
}

/// What an aborted request is answered with. Each kind of caller gets its own form: gRPC callers the gRPC status that
/// is nearest to an HTTP status, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC status, in the trailers-only form.
    Grpc(GrpcStatus),
}

/// A share of the requests, in steps of one in a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) delay: Option<Duration>,
    pub(crate) abort: Option<AbortStatus>,
}

impl Share {
    const WHOLE: u32 = 1_000_000;
    /// Every request.
    pub const ALL: Self = Self(Self::WHOLE);

    /// A share by its percentage, 0 to 100, rounded to 0.0001; `None` for anything else.
    pub fn percent(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        // In range, so that the conversion loses nothing but the fraction.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is at most a million"
        )]
        Some(Self((percent * 10_000.0).round() as u32))
    }

    /// Of a million requests so many are taken.
    pub fn per_million(self) -> u32 {
        self.0
    }

    fn takes(self, draw: &impl Draw) -> bool {
        match self.0 {
            0 => false,
            Self::WHOLE => true,
            share => draw.below(u64::from(Self::WHOLE)) < u64::from(share),
        }
    }
}

impl AbortStatus {
    /// The HTTP status and the gRPC code that stand for it.
    pub(crate) fn both(self) -> (StatusCode, u16) {
        match self {
            Self::Http(status) => (status, GrpcStatus::of_http(status).code()),
            Self::Grpc(status) => (status.http(), status.code()),
        }
    }
}

impl FaultInjection {
    pub(crate) fn draw(&self, draw: &impl Draw) -> Injected {
        let delay = self.delay.filter(|delay| delay.share.takes(draw)).map(|delay| delay.fixed);
        let abort = self.abort.filter(|abort| abort.share.takes(draw)).map(|abort| abort.status);
        Injected { delay: delay.filter(|delay| !delay.is_zero()), abort }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_has_four_decimals() {
        for (percent, share) in [
            (0.0, Some(0)),
            (0.0001, Some(1)),
            (0.000_04, Some(0)),
            (12.5, Some(125_000)),
            (33.333_333, Some(333_333)),
            (100.0, Some(1_000_000)),
            (100.1, None),
            (-1.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            assert_eq!(Share::percent(percent).map(Share::per_million), share, "{percent}");
        }
    }

    #[test]
    fn delay_and_abort_are_drawn_each_for_itself() {
        let half = Share::percent(50.0).unwrap();
        let (fixed, status) = (Duration::from_secs(5), AbortStatus::Http(StatusCode::BAD_GATEWAY));
        let fault = FaultInjection {
            delay: Some(Delay { fixed, share: half }),
            abort: Some(Abort { status, share: half }),
        };
        for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
            let turn = AtomicU64::new(0);
            let draws = [first, second].map(|hit| if hit { 499_999 } else { 500_000 });
            let numbers = std::sync::Arc::new((turn, draws));
            let drawn = fault.draw(&move |bound| {
                assert_eq!(bound, 1_000_000);
                numbers.1[usize::try_from(numbers.0.fetch_add(1, Ordering::Relaxed)).unwrap()]
            });
            assert_eq!(drawn, Injected { delay: first.then_some(fixed), abort: second.then_some(status) });
        }
    }

    #[test]
    fn each_kind_of_caller_gets_a_status() {
        let unavailable = AbortStatus::Grpc("UNAVAILABLE".parse().unwrap());
        assert_eq!(unavailable.both(), (StatusCode::SERVICE_UNAVAILABLE, 14));
        assert_eq!(AbortStatus::Http(StatusCode::FORBIDDEN).both(), (StatusCode::FORBIDDEN, 7));
    }

    proptest! {
        #[test]
        fn a_share_takes_exactly_its_numbers(share in 0u32..=1_000_000, number in 0u64..1_000_000) {
            prop_assert_eq!(Share(share).takes(&move |_| number), number < u64::from(share));
        }
    }
}

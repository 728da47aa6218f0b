//! One time series of one shard: plain numbers that one worker adds to and a scrape reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the duration histogram, in seconds; one more bucket takes what is above.
pub(crate) const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What tells the series of finished requests apart. Its texts are shared, never copied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestKey {
    pub(crate) role: Arc<str>,
    pub(crate) listener: Arc<str>,
    /// `None`: no route took the request.
    pub(crate) route: Option<Arc<str>>,
    /// 0: there was no response.
    pub(crate) code: u16,
    /// `None`: the request ended well.
    pub(crate) reason: Option<&'static str>,
}

/// What tells the series of finished flows apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowKey {
    pub(crate) role: Arc<str>,
    pub(crate) listener: Arc<str>,
    pub(crate) protocol: &'static str,
    /// `None`: no route took the flow.
    pub(crate) route: Option<Arc<str>>,
    /// `None`: the flow ended well.
    pub(crate) reason: Option<&'static str>,
}

/// Count and bytes of flows.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) count: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

/// What tells the series of refusals apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RefusalKey {
    pub(crate) policy: Arc<str>,
    pub(crate) reason: &'static str,
}

/// What tells the series of policies apart that are told of and not enforced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ToldKey {
    /// `None`: no policy is concerned.
    pub(crate) policy: Option<Arc<str>>,
    pub(crate) verdict: Told,
}

/// What a policy that is not enforced has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Told {
    Audit,
    Allow,
    Deny,
}

/// Count and duration of requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Requests {
    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// The sum of series at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    buckets: [u64; BOUNDS.len() + 1],
    micros: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, series: &Requests) {
        for (total, bucket) in self.buckets.iter_mut().zip(&series.buckets) {
            *total += bucket.load(Ordering::Relaxed);
        }
        self.micros += series.micros.load(Ordering::Relaxed);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (total, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *total += bucket;
        }
        self.micros += other.micros;
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of the durations, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(self.micros).as_secs_f64()
    }

    /// Requests per bucket (not cumulated), with the upper bound in seconds.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.buckets).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(durations: &[Duration]) -> Totals {
        let series = Requests::default();
        for duration in durations {
            series.observe(*duration);
        }
        let mut totals = Totals::default();
        totals.add(&series);
        totals
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (micros, bound) in [(0, 0.0005), (500, 0.0005), (501, 0.001), (10_000_000, 10.0)] {
            let seen = totals(&[Duration::from_micros(micros)]);
            let hit: Vec<_> = seen.buckets().into_iter().filter(|(_, n)| *n > 0).collect();
            assert_eq!(hit, [(bound, 1)], "{micros}");
        }
    }

    #[test]
    fn what_is_above_all_bounds_is_counted() {
        let seen = totals(&[Duration::from_secs(11), Duration::from_secs(1)]);
        assert_eq!(seen.buckets().last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(seen.count(), 2);
        assert!((seen.seconds() - 12.0).abs() < 1e-9);
    }

    #[test]
    fn totals_merge() {
        let mut both = totals(&[Duration::from_millis(1)]);
        both.merge(&totals(&[Duration::from_millis(2)]));
        assert_eq!(both, totals(&[Duration::from_millis(1), Duration::from_millis(2)]));
    }
}

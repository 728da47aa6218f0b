//! Medians, percentiles, and the one place where counts become fractions.

use serde::Serialize;

/// Median with the least and the greatest of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these figures; nothing of no figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied();
        let upper = at(sorted.len() / 2)?;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at((sorted.len() / 2).checked_sub(1)?)?, upper)
        } else {
            upper
        };
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()? })
    }

    /// `median [min–max]` with so many decimals.
    pub(crate) fn text(&self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} [{min:.decimals$}–{max:.decimals$}]")
    }
}

/// The figure that `permille` of the sorted figures do not exceed.
pub(crate) fn percentile(sorted: &[u64], permille: usize) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((sorted.len() * permille / 1000).min(last)).copied()
}

/// A count as a fraction.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        for (figures, median) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 8.0], 3.0)]
        {
            assert_eq!(Spread::of(figures).map(|spread| spread.median), Some(median));
        }
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_spread_shows_both_ends() {
        assert_eq!(Spread::of([12.34, 10.0, 15.0]).unwrap().text(1), "12.3 [10.0–15.0]");
    }

    #[test]
    fn percentiles_take_the_last_at_most() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 500), Some(51));
        assert_eq!(percentile(&sorted, 990), Some(100));
        assert_eq!(percentile(&sorted, 1000), Some(100));
        assert_eq!(percentile(&[], 500), None);
    }
}

//! The source of random numbers as an argument, so that tests and simulations decide.

/// Gives a number below its argument, which is never 0.
pub type Random = fn(u64) -> u64;

/// The source that layers use unless told otherwise. Not for secrets.
pub(crate) fn below(bound: u64) -> u64 {
    fastrand::u64(..bound.max(1))
}

//! Data that configuration swaps while requests run.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that readers see whole, old or new, and never wait for.
///
/// A stack is built once per listener and holds `Live` handles; applying configuration stores new values.
/// Nothing is rebuilt and no stream is closed. A request that needs one view of a value for its whole life keeps
/// the `Arc` from [`Live::snapshot`].
///
/// ```
/// use towpath_gateway_core::Live;
///
/// let limit = Live::new(10);
/// let seen_by_a_layer = limit.clone();
/// limit.store(20);
/// assert_eq!(**seen_by_a_layer.load(), 20);
/// ```
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// Holds `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// The value of this moment, borrowed. Do not hold it across an `await`: use [`Live::snapshot`].
    pub fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
        self.0.load()
    }

    /// The value of this moment, kept for as long as the caller likes.
    pub fn snapshot(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts a new value in place. Readers that began earlier keep the old one.
    pub fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }

    /// Puts a shared value in place.
    pub fn store_arc(&self, value: Arc<T>) {
        self.0.store(value);
    }

    /// Whether two handles watch the same value.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.0.load()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_outlives_a_store() {
        let live = Live::new(1);
        let before = live.snapshot();
        live.store(2);
        assert_eq!((*before, **live.load()), (1, 2));
    }

    #[test]
    fn readers_see_whole_values_only() {
        let live = Live::new((0_u64, 0_u64));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let seen = live.snapshot();
                        assert_eq!(seen.0, seen.1);
                    }
                });
            }
            for n in 0..2_000 {
                live.store((n, n));
            }
        });
    }
}

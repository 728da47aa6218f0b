//! The choice of a backend by weight.

use crate::WeightedBackend;

/// A source of random numbers, for instance a closure over a seeded generator. [`fastrand::u64`] is the default of
/// the layer that uses it.
pub trait Draw: Clone + Send + Sync {
    /// A number below `bound`, which is at least 1, each equally likely.
    fn below(&self, bound: u64) -> u64;
}

impl<F: Fn(u64) -> u64 + Clone + Send + Sync> Draw for F {
    fn below(&self, bound: u64) -> u64 {
        self(bound)
    }
}

#[derive(Debug)]
pub(crate) struct Split {
    backends: Vec<WeightedBackend>,
    total: u64,
}

impl Split {
    pub(crate) fn over(backends: Vec<WeightedBackend>) -> Self {
        let total = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        Self { backends, total }
    }

    pub(crate) fn backends(&self) -> &[WeightedBackend] {
        &self.backends
    }

    /// The place of a backend by its share; `None` if no backend has one.
    pub(crate) fn choose(&self, draw: &impl Draw) -> Option<usize> {
        let mut left = match self.total {
            0 => return None,
            _ if self.backends.len() == 1 => return Some(0),
            total => draw.below(total),
        };
        self.backends.iter().position(|backend| {
            let weight = u64::from(backend.weight);
            let hit = left < weight;
            left = left.saturating_sub(weight);
            hit
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use towpath_gateway_core::Backend;

    use super::*;

    fn split(weights: &[u32]) -> Split {
        let backend = |weight: &u32| WeightedBackend::new(Arc::new(Backend::unresolved("b")), *weight);
        Split::over(weights.iter().map(backend).collect())
    }

    #[test]
    fn no_weight_at_all_chooses_none() {
        assert_eq!(split(&[]).choose(&|_| 0), None);
        assert_eq!(split(&[0, 0]).choose(&|_| 0), None);
        assert_eq!(split(&[0]).choose(&|_| 0), None);
    }

    proptest! {
        #[test]
        fn every_number_once_gives_exactly_the_weights(weights in proptest::collection::vec(0_u32..20, 1..6)) {
            let split = split(&weights);
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut counts = vec![0_u32; weights.len()];
            for number in 0..total {
                counts[split.choose(&move |_| number).unwrap()] += 1;
            }
            prop_assert_eq!(counts, weights);
        }
    }
}

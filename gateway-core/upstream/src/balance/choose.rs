//! Which endpoint takes a try. No clock, no state: turn and random numbers are arguments.

use std::sync::Arc;

use towpath_gateway_core::{Attempt, Backend, Balance, Endpoint, Fault, Reason};

/// Chooses an endpoint of `backend`; one that `tried` names only if no other can take the request.
///
/// The first try goes to `home`, where the request's session is, as long as it is an endpoint of the backend that takes
/// requests. An unresolved backend ends as `Unresolved`, one without an endpoint of positive weight as `NoEndpoint`.
pub(crate) fn choose(
    backend: &Backend,
    home: Option<&Arc<Endpoint>>,
    tried: &[Attempt],
    random: impl FnMut(u64) -> u64,
) -> Result<Arc<Endpoint>, Fault> {
    let Some(endpoints) = backend.endpoints() else {
        return Err(Fault::new(Reason::Unresolved).with_detail(backend.name.to_string()));
    };
    if let (Some(home), []) = (home, tried)
        && home.weight > 0
        && endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, home))
    {
        return Ok(Arc::clone(home));
    }
    let mut shares = Shares { endpoints, tried };
    if shares.total() == 0 {
        shares.tried = &[];
    }
    let chosen = match backend.balance {
        Balance::RoundRobin => shares.in_turn(backend.turn()),
        Balance::LeastRequest => shares.least_of_two(random),
    };
    chosen.cloned().ok_or_else(|| Fault::new(Reason::NoEndpoint).with_detail(backend.name.to_string()))
}

/// Endpoints laid end to end, each as long as its weight.
struct Shares<'a> {
    endpoints: &'a [Arc<Endpoint>],
    tried: &'a [Attempt],
}

impl<'a> Shares<'a> {
    fn weight(&self, endpoint: &Arc<Endpoint>) -> u64 {
        let tried = self.tried.iter().any(|attempt| Arc::ptr_eq(attempt.endpoint(), endpoint));
        if tried { 0 } else { u64::from(endpoint.weight) }
    }

    fn total(&self) -> u64 {
        self.endpoints.iter().map(|endpoint| self.weight(endpoint)).sum()
    }

    /// The endpoint whose share holds `place`, leaving out `without`.
    fn at(&self, mut place: u64, without: Option<&Arc<Endpoint>>) -> Option<&'a Arc<Endpoint>> {
        self.endpoints
            .iter()
            .filter(|endpoint| without.is_none_or(|other| !Arc::ptr_eq(endpoint, other)))
            .find(|endpoint| {
                let weight = self.weight(endpoint);
                let here = place < weight;
                place = place.saturating_sub(weight);
                here
            })
    }

    fn in_turn(&self, turn: usize) -> Option<&'a Arc<Endpoint>> {
        let total = self.total();
        let turn = (turn as u64).checked_rem(total)?;
        // A stride without common divisor still visits every place once a cycle, but spreads a heavy endpoint's turns.
        let place = u128::from(turn) * u128::from(stride(total)) % u128::from(total);
        self.at(u64::try_from(place).ok()?, None)
    }

    /// Two by weight at random, then the one with fewer requests in flight for its weight.
    fn least_of_two(&self, mut random: impl FnMut(u64) -> u64) -> Option<&'a Arc<Endpoint>> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let first = self.at(random(total), None)?;
        let rest = total - self.weight(first);
        if rest == 0 {
            return Some(first);
        }
        let second = self.at(random(rest), Some(first))?;
        Some(if burden(first, second) <= burden(second, first) { first } else { second })
    }
}

/// Requests in flight at `one`, scaled by the other's weight: compares `load / weight` without dividing.
fn burden(one: &Endpoint, other: &Endpoint) -> u128 {
    one.load.current() as u128 * u128::from(other.weight)
}

/// The number nearest below the golden section of `total` that has no divisor in common with it.
fn stride(total: u64) -> u64 {
    let start = total / 8 * 5 + total % 8 * 5 / 8;
    (1..=start).rev().find(|stride| gcd(*stride, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    a.checked_rem(b).map_or(a, |rest| gcd(b, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use towpath_gateway_core::Context;

    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        let at = |port: usize| Endpoint::plaintext(([127, 0, 0, 1], u16::try_from(port).unwrap()).into());
        weights
            .iter()
            .enumerate()
            .map(|(port, weight)| {
                let mut endpoint = at(port + 1);
                endpoint.weight = *weight;
                Arc::new(endpoint)
            })
            .collect()
    }

    fn backend(balance: Balance, weights: &[u32]) -> Backend {
        Backend::new("shop/reviews:80", balance, endpoints(weights))
    }

    fn index(backend: &Backend, chosen: &Arc<Endpoint>) -> usize {
        backend.endpoints().unwrap().iter().position(|one| Arc::ptr_eq(one, chosen)).unwrap()
    }

    fn tried(backend: &Backend, indices: &[usize]) -> Vec<Attempt> {
        let context = Context::new();
        let endpoints = backend.endpoints().unwrap();
        indices.iter().map(|index| context.begin_attempt(endpoints[*index].clone())).collect()
    }

    #[test]
    fn a_backend_that_cannot_be_used_says_why() {
        let reason = |backend: Backend| choose(&backend, None, &[], |_| 0).unwrap_err().reason();
        assert_eq!(reason(Backend::unresolved("shop/none:80")), Reason::Unresolved);
        for balance in [Balance::RoundRobin, Balance::LeastRequest] {
            assert_eq!(reason(backend(balance, &[])), Reason::NoEndpoint);
            assert_eq!(reason(backend(balance, &[0, 0])), Reason::NoEndpoint);
        }
    }

    #[test]
    fn the_less_burdened_of_two_takes_the_request() {
        let backend = backend(Balance::LeastRequest, &[1, 1, 4]);
        let all = backend.endpoints().unwrap();
        let _busy: Vec<_> = (0..2).map(|_| all[0].load.begin()).collect();
        let _less: Vec<_> = (0..4).map(|_| all[2].load.begin()).collect();
        // Place 0 is the first endpoint; place 1 of the rest is the third: 2/1 against 4/4.
        let mut places = [0, 1].into_iter();
        let chosen = choose(&backend, None, &[], |_| places.next().unwrap()).unwrap();
        assert_eq!(index(&backend, &chosen), 2);
    }

    #[test]
    fn a_heavy_endpoint_does_not_take_its_turns_in_one_go() {
        let backend = backend(Balance::RoundRobin, &[50, 50]);
        let turns: Vec<_> =
            (0..100).map(|_| index(&backend, &choose(&backend, None, &[], |_| 0).unwrap())).collect();
        let longest = turns.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap();
        assert!(longest <= 3, "{longest} in a row");
    }

    #[test]
    fn an_endpoint_that_was_tried_is_last_choice() {
        for balance in [Balance::RoundRobin, Balance::LeastRequest] {
            let backend = backend(balance, &[1, 1, 0]);
            let first = tried(&backend, &[0]);
            for place in 0..4 {
                let chosen = choose(&backend, None, &first, |bound| place % bound).unwrap();
                assert_eq!(index(&backend, &chosen), 1);
            }
            let both = tried(&backend, &[0, 1]);
            assert_ne!(index(&backend, &choose(&backend, None, &both, |_| 0).unwrap()), 2);
        }
    }

    #[test]
    fn a_session_goes_home_first_and_a_retry_leaves() {
        for balance in [Balance::RoundRobin, Balance::LeastRequest] {
            let backend = backend(balance, &[1, 1, 0]);
            let all = backend.endpoints().unwrap();
            for _ in 0..4 {
                let chosen = choose(&backend, Some(&all[1]), &[], |_| 0).unwrap();
                assert_eq!(index(&backend, &chosen), 1);
            }
            let again = choose(&backend, Some(&all[1]), &tried(&backend, &[1]), |_| 0).unwrap();
            assert_eq!(index(&backend, &again), 0);
            let drained = choose(&backend, Some(&all[2]), &[], |_| 0).unwrap();
            assert_ne!(index(&backend, &drained), 2);
            let gone = &endpoints(&[1])[0];
            assert!(!Arc::ptr_eq(&choose(&backend, Some(gone), &[], |_| 0).unwrap(), gone));
        }
    }

    proptest! {
        #[test]
        fn turns_are_shared_exactly_by_weight(weights in proptest::collection::vec(0u32..20, 1..8)) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let backend = backend(Balance::RoundRobin, &weights);
            let mut counts = vec![0; weights.len()];
            for _ in 0..total {
                counts[index(&backend, &choose(&backend, None, &[], |_| 0).unwrap())] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn weight_zero_takes_nothing(
            weights in proptest::collection::vec(prop_oneof![Just(0u32), 1u32..5], 1..8),
            loads in proptest::collection::vec(0usize..4, 8),
            numbers in proptest::collection::vec(any::<u64>(), 2),
        ) {
            let backend = backend(Balance::LeastRequest, &weights);
            let flights: Vec<_> = backend.endpoints().unwrap().iter().zip(loads)
                .flat_map(|(endpoint, load)| (0..load).map(move |_| endpoint.load.begin())).collect();
            let mut numbers = numbers.into_iter();
            match choose(&backend, None, &[], |bound| numbers.next().unwrap_or(0) % bound) {
                Ok(chosen) => prop_assert!(chosen.weight > 0),
                Err(fault) => {
                    prop_assert_eq!(fault.reason(), Reason::NoEndpoint);
                    prop_assert!(weights.iter().all(|weight| *weight == 0));
                }
            }
            drop(flights);
        }

        #[test]
        fn a_stride_visits_every_place(total in 1u64..2000) {
            prop_assert_eq!(gcd(stride(total), total), 1);
        }
    }
}

//! The series that were counted in last, found without a look at their texts.

use std::fmt;
use std::sync::Arc;

use super::series::{RequestKey, Requests};
use crate::recorder::Origin;

/// Places, a power of two. A busy process has a few series per route.
const PLACES: usize = 256;

/// What tells the series of one request apart, borrowed.
pub(super) struct Names<'a> {
    pub(super) origin: &'a Origin,
    pub(super) route: Option<&'a Arc<str>>,
    pub(super) code: u16,
    pub(super) reason: Option<&'static str>,
}

/// One series a place. Texts are compared by address: a place holds its texts, so that no other can come to lie
/// where one of them is. A text that is equal but not the same is merely not found here.
pub(super) struct Recent(Vec<Option<(RequestKey, Arc<Requests>)>>);

impl Default for Recent {
    fn default() -> Self {
        Self(vec![None; PLACES])
    }
}

impl Recent {
    /// The series of `names`, from `all` if it is not here.
    pub(super) fn find(
        &mut self,
        names: &Names<'_>,
        all: impl FnOnce(&RequestKey) -> Arc<Requests>,
    ) -> &Requests {
        let at = names.place() % self.0.len();
        #[allow(clippy::indexing_slicing)] // reduced to the length
        let place = &mut self.0[at];
        if place.as_ref().is_some_and(|(key, _)| !names.are(key)) {
            *place = None;
        }
        let (_, series) = place.get_or_insert_with(|| {
            let key = names.key();
            let series = all(&key);
            (key, series)
        });
        series
    }
}

impl Names<'_> {
    fn place(&self) -> usize {
        let address = |text: &Arc<str>| text.as_ptr().addr() as u64;
        let route = self.route.map_or(0, address);
        let mixed =
            route ^ address(&self.origin.listener).rotate_left(32) ^ u64::from(self.code).rotate_left(16);
        // The golden ratio's multiplier spreads neighbours over the high bits.
        usize::try_from(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap_or_default()
    }

    fn are(&self, key: &RequestKey) -> bool {
        let route = match (self.route, &key.route) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        route
            && self.code == key.code
            && Arc::ptr_eq(&self.origin.listener, &key.listener)
            && Arc::ptr_eq(&self.origin.facts.role, &key.role)
            && self.reason == key.reason
    }

    fn key(&self) -> RequestKey {
        RequestKey {
            role: self.origin.facts.role.clone(),
            listener: self.origin.listener.clone(),
            route: self.route.cloned(),
            code: self.code,
            reason: self.reason,
        }
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recent({} places)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::ProcessFacts;

    #[test]
    fn more_series_than_places_each_keep_their_own_count() {
        let origin =
            Origin { facts: ProcessFacts::new("gateway", "a", "b"), pid: 1, listener: "public".into() };
        let routes: Vec<Arc<str>> = (0..2 * PLACES).map(|n| n.to_string().into()).collect();
        let (mut recent, mut all) = (Recent::default(), HashMap::new());
        let mut count = |route: Option<&Arc<str>>, code, reason| {
            let names = Names { origin: &origin, route, code, reason };
            let series = |key: &RequestKey| Arc::clone(all.entry(key.clone()).or_default());
            recent.find(&names, series).observe(Duration::ZERO);
        };
        for _ in 0..3 {
            for route in &routes {
                count(Some(route), 200, None);
                count(Some(&route.as_ref().into()), 200, None); // the same text elsewhere
                count(Some(route), 503, Some("no_endpoint"));
            }
            count(None, 404, Some("no_route"));
        }
        let of = |key: &RequestKey| {
            let mut totals = super::super::series::Totals::default();
            totals.add(&all[key]);
            totals.count()
        };
        assert_eq!(all.len(), 2 * routes.len() + 1);
        assert!(all.keys().all(|key| of(key) == if key.code == 200 { 6 } else { 3 }));
    }
}

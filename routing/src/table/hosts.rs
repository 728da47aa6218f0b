//! Things filed by host name, found from the most to the least specific.

use std::sync::Arc;

use super::map::Map;
use crate::Hostname;

#[derive(Debug)]
pub(crate) struct ByHost<T> {
    exact: Map<Arc<str>, T>,
    suffixes: Map<Arc<str>, T>,
    /// Length of the longest suffix: a long host costs no more look-ups than that.
    longest: usize,
    any: Option<T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self { exact: Map::default(), suffixes: Map::default(), longest: 0, any: None }
    }
}

impl<T: Default> ByHost<T> {
    /// The place of a name, made if it is new.
    pub(crate) fn at(&mut self, name: &Hostname) -> &mut T {
        match name {
            Hostname::Any => self.any.get_or_insert_with(T::default),
            Hostname::Exact(name) => self.exact.entry(Arc::clone(name)).or_default(),
            Hostname::Suffix(suffix) => {
                self.longest = self.longest.max(suffix.len());
                self.suffixes.entry(Arc::clone(suffix)).or_default()
            }
        }
    }

    /// Does something to every place.
    pub(crate) fn each(&mut self, act: impl FnMut(&mut T)) {
        self.exact.values_mut().chain(self.suffixes.values_mut()).chain(self.any.as_mut()).for_each(act);
    }
}

impl<T> ByHost<T> {
    /// Places whose name stands for `host`: the exact one, wildcards from the longest, the one for any host.
    pub(crate) fn matching<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a T> + use<'a, 'h, T> {
        // A wildcard needs at least one character in front of its dot.
        let from = host.len().saturating_sub(self.longest).max(1);
        let wildcards = host
            .bytes()
            .enumerate()
            .skip(from)
            .filter(|(_, byte)| *byte == b'.')
            .filter_map(|(at, _)| self.suffixes.get(host.get(at..)?));
        self.exact.get(host).into_iter().chain(wildcards).chain(self.any.as_ref())
    }

    /// Every place.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.suffixes.values()).chain(self.any.as_ref())
    }

    /// The first of them.
    pub(crate) fn most_specific(&self, host: &str) -> Option<&T> {
        self.matching(host).next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(names: &[&str]) -> ByHost<Option<Hostname>> {
        let mut index = ByHost::default();
        for name in names {
            let name: Hostname = name.parse().unwrap();
            *index.at(&name) = Some(name.clone());
        }
        index
    }

    #[test]
    fn the_order_is_exact_then_long_wildcards_then_any() {
        let index = index(&["*", "*.com", "*.example.com", "a.example.com", "b.example.com"]);
        let found: Vec<_> = index.matching("a.example.com").flatten().map(ToString::to_string).collect();
        assert_eq!(found, ["a.example.com", "*.example.com", "*.com", "*"]);
        let found: Vec<_> = index.matching("example.com").flatten().map(ToString::to_string).collect();
        assert_eq!(found, ["*.com", "*"]);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_walk_over_all_names_finds(
            names in proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,3}|\\*", 0..8),
            host in "[ab.]{0,8}",
        ) {
            let mut wanted: Vec<Hostname> = names.iter().map(|n| n.parse().unwrap()).collect();
            let index = index(&names.iter().map(String::as_str).collect::<Vec<_>>());
            wanted.sort();
            wanted.dedup();
            wanted.retain(|name| name.matches(&host));
            wanted.sort_by_key(|name| std::cmp::Reverse(name.specificity()));
            let found: Vec<_> = index.matching(&host).flatten().cloned().collect();
            prop_assert_eq!(index.most_specific(&host).and_then(Option::as_ref), wanted.first());
            prop_assert_eq!(found, wanted);
        }
    }
}

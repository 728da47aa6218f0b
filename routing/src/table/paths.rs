//! The rules of one host name, by path.

use std::ops::ControlFlow;
use std::sync::Arc;

use regex::Regex;

use super::RequestFacts;
use super::bucket::Bucket;
use super::entry::Entry;
use super::map::Map;
use super::prefixes::Prefixes;
use super::watch::Watch;
use crate::PathMatch;

#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: Map<Arc<str>, Bucket>,
    prefixes: Prefixes,
    /// Sorted by rank, for the specification gives no length to an expression.
    expressions: Vec<(Regex, Arc<Entry>)>,
}

impl Paths {
    pub(super) fn insert(&mut self, path: &PathMatch, entry: &Arc<Entry>) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(Arc::clone(path)).or_default().push(Arc::clone(entry)),
            PathMatch::Prefix(prefix) => self.prefixes.at(prefix).push(Arc::clone(entry)),
            PathMatch::Regex(regex) => self.expressions.push((regex.clone(), Arc::clone(entry))),
        }
    }

    /// Puts everything in order of precedence. Called once, after the last insertion.
    pub(super) fn seal(&mut self) {
        self.exact.values_mut().for_each(Bucket::seal);
        self.prefixes.seal();
        self.expressions.sort_by(|(_, a), (_, b)| a.rank.cmp(&b.rank));
    }

    pub(super) fn search<'t>(
        &'t self,
        facts: &RequestFacts<'_>,
        watch: &mut impl Watch<'t>,
    ) -> ControlFlow<()> {
        watch.at_host(self);
        if let Some(bucket) = self.exact.get(facts.path) {
            bucket.search(facts, watch)?;
        }
        self.prefixes.search(facts, watch)?;
        watch.at_expressions();
        // Conditions first: they are cheaper than the expression.
        let takes = |(regex, entry): &&(Regex, Arc<Entry>)| entry.takes(facts) && regex.is_match(facts.path);
        self.expressions.iter().filter(takes).try_for_each(|(_, entry)| watch.taken(entry))
    }

    /// Every bucket.
    pub(super) fn buckets<'t>(&'t self, each: &mut impl FnMut(&'t Bucket)) {
        self.exact.values().for_each(&mut *each);
        self.prefixes.buckets(each);
    }

    /// Every rule with an expression over the path.
    pub(super) fn expressions(&self) -> &[(Regex, Arc<Entry>)] {
        &self.expressions
    }
}

//! The rules that share one host name and one path, in order of precedence.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::HeaderName;

use super::RequestFacts;
use super::entry::Entry;
use super::map::Map;
use super::values::{header_value, query_value};
use super::watch::Watch;
use crate::ValueMatch;

/// Up to this many rules a walk is quicker than an index.
const WALKED: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Bucket {
    entries: Vec<Arc<Entry>>,
    index: Option<Index>,
}

/// Places of entries in the bucket, by the first literal value that each needs.
#[derive(Debug, Default)]
struct Index {
    by_key: Vec<(Key, Map<Box<[u8]>, Vec<usize>>)>,
    others: Vec<usize>,
}

#[derive(Debug, PartialEq)]
enum Key {
    Header(HeaderName),
    Query(Arc<str>),
}

impl Bucket {
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        self.entries.push(entry);
    }

    pub(super) fn seal(&mut self) {
        self.entries.sort_by(|a, b| a.rank.cmp(&b.rank));
        self.index = (self.entries.len() > WALKED).then(|| Index::over(&self.entries));
    }

    pub(super) fn search<'t>(
        &'t self,
        facts: &RequestFacts<'_>,
        watch: &mut impl Watch<'t>,
    ) -> ControlFlow<()> {
        watch.at_path(self);
        let rest = match &self.index {
            None => self.entries.as_slice(),
            Some(index) => {
                // What comes before the first does not take the request.
                let first = index.find(&self.entries, facts).and_then(|first| self.entries.get(first..));
                let Some((first, rest)) = first.and_then(<[_]>::split_first) else {
                    return ControlFlow::Continue(());
                };
                watch.taken(first)?;
                rest
            }
        };
        rest.iter().filter(|entry| entry.takes(facts)).try_for_each(|entry| watch.taken(entry))
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }
}

impl Index {
    fn over(entries: &[Arc<Entry>]) -> Self {
        let mut index = Self::default();
        for (place, entry) in entries.iter().enumerate() {
            match Key::of(entry) {
                Some((key, value)) => {
                    index.group(key).entry(value.as_bytes().into()).or_default().push(place);
                }
                None => index.others.push(place),
            }
        }
        index
    }

    fn group(&mut self, key: Key) -> &mut Map<Box<[u8]>, Vec<usize>> {
        let at = self.by_key.iter().position(|(known, _)| *known == key).unwrap_or(self.by_key.len());
        if at == self.by_key.len() {
            self.by_key.push((key, Map::default()));
        }
        #[allow(clippy::indexing_slicing)] // `at` was found or just made
        &mut self.by_key[at].1
    }

    /// The first place, in order of precedence, whose entry takes the request.
    fn find(&self, entries: &[Arc<Entry>], facts: &RequestFacts<'_>) -> Option<usize> {
        let first = |places: &[usize]| {
            places.iter().copied().find(|place| entries.get(*place).is_some_and(|entry| entry.takes(facts)))
        };
        let keyed =
            self.by_key.iter().filter_map(|(key, by_value)| first(by_value.get(&*key.value(facts)?)?));
        keyed.chain(first(&self.others)).min()
    }
}

impl Key {
    /// The first header, else the first parameter, that an entry compares with a literal.
    fn of(entry: &Entry) -> Option<(Self, &str)> {
        let header =
            entry.headers.iter().find_map(|h| Some((Self::Header(h.name.clone()), literal(&h.value)?)));
        header.or_else(|| {
            entry.query.iter().find_map(|q| Some((Self::Query(Arc::clone(&q.name)), literal(&q.value)?)))
        })
    }

    fn value<'a>(&self, facts: &RequestFacts<'a>) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Header(name) => header_value(facts.headers, name),
            Self::Query(name) => query_value(facts.query, name),
        }
    }
}

fn literal(value: &ValueMatch) -> Option<&str> {
    match value {
        ValueMatch::Exact(text) => Some(text),
        ValueMatch::Regex(_) => None,
    }
}

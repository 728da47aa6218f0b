//! One match of one rule: its rank among others on the same path, and its conditions besides the path.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use http::Method;

use super::values::{header_value, query_value};
use super::{Matched, RequestFacts};
use crate::{HeaderMatch, QueryMatch, RequestMatch};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) headers: Vec<HeaderMatch>,
    pub(super) query: Vec<QueryMatch>,
    method: Option<Method>,
    pub(super) matched: Matched,
}

/// Precedence on one path: the smaller comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    position: Position,
}

/// What decides between equal matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) created: i64,
    pub(super) name: Arc<str>,
    pub(super) rule: usize,
    pub(super) place: usize,
}

impl Entry {
    pub(super) fn new(wanted: &RequestMatch, position: Position, matched: Matched) -> Self {
        let mut seen = HashSet::new();
        let headers: Vec<_> = wanted.headers.iter().filter(|h| seen.insert(&h.name)).cloned().collect();
        let mut seen = HashSet::new();
        let query: Vec<_> = wanted.query.iter().filter(|q| seen.insert(&q.name)).cloned().collect();
        let rank = Rank {
            method: Reverse(wanted.method.is_some()),
            headers: Reverse(headers.len()),
            query: Reverse(query.len()),
            position,
        };
        Self { rank, headers, query, method: wanted.method.clone(), matched }
    }

    /// Whether every condition besides the path holds.
    pub(super) fn takes(&self, facts: &RequestFacts<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == facts.method)
            && self
                .headers
                .iter()
                .all(|h| header_value(facts.headers, &h.name).is_some_and(|value| h.value.matches(&value)))
            && self
                .query
                .iter()
                .all(|q| query_value(facts.query, &q.name).is_some_and(|value| q.value.matches(&value)))
    }
}

//! One match of one rule: its rank among others on the same path, and its conditions besides the path.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use http::Method;

use super::values::{header_value, query_value};
use super::{Matched, RequestFacts};
use crate::{HeaderMatch, PathMatch, QueryMatch, RequestMatch};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) path: PathMatch,
    pub(super) headers: Vec<HeaderMatch>,
    pub(super) query: Vec<QueryMatch>,
    pub(super) method: Option<Method>,
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

/// The first condition of a match besides its path that does not hold.
#[derive(Debug, Clone, Copy)]
pub enum Miss<'t> {
    /// The method is another.
    Method(&'t Method),
    /// A header is not there or has another value.
    Header(&'t HeaderMatch),
    /// A query parameter is not there or has another value.
    Query(&'t QueryMatch),
}

/// What decides between two matches that both take a request: the first that differs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// The host name of the other's route is more specific.
    Hostname,
    /// The other's path is: exact before prefix, long prefixes before short ones, literals before expressions.
    Path,
    /// The other names a method.
    Method,
    /// The other names more headers.
    Headers,
    /// The other names more query parameters.
    Query,
    /// The other's route is older.
    Age,
    /// The other's route comes first by namespace and name.
    Name,
    /// The other's rule comes first in the route.
    Rule,
    /// The other comes first in the rule.
    Match,
}

impl Rank {
    /// Where this is not the other's, which it comes before.
    pub(super) fn decided(&self, other: &Self) -> Precedence {
        let (own, its) = (&self.position, &other.position);
        if self.method != other.method {
            Precedence::Method
        } else if self.headers != other.headers {
            Precedence::Headers
        } else if self.query != other.query {
            Precedence::Query
        } else if own.created != its.created {
            Precedence::Age
        } else if own.name != its.name {
            Precedence::Name
        } else if own.rule != its.rule {
            Precedence::Rule
        } else {
            Precedence::Match
        }
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }
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
        Self { rank, path: wanted.path.clone(), headers, query, method: wanted.method.clone(), matched }
    }

    /// Whether every condition besides the path holds.
    pub(super) fn takes(&self, facts: &RequestFacts<'_>) -> bool {
        self.miss(facts).is_none()
    }

    /// The first condition besides the path that does not hold.
    pub(super) fn miss(&self, facts: &RequestFacts<'_>) -> Option<Miss<'_>> {
        if let Some(method) = self.method.as_ref().filter(|method| *method != facts.method) {
            return Some(Miss::Method(method));
        }
        let holds = |h: &&HeaderMatch| {
            header_value(facts.headers, &h.name).is_some_and(|value| h.value.matches(&value))
        };
        if let Some(header) = self.headers.iter().find(|header| !holds(header)) {
            return Some(Miss::Header(header));
        }
        let holds =
            |q: &&QueryMatch| query_value(facts.query, &q.name).is_some_and(|value| q.value.matches(&value));
        self.query.iter().find(|parameter| !holds(parameter)).map(Miss::Query)
    }
}

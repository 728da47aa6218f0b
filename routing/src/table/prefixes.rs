//! A trie of path segments: one look-up per segment finds every prefix of a path, the longest first.

use std::collections::HashMap;
use std::str::Split;

use super::RequestFacts;
use super::bucket::Bucket;
use super::entry::Entry;

#[derive(Debug, Default)]
pub(super) struct Prefixes {
    children: HashMap<Box<str>, Prefixes>,
    bucket: Bucket,
}

impl Prefixes {
    /// The rules under a prefix. A trailing slash is ignored, so `/` is the root, which takes every path.
    pub(super) fn at(&mut self, prefix: &str) -> &mut Bucket {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let mut node = self;
        if !prefix.is_empty() {
            for segment in prefix.strip_prefix('/').unwrap_or(prefix).split('/') {
                node = node.children.entry(segment.into()).or_default();
            }
        }
        &mut node.bucket
    }

    pub(super) fn seal(&mut self) {
        self.bucket.seal();
        self.children.values_mut().for_each(Self::seal);
    }

    pub(super) fn find(&self, facts: &RequestFacts<'_>) -> Option<&Entry> {
        // A target without slash (`OPTIONS *`, `CONNECT`) has no segments.
        match facts.path.strip_prefix('/') {
            Some(rest) => self.deepest(&mut rest.split('/'), facts),
            None => self.bucket.find(facts),
        }
    }

    // Calls itself once per segment at most, and no deeper than the longest prefix of the configuration.
    fn deepest(&self, rest: &mut Split<'_, char>, facts: &RequestFacts<'_>) -> Option<&Entry> {
        let child = rest.next().and_then(|segment| self.children.get(segment));
        child.and_then(|child| child.deepest(rest, facts)).or_else(|| self.bucket.find(facts))
    }
}

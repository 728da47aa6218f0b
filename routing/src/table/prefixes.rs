//! A trie of path segments: one look-up per segment finds every prefix of a path, the longest first.

use super::RequestFacts;
use super::bucket::Bucket;
use super::entry::Entry;
use super::map::Map;

#[derive(Debug, Default)]
pub(super) struct Prefixes {
    children: Map<Box<[u8]>, Prefixes>,
    bucket: Bucket,
}

impl Prefixes {
    /// The rules under a prefix. A trailing slash is ignored, so `/` is the root, which takes every path.
    pub(super) fn at(&mut self, prefix: &str) -> &mut Bucket {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let mut node = self;
        if !prefix.is_empty() {
            for segment in prefix.strip_prefix('/').unwrap_or(prefix).split('/') {
                node = node.children.entry(segment.as_bytes().into()).or_default();
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
            Some(rest) => self.deepest(&mut rest.as_bytes().split(|byte| *byte == b'/'), facts),
            None => self.bucket.find(facts),
        }
    }

    // Calls itself once per segment at most, and no deeper than the longest prefix of the configuration.
    fn deepest<'p>(
        &self,
        rest: &mut impl Iterator<Item = &'p [u8]>,
        facts: &RequestFacts<'_>,
    ) -> Option<&Entry> {
        let child = rest.next().and_then(|segment| self.children.get(segment));
        child.and_then(|child| child.deepest(rest, facts)).or_else(|| self.bucket.find(facts))
    }
}

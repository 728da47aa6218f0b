//! A trie of path segments: one look-up per segment finds every prefix of a path, the longest first.

use std::ops::ControlFlow;

use super::RequestFacts;
use super::bucket::Bucket;
use super::map::Map;
use super::watch::Watch;

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

    pub(super) fn search<'t>(
        &'t self,
        facts: &RequestFacts<'_>,
        watch: &mut impl Watch<'t>,
    ) -> ControlFlow<()> {
        // A target without slash (`OPTIONS *`, `CONNECT`) has no segments.
        match facts.path.strip_prefix('/') {
            Some(rest) => self.deepest(&mut rest.as_bytes().split(|byte| *byte == b'/'), facts, watch),
            None => self.bucket.search(facts, watch),
        }
    }

    // Calls itself once per segment at most, and no deeper than the longest prefix of the configuration.
    fn deepest<'t, 'p>(
        &'t self,
        rest: &mut impl Iterator<Item = &'p [u8]>,
        facts: &RequestFacts<'_>,
        watch: &mut impl Watch<'t>,
    ) -> ControlFlow<()> {
        if let Some(child) = rest.next().and_then(|segment| self.children.get(segment)) {
            child.deepest(rest, facts, watch)?;
        }
        self.bucket.search(facts, watch)
    }

    pub(super) fn buckets<'t>(&'t self, each: &mut impl FnMut(&'t Bucket)) {
        each(&self.bucket);
        self.children.values().for_each(|child| child.buckets(each));
    }
}

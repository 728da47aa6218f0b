//! Maps of the table, with a quick hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys come from the configuration. What clients send is only looked up, so nobody from outside can
/// choose keys that collide, and the hash need not be the library's, which guards against that and costs several
/// times as much.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Folded>>;

/// Mixes eight bytes at a time by a wide multiplication whose two halves are folded together.
pub(super) struct Folded(u64);

impl Default for Folded {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3) // pi
    }
}

impl Folded {
    fn mix(&mut self, word: u64) {
        // The golden ratio.
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        #[allow(clippy::cast_possible_truncation)] // the lower half is wanted
        let low = product as u64;
        self.0 = low ^ (product >> 64) as u64;
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.mix(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash};

    use super::*;

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<Folded>::default().hash_one(key)
    }

    #[test]
    fn names_that_differ_little_are_spread() {
        let names: Vec<_> = (0..10_000).map(|n| format!("r{n}.shop.example")).collect();
        let whole: HashSet<_> = names.iter().map(hash).collect();
        assert_eq!(whole.len(), names.len());
        // What a map of 16384 places looks at: the low bits for the place, the high ones for a first comparison.
        for bits in [|h: u64| h & 0x3fff, |h: u64| h >> 50] {
            let places: HashSet<_> = names.iter().map(|name| bits(hash(name))).collect();
            assert!(
                places.len() > 7000,
                "10,000 random numbers below 16384 have about 7,480 values: {}",
                places.len()
            );
        }
    }

    #[test]
    fn length_and_order_count() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"ab", b"ba", b"\0\0\0\0\0\0\0\0"];
        assert_eq!(keys.iter().map(hash).collect::<HashSet<_>>().len(), keys.len());
    }
}

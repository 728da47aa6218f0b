//! What two requests must have in common to share a connection.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use towpath_gateway_core::{Endpoint, Transport};

/// Where a connection leads and what protects it. Endpoints that configuration made anew keep their connections;
/// those whose expected identity changed do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    address: SocketAddr,
    transport: Transport,
}

impl Key {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self { address: endpoint.address, transport: endpoint.transport.clone() }
    }
}

impl Hash for Key {
    // The address tells nearly all keys apart; hashing identities would cost more than the rare collision.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.address.ip() {
            IpAddr::V4(ip) => state.write_u64(u64::from(ip.to_bits()) << 16 | u64::from(self.address.port())),
            IpAddr::V6(ip) => state.write_u128(ip.to_bits() ^ u128::from(self.address.port())),
        }
    }
}

/// How maps of connections hash their keys.
pub(super) type Spread = BuildHasherDefault<Mixer>;

/// A multiplication in place of a keyed hash: addresses come from configuration, not from strangers.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        // The high bits are the well mixed ones, and the map looks at both ends.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u128(&mut self, n: u128) {
        let [high, low] =
            [n >> 64, n & u128::from(u64::MAX)].map(|part| u64::try_from(part).unwrap_or_default());
        self.write_u64(high);
        self.write_u64(low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_fall_apart() {
        use std::collections::HashSet;
        use std::hash::BuildHasher;

        let hash = |address: &str| {
            Spread::default().hash_one(Key::of(&Endpoint::plaintext(address.parse().unwrap())))
        };
        let four = (1..=200)
            .flat_map(|n| [format!("10.0.0.{n}:80"), format!("10.0.{n}.1:80"), format!("10.0.0.1:{n}")]);
        let six = (1..=200).map(|n| format!("[fd00::{n}]:80"));
        let (hashes, low): (HashSet<_>, HashSet<_>) =
            four.chain(six).map(|it| hash(&it)).map(|it| (it, it & 0xfff)).unzip();
        assert_eq!(hashes.len(), 800 - 1, "one address is named twice");
        assert!(low.len() > 600, "{}", low.len());
    }

    #[test]
    fn equal_endpoints_share_and_other_identities_do_not() {
        let plain = || Endpoint::plaintext("127.0.0.1:80".parse().unwrap());
        let mtls = |id: &str| plain().with_mtls(vec![id.parse().unwrap()]);
        assert_eq!(Key::of(&plain()), Key::of(&plain()));
        let (a, b) = ("spiffe://cluster.local/ns/a/sa/a", "spiffe://cluster.local/ns/b/sa/b");
        assert_eq!(Key::of(&mtls(a)), Key::of(&mtls(a)));
        assert_ne!(Key::of(&mtls(a)), Key::of(&mtls(b)));
        assert_ne!(Key::of(&mtls(a)), Key::of(&plain()));
    }
}

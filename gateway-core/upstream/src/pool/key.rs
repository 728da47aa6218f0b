//! What two requests must have in common to share a connection.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

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
        self.address.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

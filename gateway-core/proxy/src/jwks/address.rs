//! Where issuers may be.

use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;

use crate::Failure;

/// Where a host is. Addresses that only this side can reach are refused: who may write a policy is not thereby let into the
/// network.
pub(super) async fn addresses(host: &str, port: u16, private: bool) -> Result<Vec<SocketAddr>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => lookup_host((bare, port)).await?.collect(),
    };
    let usable: Vec<_> = found.iter().copied().filter(|at| private || is_public(at.ip())).collect();
    if usable.is_empty() {
        let message = format!(
            "{host} is at {}, which is not public: allow it by `remoteJwks: {{allowPrivateAddresses: true}}` in the Mesh",
            found.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>().join(", ")
        );
        return Err(message.into());
    }
    Ok(usable)
}

/// Whether an address is one of the Internet at large (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || first == 0
                || first >= 240
                || (first == 100 && (64..128).contains(&second)))
        }
        IpAddr::V6(v6) => {
            // Ways to write IPv4 addresses: translated (RFC 6052), 6to4, Teredo, and compatible ones of old.
            let embedded = matches!(
                v6.segments(),
                [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] | [0, 0, 0, 0, 0, 0, ..]
            );
            !(embedded
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_told_from_those_of_the_internet() {
        for (address, public) in [
            ("1.1.1.1", true),
            ("2606:4700::1", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::1", false),
            ("::127.0.0.1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}

//! A loopback network of our own: 127.N.0.0/16, held by a bound socket so that two runs never meet.
//!
//! Hosts have addresses of the form 127.N.x.y with x below 100. What would be a host's own 127.0.0.1 (its application,
//! admin port and outbound listeners) is 127.N.(100+x).y here, because all hosts share one machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A network that no other run uses.
#[derive(Debug)]
pub(crate) struct Network {
    second: u8,
    _held: TcpListener,
}

/// A host of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    address: Ipv4Addr,
    own_loopback: Ipv4Addr,
}

const LOCK_PORT: u16 = 19_999;
const OWN_LOOPBACK: u8 = 100;

impl Network {
    /// Takes a free network.
    pub(crate) fn take() -> io::Result<Self> {
        let mut last = None;
        for _ in 0..100 {
            let second = fastrand::u8(16..=250);
            match TcpListener::bind((Ipv4Addr::new(127, second, 255, 254), LOCK_PORT)) {
                Ok(held) => return Ok(Self { second, _held: held }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no free loopback network")))
    }

    /// The host 127.N.`subnet`.`number`.
    pub(crate) fn host(&self, subnet: u8, number: u8) -> Host {
        Host {
            address: Ipv4Addr::new(127, self.second, subnet, number),
            own_loopback: Ipv4Addr::new(127, self.second, OWN_LOOPBACK + subnet, number),
        }
    }
}

impl Host {
    /// An address that other hosts reach.
    pub(crate) fn at(self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// An address that only this host reaches.
    pub(crate) fn own(self, port: u16) -> SocketAddr {
        (self.own_loopback, port).into()
    }

    /// The address that other hosts reach, without port.
    pub(crate) fn ip(self) -> Ipv4Addr {
        self.address
    }
}

/// Whether an address is a host's own loopback.
pub(crate) fn is_own_loopback(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(v4) => v4.ip().is_loopback() && v4.ip().octets()[2] >= OWN_LOOPBACK,
        SocketAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_never_share_a_network() {
        let (one, two) = (Network::take().unwrap(), Network::take().unwrap());
        assert_ne!(one.second, two.second);
    }

    #[test]
    fn a_host_tells_its_own_loopback_from_its_address() {
        let host = Network::take().unwrap().host(3, 1);
        assert!(is_own_loopback(host.own(9080)));
        assert!(!is_own_loopback(host.at(9080)));
    }
}

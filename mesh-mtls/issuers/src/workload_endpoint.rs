//! Where the Workload API is (SPIFFE Workload Endpoint, sections 3 and 4).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The address of the Workload API: `unix:///PATH`, `unix:/PATH`, or `tcp://IP:PORT` (also `tcp:IP:PORT`).
///
/// Private keys pass there in the clear: an IP address must be one of this host (loopback or link-local).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadEndpoint {
    /// A Unix domain socket, by its absolute path.
    Unix(PathBuf),
    /// A TCP socket of this host.
    Tcp(SocketAddr),
}

impl WorkloadEndpoint {
    /// The environment variable that says where the Workload API is, where nothing else does.
    pub const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
}

/// Why a text is not the address of a Workload API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The scheme is another one, or none.
    #[error("`{0}` is not the address of a Workload API; write unix:///PATH or tcp://IP:PORT")]
    Scheme(String),
    /// The path is not absolute, or there is more than a path.
    #[error("`{0}` is not a socket; write unix:///PATH with an absolute path, and nothing else")]
    Path(String),
    /// Not an IP address and a port.
    #[error("`{0}` is not an IP address and a port; write tcp://127.0.0.1:PORT, and nothing else")]
    Address(String),
    /// The address is not one of this host.
    #[error(
        "{0} may lie beyond this host, and the private key would pass there in the clear; use a Unix socket"
    )]
    Remote(SocketAddr),
}

impl FromStr for WorkloadEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let plain =
                path.starts_with('/') && !path.starts_with("//") && !path.contains(['?', '#', '%', '\0']);
            let socket = plain && path.len() > 1;
            return if socket {
                Ok(Self::Unix(path.into()))
            } else {
                Err(InvalidEndpoint::Path(text.to_owned()))
            };
        }
        let Some(rest) = text.strip_prefix("tcp:") else {
            return Err(InvalidEndpoint::Scheme(text.to_owned()));
        };
        let address = rest.strip_prefix("//").unwrap_or(rest).parse::<SocketAddr>();
        let address = address.map_err(|_| InvalidEndpoint::Address(text.to_owned()))?;
        if is_local(address.ip()) { Ok(Self::Tcp(address)) } else { Err(InvalidEndpoint::Remote(address)) }
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

impl fmt::Display for WorkloadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_this_host_are_taken_in_every_form() {
        for (text, shown) in [
            ("unix:///run/spire/agent.sock", "unix:///run/spire/agent.sock"),
            ("unix:/run/spire/agent.sock", "unix:///run/spire/agent.sock"),
            ("tcp://127.0.0.1:8000", "tcp://127.0.0.1:8000"),
            ("tcp:127.0.0.1:8000", "tcp://127.0.0.1:8000"),
            ("tcp://[::1]:8000", "tcp://[::1]:8000"),
            ("tcp://169.254.1.1:80", "tcp://169.254.1.1:80"),
        ] {
            assert_eq!(text.parse::<WorkloadEndpoint>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn others_are_refused_with_what_to_write() {
        for (text, says) in [
            ("", "unix:///PATH or tcp"),
            ("/run/agent.sock", "unix:///PATH or tcp"),
            ("http://127.0.0.1:80", "unix:///PATH or tcp"),
            ("unix://host/agent.sock", "absolute"),
            ("unix:agent.sock", "absolute"),
            ("unix:///", "absolute"),
            ("unix:////agent.sock", "absolute"),
            ("unix:///agent.sock?a=b", "nothing else"),
            ("tcp://localhost:80", "IP address"),
            ("tcp://127.0.0.1", "a port"),
            ("tcp://127.0.0.1:80/a", "nothing else"),
            ("tcp://10.0.0.1:80", "in the clear"),
        ] {
            let error = text.parse::<WorkloadEndpoint>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

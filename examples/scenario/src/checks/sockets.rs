//! Every listening socket of the run's processes, as the system lists them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;
use towpath_config::Scenario;

use super::{Check, World, holds};
use crate::net::is_own_loopback;
use crate::plan::{HTTP, HTTPS};

/// A listening socket.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Socket {
    pub(crate) process: String,
    pub(crate) address: SocketAddr,
    pub(crate) finding: String,
}

/// Lists the sockets; in `ingress` all of the cluster's but the ingress's two have to be closed to strangers.
pub(super) async fn run(world: &World, done: &mut impl FnMut(Check)) -> Vec<Socket> {
    let mut sockets = Vec::new();
    let mut open = Vec::new();
    for (process, address) in listening(&world.pids) {
        let finding = classify(world, &process, address).await;
        if finding.is_none() {
            open.push(address.to_string());
        }
        let finding = finding.unwrap_or_else(|| "open to anyone".to_owned());
        sockets.push(Socket { process, address, finding });
    }
    if world.plan.scenario == Scenario::Ingress {
        let mut expected = [world.plan.ingress.at(HTTP), world.plan.ingress.at(HTTPS)].map(|a| a.to_string());
        expected.sort();
        open.sort();
        let name = "open sockets of the cluster";
        done(holds(
            name,
            format!("the two of the ingress: {}", expected.join(", ")),
            open.join(", "),
            open == expected,
        ));
    }
    sockets
}

/// Why a socket is not open to anyone; `None` if it is.
async fn classify(world: &World, process: &str, address: SocketAddr) -> Option<String> {
    if is_own_loopback(address) {
        return Some("loopback of its own host".into());
    }
    match process {
        "gateway" => return Some("the edge's own, outside the cluster".into()),
        // For the world: what is refused there is refused by host and route.
        "ingress" => return None,
        _ => {}
    }
    let plaintext = world.probe.plaintext(address).await.unwrap_or_else(|error| error.to_string());
    let tls = world.probe.without_identity(address).await.unwrap_or_else(|error| error.to_string());
    let refuses = |answer: &str| answer.starts_with("closed") || answer.starts_with("401");
    (refuses(&plaintext) && refuses(&tls))
        .then(|| format!("plaintext: {plaintext}; TLS without certificate: {tls}"))
}

/// Listening TCP sockets of processes, by what `/proc` says.
fn listening(pids: &[(String, u32)]) -> Vec<(String, SocketAddr)> {
    let by_inode: HashMap<u64, SocketAddr> = std::fs::read_to_string("/proc/net/tcp")
        .unwrap_or_default()
        .lines()
        .skip(1)
        .filter_map(listener)
        .collect();
    let mut found = Vec::new();
    for (name, pid) in pids {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let mut addresses: Vec<_> =
            links.filter_map(|link| by_inode.get(&inode(&link.to_string_lossy())?).copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        found.extend(addresses.into_iter().map(|address| (name.clone(), address)));
    }
    found
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A line of `/proc/net/tcp` in state LISTEN (0A): its inode and local address.
fn listener(line: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != "0A" {
        return None;
    }
    // The kernel prints the address as one number in the machine's byte order.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    Some((fields.get(9)?.parse().ok()?, (address, u16::from_str_radix(port, 16).ok()?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_sockets_of_this_very_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listening(&[("me".into(), std::process::id())]);
        assert!(found.iter().any(|(_, address)| *address == socket.local_addr().unwrap()), "{found:?}");
    }
}

//! The rules, as text for the tools that write them.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::iptables::{Chains, INBOUND, OUTBOUND, OWN};

/// Of nftables.
pub(super) const TABLE: &str = "towpath";

/// What is captured.
#[derive(Debug, Clone)]
pub(super) struct Capture {
    /// Of the sidecar itself: what it sends elsewhere is not captured, or it would go round for ever.
    pub(super) uid: u32,
    pub(super) inbound: Option<u16>,
    pub(super) outbound: Option<u16>,
    pub(super) inbound_ports: Vec<u16>,
    pub(super) outbound_ports: Vec<u16>,
    pub(super) outbound_networks: Vec<IpNet>,
    /// Where the application is, for the sidecar.
    pub(super) applications: Vec<IpAddr>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Networks {
    V4,
    V6,
}

impl Networks {
    fn has(self, address: &IpAddr) -> bool {
        (self == Self::V4) == address.is_ipv4()
    }
}

impl Capture {
    /// For `nft -f`: one transaction that replaces the table of before.
    pub(super) fn nft(&self) -> String {
        let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
        if let Some(port) = self.inbound {
            text.push_str("  chain inbound {\n    type nat hook prerouting priority -100; policy accept;\n");
            // Of what is only forwarded nothing is known, and what this machine sends itself is no mesh's business.
            text.push_str("    fib daddr type != local return\n    iifname \"lo\" return\n");
            nft_ports(&mut text, &self.inbound_ports);
            let _ = writeln!(text, "    meta l4proto tcp redirect to :{port}\n  }}");
        }
        if let Some(port) = self.inbound {
            // What the sidecar sends to its own workload comes in as from any other, but for what is for the application.
            text.push_str("  chain own {\n    type nat hook output priority -100; policy accept;\n");
            text.push_str(
                "    oifname != \"lo\" return\n    ip daddr 127.0.0.0/8 return\n    ip6 daddr ::1 return\n",
            );
            for address in self.applications.iter().filter(|address| !address.is_loopback()) {
                let _ = writeln!(text, "    {} daddr {address} return", nft_family(*address));
            }
            nft_ports(&mut text, &self.inbound_ports);
            let _ = writeln!(text, "    meta skuid {} meta l4proto tcp redirect to :{port}\n  }}", self.uid);
        }
        if let Some(port) = self.outbound {
            text.push_str("  chain outbound {\n    type nat hook output priority -100; policy accept;\n");
            let _ = writeln!(text, "    meta skuid {} return\n    oifname \"lo\" return", self.uid);
            nft_ports(&mut text, &self.outbound_ports);
            for network in &self.outbound_networks {
                let _ = writeln!(text, "    {} daddr {network} return", nft_family(network.addr()));
            }
            let _ = writeln!(text, "    meta l4proto tcp redirect to :{port}\n  }}");
        }
        text.push_str("}\n");
        text
    }

    /// The chains of iptables for this family.
    pub(super) fn iptables(&self, family: Networks) -> Chains {
        let mut chains = Chains::default();
        if let Some(port) = self.inbound {
            let mut rules =
                vec!["-m addrtype ! --dst-type LOCAL -j RETURN".to_owned(), "-i lo -j RETURN".to_owned()];
            rules.extend(iptables_ports(&self.inbound_ports));
            rules.push(iptables_redirect(port));
            chains.push(INBOUND, rules);
            let loopback = if family == Networks::V4 { "127.0.0.0/8" } else { "::1/128" };
            let mut rules = vec!["! -o lo -j RETURN".to_owned(), format!("-d {loopback} -j RETURN")];
            let applications = self.applications.iter().filter(|address| !address.is_loopback());
            let applications = applications.filter(|address| family.has(address));
            rules.extend(applications.map(|address| format!("-d {address} -j RETURN")));
            rules.extend(iptables_ports(&self.inbound_ports));
            rules.push(format!("-m owner --uid-owner {} {}", self.uid, iptables_redirect(port)));
            chains.push(OWN, rules);
        }
        if let Some(port) = self.outbound {
            let own = format!("-m owner --uid-owner {} -j RETURN", self.uid);
            let mut rules = vec![own, "-o lo -j RETURN".to_owned()];
            rules.extend(iptables_ports(&self.outbound_ports));
            let networks = self.outbound_networks.iter().filter(|network| family.has(&network.addr()));
            rules.extend(networks.map(|network| format!("-d {network} -j RETURN")));
            rules.push(iptables_redirect(port));
            chains.push(OUTBOUND, rules);
        }
        chains
    }
}

fn nft_family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn nft_ports(text: &mut String, ports: &[u16]) {
    if !ports.is_empty() {
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "    tcp dport {{ {} }} return", ports.join(", "));
    }
}

fn iptables_ports(ports: &[u16]) -> impl Iterator<Item = String> {
    ports.iter().map(|port| format!("-p tcp --dport {port} -j RETURN"))
}

fn iptables_redirect(port: u16) -> String {
    format!("-p tcp -j REDIRECT --to-ports {port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Capture {
        Capture {
            uid: 1337,
            inbound: Some(15006),
            outbound: Some(15001),
            inbound_ports: vec![22, 15008],
            outbound_ports: vec![],
            outbound_networks: vec!["10.9.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            applications: vec!["127.0.0.1".parse().unwrap(), "10.1.0.5".parse().unwrap()],
        }
    }

    #[test]
    fn the_sidecar_s_own_traffic_and_what_is_excluded_come_before_the_redirect() {
        let text = capture().nft();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
        assert!(at("tcp dport { 22, 15008 } return") < at("redirect to :15006"));
        let own = "meta skuid 1337 meta l4proto tcp redirect to :15006";
        for before in ["ip daddr 127.0.0.0/8 return", "ip6 daddr ::1 return", "ip daddr 10.1.0.5 return"] {
            assert!(at("oifname != \"lo\" return") < at(before) && at(before) < at(own), "{before}");
        }
        assert!(at(own) < at("meta skuid 1337 return"));
        for before in ["meta skuid 1337 return", "ip daddr 10.9.0.0/16 return", "ip6 daddr fd00::/8 return"] {
            assert!(at(before) < at("redirect to :15001"), "{before}");
        }
        assert_eq!(text.matches("return").count(), 12);
        assert!(!text.contains("daddr 127.0.0.1 "), "it is among the loopback addresses");
    }

    fn iptables(capture: &Capture, family: Networks) -> String {
        Chains::default().replaced_by(&capture.iptables(family))
    }

    #[test]
    fn each_family_of_iptables_has_its_own_networks() {
        let (v4, v6) = (iptables(&capture(), Networks::V4), iptables(&capture(), Networks::V6));
        assert!(v4.contains("-A TOWPATH_OUTBOUND -d 10.9.0.0/16 -j RETURN") && !v4.contains("fd00"), "{v4}");
        assert!(v6.contains("-A TOWPATH_OUTBOUND -d fd00::/8 -j RETURN") && !v6.contains("10.9"), "{v6}");
        assert!(
            v4.contains("-A TOWPATH_OWN -d 127.0.0.0/8 -j RETURN\n-A TOWPATH_OWN -d 10.1.0.5 -j RETURN\n"),
            "{v4}"
        );
        assert!(v6.contains("-A TOWPATH_OWN -d ::1/128 -j RETURN\n") && !v6.contains("10.1."), "{v6}");
        for text in [v4, v6] {
            let lines: Vec<_> = text.lines().collect();
            assert_eq!((lines.first(), lines.last()), (Some(&"*nat"), Some(&"COMMIT")));
            let at = |line: &str| lines.iter().position(|there| *there == line).unwrap();
            let own = at("-A TOWPATH_OUTBOUND -m owner --uid-owner 1337 -j RETURN");
            assert!(own < at("-A TOWPATH_OUTBOUND -p tcp -j REDIRECT --to-ports 15001"));
            let own = "-A TOWPATH_OWN -m owner --uid-owner 1337 -p tcp -j REDIRECT --to-ports 15006";
            assert!(at("-A TOWPATH_OWN ! -o lo -j RETURN") < at(own));
        }
    }

    #[test]
    fn a_way_that_is_not_captured_has_no_rule() {
        let one = Capture { inbound: None, ..capture() };
        assert!(!one.nft().contains("15006") && !iptables(&one, Networks::V4).contains("OWN"));
        assert!(!one.nft().contains("prerouting") && !iptables(&one, Networks::V4).contains("INBOUND"));
        let other = Capture { outbound: None, ..capture() };
        assert!(!other.nft().contains("15001") && !iptables(&other, Networks::V6).contains("OUTBOUND"));
    }
}

//! Our chains in the `nat` table of iptables: which are there, and what puts others in their place.

use std::fmt::Write as _;

pub(super) const INBOUND: &str = "TOWPATH_INBOUND";
pub(super) const OUTBOUND: &str = "TOWPATH_OUTBOUND";
pub(super) const OWN: &str = "TOWPATH_OWN";

/// Each with the chain of the kernel that leads to it.
const HOOKS: [(&str, &str); 3] = [(INBOUND, "PREROUTING"), (OWN, "OUTPUT"), (OUTBOUND, "OUTPUT")];

/// The chains of one family of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chains(Vec<Chain>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    name: &'static str,
    /// How many rules lead to it.
    led_to: usize,
    rules: Vec<String>,
}

impl Chains {
    /// Has a chain that is led to, with these rules.
    pub(super) fn push(&mut self, name: &'static str, rules: Vec<String>) {
        self.0.push(Chain { name, led_to: 1, rules });
    }

    /// What is there, by `iptables -t nat -S`.
    pub(super) fn listed(listing: &str) -> Self {
        let of = |(name, hook)| {
            let (declared, leads, rule) = (format!("-N {name}"), leads(hook, name), format!("-A {name} "));
            listing.lines().any(|line| line == declared).then(|| Chain {
                name,
                led_to: listing.lines().filter(|line| line.strip_prefix("-A ") == Some(&leads)).count(),
                rules: listing
                    .lines()
                    .filter_map(|line| line.strip_prefix(&rule))
                    .map(str::to_owned)
                    .collect(),
            })
        };
        Self(HOOKS.into_iter().filter_map(of).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For `iptables-restore --noflush` or its sister: one transaction that puts `new` in place of these.
    pub(super) fn replaced_by(&self, new: &Self) -> String {
        let mut text = "*nat\n".to_owned();
        for (name, hook) in HOOKS {
            let of = |chains: &Self| chains.0.iter().find(|chain| chain.name == name).cloned();
            let (old, new) = (of(self), of(new));
            if old.is_none() && new.is_none() {
                continue;
            }
            // A chain of before is emptied by this.
            let _ = writeln!(text, ":{name} - [0:0]");
            let leads = leads(hook, name);
            let led_to = |chain: &Option<Chain>| chain.as_ref().map_or(0, |chain| chain.led_to);
            for _ in led_to(&old)..led_to(&new) {
                let _ = writeln!(text, "-A {leads}");
            }
            for _ in led_to(&new)..led_to(&old) {
                let _ = writeln!(text, "-D {leads}");
            }
            match new {
                Some(new) => new.rules.iter().for_each(|rule| {
                    let _ = writeln!(text, "-A {name} {rule}");
                }),
                None => {
                    let _ = writeln!(text, "-X {name}");
                }
            }
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// The rule that leads to a chain.
fn leads(hook: &str, name: &str) -> String {
    format!("{hook} -p tcp -j {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "-P PREROUTING ACCEPT\n-N DOCKER\n-N TOWPATH_INBOUND\n-A PREROUTING -j DOCKER\n\
                           -A PREROUTING -p tcp -j TOWPATH_INBOUND\n-A PREROUTING -p tcp -j TOWPATH_INBOUND\n\
                           -A DOCKER -i docker0 -j RETURN\n-A TOWPATH_INBOUND -i lo -j RETURN\n";

    #[test]
    fn what_is_of_others_stays() {
        let there = Chains::listed(LISTING);
        assert_eq!(
            there,
            Chains(vec![Chain { name: INBOUND, led_to: 2, rules: vec!["-i lo -j RETURN".to_owned()] }])
        );
        let leads = "-D PREROUTING -p tcp -j TOWPATH_INBOUND\n";
        assert_eq!(
            there.replaced_by(&Chains::default()),
            format!("*nat\n:TOWPATH_INBOUND - [0:0]\n{leads}{leads}-X TOWPATH_INBOUND\nCOMMIT\n")
        );
    }

    #[test]
    fn a_chain_is_led_to_once() {
        let (there, mut new) = (Chains::listed(LISTING), Chains::default());
        new.push(OUTBOUND, vec!["-o lo -j RETURN".to_owned()]);
        let added = "-A OUTPUT -p tcp -j TOWPATH_OUTBOUND\n";
        assert!(there.replaced_by(&new).contains(added));
        assert!(!new.replaced_by(&new).contains(added));
        assert!(
            new.replaced_by(&there).contains("-D OUTPUT -p tcp -j TOWPATH_OUTBOUND\n-X TOWPATH_OUTBOUND\n")
        );
    }
}

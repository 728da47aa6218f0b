//! Rules whose own fields exclude each other.

use ipnet::IpNet;
use towpath_gateway_core::SpiffeId;

use super::{Action, AuthorizationRule, Condition, Operation, PathPattern, Pattern, Source, Values};

impl AuthorizationRule {
    /// Whether nothing can fulfil the rule of a policy with this action, since what one field takes another leaves out. Only
    /// what is certain counts: `false` says nothing.
    pub fn contradicts_itself(&self, action: Action) -> bool {
        // Where there is no HTTP, fields of HTTP are left out of all rules but those that allow.
        let http = action == Action::Allow;
        !self.from.is_empty() && self.from.iter().all(|from| from.excludes_all(http))
            || !self.to.is_empty() && self.to.iter().all(|to| to.excludes_all(http))
            || self.when.iter().any(|condition| condition.excludes_all(http))
    }
}

impl Source {
    fn excludes_all(&self, http: bool) -> bool {
        self.principals.exclude_all(Pattern::covers)
            || self.namespaces.exclude_all(PartialEq::eq)
            || self.service_accounts.exclude_all(PartialEq::eq)
            || self.ip_blocks.exclude_all(within)
            || self.remote_ip_blocks.exclude_all(within)
            || http && self.request_principals.exclude_all(PartialEq::eq)
            || self.names_no_principal_of_its_own()
    }

    /// Whether every principal that is named in full is left out by the other fields of the identity.
    fn names_no_principal_of_its_own(&self) -> bool {
        let left_out = |pattern: &Pattern| {
            let Pattern::Exact(principal) = pattern else { return false };
            let id = format!("spiffe://{principal}").parse::<SpiffeId>();
            // What is no SPIFFE id no peer has.
            id.is_ok_and(|id| {
                !self.namespaces.hold(|pattern| pattern.matches(&id))
                    || !self.service_accounts.hold(|account| account.matches(&id))
            })
        };
        !self.principals.is.is_empty() && self.principals.is.iter().all(left_out)
    }
}

impl Operation {
    fn excludes_all(&self, http: bool) -> bool {
        self.ports.exclude_all(PartialEq::eq)
            || http
                && (self.methods.exclude_all(Pattern::covers)
                    || self.paths.exclude_all(PathPattern::covers)
                    || self.hosts.exclude_all(PartialEq::eq))
    }
}

impl Condition {
    fn excludes_all(&self, http: bool) -> bool {
        match self {
            Self::SourceIp(values) | Self::RemoteIp(values) | Self::DestinationIp(values) => {
                values.exclude_all(within)
            }
            Self::DestinationPort(values) => values.exclude_all(PartialEq::eq),
            Self::SourceNamespace(values) => values.exclude_all(PartialEq::eq),
            Self::SourceServiceAccount(values) => values.exclude_all(PartialEq::eq),
            Self::SourcePrincipal(values) | Self::ServerName(values) => values.exclude_all(Pattern::covers),
            Self::RequestPrincipal(values) => http && values.exclude_all(PartialEq::eq),
            // An empty header is left out by `*` as well.
            Self::Header(_, values)
            | Self::Method(values)
            | Self::Authority(values)
            | Self::Target(values) => {
                http && values.exclude_all(|not, is| *not == Pattern::Present || not.covers(is))
            }
            // Claims are lists: of one, an element may be taken and none left out, or the other way round.
            Self::RequestAudiences(_) | Self::RequestPresenter(_) | Self::RequestClaim(..) => false,
        }
    }
}

impl<T> Values<T> {
    /// Whether every value that is taken is left out, too. `covers(a, b)`: whatever `b` means, `a` does.
    fn exclude_all(&self, covers: impl Fn(&T, &T) -> bool) -> bool {
        !self.is.is_empty() && self.is.iter().all(|is| self.not.iter().any(|not| covers(not, is)))
    }
}

fn within(net: &IpNet, other: &IpNet) -> bool {
    net.contains(other)
}

impl Pattern {
    /// Whether whatever `other` means is meant by this one.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(value)) => self.matches(value),
            (Self::Prefix(own), Self::Prefix(other)) => other.starts_with(&**own),
            (Self::Suffix(own), Self::Suffix(other)) => other.ends_with(&**own),
            (Self::Present, Self::Prefix(part) | Self::Suffix(part)) => !part.is_empty(),
            _ => self == other,
        }
    }
}

impl PathPattern {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(own), Self::Plain(other)) => own.covers(other),
            (_, Self::Plain(Pattern::Exact(path))) => self.matches(path),
            _ => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{NamespacePattern, ServiceAccount};

    fn values<T>(is: &[&str], not: &[&str], read: impl Fn(&str) -> T) -> Values<T> {
        Values { is: is.iter().map(|v| read(v)).collect(), not: not.iter().map(|v| read(v)).collect() }
    }

    fn rule(from: Vec<Source>, to: Vec<Operation>, when: Vec<Condition>) -> AuthorizationRule {
        AuthorizationRule { from, to, when }
    }

    #[test]
    fn what_is_taken_and_left_out_is_nothing() {
        let principals = |is: &[&str], not: &[&str]| Source {
            principals: values(is, not, Pattern::new),
            ..Source::default()
        };
        for (is, not, contradicts) in [
            (&["a"][..], &["a"][..], true),
            (&["a"], &["b"], false),
            (&["a", "b"], &["a"], false),
            (&["a", "b"], &["*"], true),
            (&["td/ns/a/*"], &["td/*"], true),
            (&["td/*"], &["td/ns/a/*"], false),
            (&["*/sa/x"], &["*x"], true),
            (&["*"], &["a"], false),
            (&[], &["*"], false),
        ] {
            let one = rule(vec![principals(is, not)], vec![], vec![]);
            assert_eq!(one.contradicts_itself(Action::Deny), contradicts, "{is:?} {not:?}");
            let either = rule(vec![principals(is, not), principals(&["z"], &[])], vec![], vec![]);
            assert!(!either.contradicts_itself(Action::Deny), "{is:?} {not:?}: the other source may hold");
            let when = rule(
                vec![principals(&["z"], &[])],
                vec![],
                vec![Condition::SourcePrincipal(values(is, not, Pattern::new))],
            );
            assert_eq!(when.contradicts_itself(Action::Allow), contradicts, "{is:?} {not:?}");
        }
    }

    #[test]
    fn a_principal_is_of_the_namespace_and_account_that_it_names() {
        for (principal, namespace, account, contradicts) in [
            ("td/ns/a/sa/x", "a", "a/x", false),
            ("td/ns/a/sa/x", "b", "a/x", true),
            ("td/ns/a/sa/x", "a", "a/y", true),
            ("td/ns/a/*", "b", "b/x", false),
        ] {
            let source = Source {
                principals: values(&[principal], &[], Pattern::new),
                namespaces: values(&[namespace], &[], NamespacePattern::new),
                service_accounts: values(&[account], &[], |value| ServiceAccount::new(value, "d")),
                ..Source::default()
            };
            let rule = rule(vec![source], vec![], vec![]);
            assert_eq!(
                rule.contradicts_itself(Action::Allow),
                contradicts,
                "{principal} {namespace} {account}"
            );
        }
    }

    #[test]
    fn fields_of_http_count_where_their_absence_does_not_widen_the_rule() {
        let get = Operation { methods: values(&["GET"], &["*"], Pattern::new), ..Operation::default() };
        let path = |value: &str| PathPattern::new(value).unwrap();
        let info = Operation { paths: values(&["/a/b"], &["/a/{*}"], path), ..Operation::default() };
        for to in [get, info] {
            let rule = rule(vec![], vec![to], vec![]);
            assert!(
                rule.contradicts_itself(Action::Allow) && !rule.contradicts_itself(Action::Deny),
                "{rule:?}"
            );
        }
        let port = Operation {
            ports: values(&["80"], &["80"], |port| port.parse().unwrap()),
            ..Operation::default()
        };
        assert!(rule(vec![], vec![port], vec![]).contradicts_itself(Action::Deny));
        let net = |value: &str| value.parse::<IpNet>().unwrap();
        let near = Source { ip_blocks: values(&["10.1.0.0/16"], &["10.0.0.0/8"], net), ..Source::default() };
        assert!(rule(vec![near], vec![], vec![]).contradicts_itself(Action::Deny));
    }

    proptest! {
        #[test]
        fn what_covers_a_pattern_matches_all_that_it_does(own in "[ab*]{0,3}", other in "[ab*]{0,3}", value in "[ab]{0,4}") {
            let (own, other) = (Pattern::new(&own), Pattern::new(&other));
            prop_assert!(!own.covers(&other) || !other.matches(&value) || own.matches(&value));
        }
    }
}

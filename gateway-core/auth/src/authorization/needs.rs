//! What a request has to bring for a rule to hold at all.

use super::{AuthorizationRule, Condition, Source};

/// What a request has to bring: without it the rule never holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The identity of a peer.
    pub identity: bool,
    /// A token of an issuer that is trusted.
    pub token: bool,
}

impl AuthorizationRule {
    /// What the rule asks of every request that it holds for.
    pub fn needs(&self) -> Needs {
        let every = |needs: fn(&Source) -> bool| !self.from.is_empty() && self.from.iter().all(needs);
        let any = |needs: fn(&Condition) -> bool| self.when.iter().any(needs);
        Needs {
            identity: every(Source::needs_identity) || any(Condition::needs_identity),
            token: every(Source::needs_token) || any(Condition::needs_token),
        }
    }
}

impl Source {
    fn needs_identity(&self) -> bool {
        !(self.principals.is.is_empty()
            && self.namespaces.is.is_empty()
            && self.service_accounts.is.is_empty())
    }

    fn needs_token(&self) -> bool {
        !self.request_principals.is.is_empty()
    }
}

impl Condition {
    fn needs_identity(&self) -> bool {
        match self {
            Self::SourceNamespace(values) => !values.is.is_empty(),
            Self::SourcePrincipal(values) => !values.is.is_empty(),
            Self::SourceServiceAccount(values) => !values.is.is_empty(),
            _ => false,
        }
    }

    fn needs_token(&self) -> bool {
        match self {
            Self::RequestPrincipal(values) => !values.is.is_empty(),
            Self::RequestAudiences(values)
            | Self::RequestPresenter(values)
            | Self::RequestClaim(_, values) => !values.is.is_empty(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NamespacePattern, Pattern, RequestPrincipal, Values};

    #[test]
    fn a_rule_needs_what_each_of_its_sources_needs() {
        let someone = Source { principals: Values::is(vec![Pattern::Present]), ..Source::default() };
        let nobody = Source { principals: Values::not(vec![Pattern::Present]), ..Source::default() };
        let near =
            Source { namespaces: Values::is(vec![NamespacePattern::new("shop")]), ..Source::default() };
        let bearer =
            Source { request_principals: Values::is(vec![RequestPrincipal::new("*")]), ..Source::default() };
        let claim = Condition::RequestClaim(vec!["a".into()], Values::is(vec![Pattern::Present]));
        let no_claim = Condition::RequestClaim(vec!["a".into()], Values::not(vec![Pattern::Present]));
        let peer = Condition::SourcePrincipal(Values::is(vec![Pattern::Present]));
        for (from, when, identity, token) in [
            (vec![], vec![], false, false),
            (vec![&someone], vec![], true, false),
            (vec![&someone, &near], vec![], true, false),
            (vec![&someone, &nobody], vec![], false, false),
            (vec![&someone, &bearer], vec![], false, false),
            (vec![&bearer], vec![], false, true),
            (vec![&nobody], vec![&claim], false, true),
            (vec![], vec![&no_claim], false, false),
            (vec![&bearer], vec![&no_claim, &peer], true, true),
        ] {
            let rule = AuthorizationRule {
                from: from.into_iter().cloned().collect(),
                to: Vec::new(),
                when: when.into_iter().cloned().collect(),
            };
            assert_eq!(rule.needs(), Needs { identity, token }, "{rule:?}");
        }
    }
}

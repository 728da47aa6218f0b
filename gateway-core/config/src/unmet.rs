//! Rules of authorization policies that hold for no request where they are in force, since nothing there gives what they
//! ask for.

use towpath_auth::{AuthorizationPolicy, AuthorizationRule};

use crate::Guard;
use crate::compile::Work;

/// What requests at a place may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    /// The identity of a peer.
    pub(crate) identity: bool,
    /// A token that was checked.
    pub(crate) token: bool,
}

/// Tells of every rule that asks for more than is offered.
pub(crate) fn report(work: &mut Work<'_>, guard: &Guard, offered: Offered) {
    for policy in guard.authorization.iter() {
        for (place, rule) in policy.rules.iter().enumerate() {
            if let Some(why) = lacking(rule, offered) {
                tell(work, policy, place, why);
            }
        }
    }
}

fn lacking(rule: &AuthorizationRule, offered: Offered) -> Option<&'static str> {
    let needs = rule.needs();
    if needs.identity && !offered.identity {
        return Some("it asks for an identity, and where the mode is DISABLE nobody has one");
    }
    (needs.token && !offered.token).then_some("it asks for a token, and no RequestAuthentication checks one")
}

fn tell(work: &mut Work<'_>, policy: &AuthorizationPolicy, place: usize, why: &str) {
    let objects = work.objects;
    let Some(object) =
        objects.authorization_policies.values().find(|object| *object.name.to_string() == *policy.name)
    else {
        return;
    };
    // Rules may have been left out, and were told of then: which one it is would be a guess.
    let all_there = object.spec.rules.len() == policy.rules.len();
    let rule = object.spec.rules.get(place).filter(|_| all_there);
    let message = format!("a rule holds for no request: {why}");
    work.problems.push(object.error(rule.map(|rule| rule.referenced), message));
}

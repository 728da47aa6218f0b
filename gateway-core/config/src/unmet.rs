//! Rules of authorization policies that hold for no request where they are in force: nothing there gives what they ask for,
//! or nothing at all can; and policies whose providers nobody can ask there.

use towpath_auth::{
    Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, ExternalAuthProtocol,
};

use crate::compile::Work;
use crate::{Guard, Severity};

/// What requests at a place may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    /// Who may be at the other end.
    pub(crate) peers: Peers,
    /// A token that was checked.
    pub(crate) token: bool,
}

/// Who is at the other end of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Workloads that prove their identity, or some of them.
    Proven,
    /// Workloads that prove nothing: the mode is DISABLE.
    Unproven,
    /// Clients of a gateway.
    Clients,
}

/// Tells of every rule that asks for more than is offered.
pub(crate) fn report(work: &mut Work<'_>, guard: &Guard, offered: Offered) {
    for policy in guard.authorization.iter() {
        for (place, rule) in policy.rules.iter().enumerate() {
            if rule.contradicts_itself(policy.action) {
                let why = "what one of its fields takes another leaves out";
                tell(work, policy, place, (Severity::Error, why));
            } else if policy.action == Action::Custom && rule.needs().token {
                let why = "it asks for a token, and CUSTOM policies are asked before tokens are looked at";
                tell(work, policy, place, (Severity::Error, why));
            } else if let Some(found) = lacking(rule, offered) {
                tell(work, policy, place, found);
            }
        }
    }
}

/// Tells of every CUSTOM policy that holds for nothing where connections carry no HTTP.
pub(crate) fn report_unasked(work: &mut Work<'_>, policies: &AuthorizationPolicies, port: u16) {
    let by_http = |policy: &&AuthorizationPolicy| {
        let protocol = policy.provider.as_ref().map(|provider| &provider.protocol);
        policy.action == Action::Custom && matches!(protocol, Some(ExternalAuthProtocol::Http { .. }))
    };
    let objects = work.objects;
    for policy in policies.iter().filter(by_http) {
        let mut named = objects.authorization_policies.values();
        let Some(object) = named.find(|object| *object.name.to_string() == *policy.name) else { continue };
        let message = format!(
            "at port {port}, what is not HTTP passes the policy by: its provider is an `envoyExtAuthzHttp`, which is asked \
             about requests alone"
        );
        let at = object.spec.provider.as_ref().map(|provider| provider.name.referenced);
        let problem = object.warning(at, message);
        work.problems.push(problem.suggest("name an `envoyExtAuthzGrpc`, or the port `http`"));
    }
}

fn lacking(rule: &AuthorizationRule, offered: Offered) -> Option<(Severity, &'static str)> {
    let needs = rule.needs();
    let identity = match offered.peers {
        Peers::Proven => None,
        Peers::Unproven => {
            Some((Severity::Error, "it asks for an identity, and where the mode is DISABLE nobody has one"))
        }
        // The policy may be meant for workloads of the namespace, or of the mesh, alone.
        Peers::Clients => Some((
            Severity::Warning,
            "it asks for an identity of the mesh, and clients of a gateway have none",
        )),
    };
    identity.filter(|_| needs.identity).or_else(|| {
        let token = "it asks for a token, and no RequestAuthentication checks one";
        (needs.token && !offered.token).then_some((Severity::Error, token))
    })
}

fn tell(work: &mut Work<'_>, policy: &AuthorizationPolicy, place: usize, (severity, why): (Severity, &str)) {
    let objects = work.objects;
    let Some(object) =
        objects.authorization_policies.values().find(|object| *object.name.to_string() == *policy.name)
    else {
        return;
    };
    // Rules may have been left out, and were told of then: which one it is would be a guess.
    let all_there = object.spec.rules.len() == policy.rules.len();
    let rule = object.spec.rules.get(place).filter(|_| all_there);
    let (at, message) = (rule.map(|rule| rule.referenced), format!("a rule holds for no request: {why}"));
    work.problems.push(match severity {
        Severity::Error => object.error(at, message),
        Severity::Warning => object.warning(at, message),
    });
}

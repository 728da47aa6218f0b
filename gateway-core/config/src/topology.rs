//! The one place that knows the scenarios: what a role does in each.

use towpath_mesh_mtls::MtlsMode;

use crate::{Role, Scenario};

/// What a process does with rules and how it reaches backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) rules: Rules,
    pub(crate) hop: Hop,
}

/// Which part of a rule is carried out here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// All of it.
    Whole,
    /// Matching, redirects, policies of API management and the timeout; the rest behind, at the ingress.
    Front,
    /// What [`Rules::Front`] leaves.
    Behind,
}

/// How a backend is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Straight, as the mesh asks for.
    Direct {
        /// Without an identity, workloads of the mesh that take plaintext are spoken to in plaintext.
        may_be_plaintext: bool,
    },
    /// Over the sidecar in the same pod.
    AttachedSidecar,
}

/// How one endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Mtls,
    /// Nothing protects it, for this reason.
    Plaintext(&'static str),
    /// It cannot be spoken to in the way that it asks for.
    LeftOut,
}

/// What `role` does in `scenario`; an error if there is no such role in it.
pub(crate) fn plan(scenario: Scenario, role: &Role) -> Result<Plan, &'static str> {
    let direct = |rules, may_be_plaintext| Ok(Plan { rules, hop: Hop::Direct { may_be_plaintext } });
    match (role, scenario) {
        (Role::Gateway, Scenario::GatewayApi) | (Role::Sidecar { .. }, _) => direct(Rules::Whole, false),
        (Role::Gateway, Scenario::InCluster) => direct(Rules::Whole, true),
        (Role::Gateway, Scenario::Attached) => Ok(Plan { rules: Rules::Whole, hop: Hop::AttachedSidecar }),
        (Role::Gateway, Scenario::Ingress) => direct(Rules::Front, true),
        (Role::Ingress, Scenario::Ingress) => direct(Rules::Behind, false),
        (Role::Ingress, _) => Err("there is an ingress in the scenario `ingress` only"),
    }
}

/// What a workload takes where no `PeerAuthentication` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultMode {
    /// As in Istio: mTLS and plaintext.
    Permissive,
    /// Every caller has an identity: mTLS alone.
    Strict,
    /// Strict, but for what routes of a Gateway name: the gateway has no identity.
    StrictBehindTheEdge,
}

/// The default of a scenario. Without a `Mesh` resource it is Istio's.
pub(crate) fn default_mode(has_mesh: bool, scenario: Scenario) -> DefaultMode {
    match (has_mesh, scenario) {
        (false, _) => DefaultMode::Permissive,
        (true, Scenario::InCluster) => DefaultMode::StrictBehindTheEdge,
        (true, Scenario::Ingress | Scenario::Attached | Scenario::GatewayApi) => DefaultMode::Strict,
    }
}

impl Hop {
    /// How an endpoint is spoken to: `in_mesh` tells whether it has a sidecar, and `mode` what that takes.
    pub(crate) fn protection(self, has_identity: bool, in_mesh: bool, mode: MtlsMode) -> Protection {
        let may_be_plaintext = matches!(self, Self::Direct { may_be_plaintext: true });
        match (in_mesh, mode) {
            (false, _) => Protection::Plaintext("the endpoint is not a workload of the mesh"),
            (true, MtlsMode::Disable) => {
                Protection::Plaintext("a PeerAuthentication turns mTLS off at the endpoint")
            }
            (true, _) if has_identity => Protection::Mtls,
            (true, MtlsMode::Permissive) if may_be_plaintext => {
                Protection::Plaintext("this process has no identity of the mesh")
            }
            (true, _) => Protection::LeftOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MtlsMode::{Disable, Permissive, Strict};

    #[test]
    fn each_role_has_its_part_in_each_scenario() {
        let sidecar = Role::Sidecar { inbound: Vec::new() };
        let direct = |rules, may_be_plaintext| Plan { rules, hop: Hop::Direct { may_be_plaintext } };
        for (role, scenario, expected) in [
            (&Role::Gateway, Scenario::Ingress, Some(direct(Rules::Front, true))),
            (&Role::Gateway, Scenario::InCluster, Some(direct(Rules::Whole, true))),
            (
                &Role::Gateway,
                Scenario::Attached,
                Some(Plan { rules: Rules::Whole, hop: Hop::AttachedSidecar }),
            ),
            (&Role::Gateway, Scenario::GatewayApi, Some(direct(Rules::Whole, false))),
            (&Role::Ingress, Scenario::Ingress, Some(direct(Rules::Behind, false))),
            (&Role::Ingress, Scenario::InCluster, None),
            (&Role::Ingress, Scenario::Attached, None),
            (&Role::Ingress, Scenario::GatewayApi, None),
        ] {
            assert_eq!(plan(scenario, role).ok(), expected, "{role:?} {scenario}");
        }
        for scenario in Scenario::ALL {
            assert_eq!(plan(scenario, &sidecar), Ok(direct(Rules::Whole, false)));
        }
    }

    #[test]
    fn a_strict_workload_is_never_spoken_to_in_plaintext() {
        for may_be_plaintext in [true, false] {
            let hop = Hop::Direct { may_be_plaintext };
            assert_eq!(hop.protection(false, true, Strict), Protection::LeftOut);
            for mode in [Strict, Permissive] {
                assert_eq!(hop.protection(true, true, mode), Protection::Mtls);
            }
            for (identity, in_mesh, mode) in
                [(true, false, Strict), (false, false, Permissive), (true, true, Disable)]
            {
                assert!(matches!(hop.protection(identity, in_mesh, mode), Protection::Plaintext(_)));
            }
        }
        assert_eq!(
            Hop::Direct { may_be_plaintext: false }.protection(false, true, Permissive),
            Protection::LeftOut
        );
    }
}

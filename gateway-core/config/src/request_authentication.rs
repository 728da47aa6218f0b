//! Istio's `RequestAuthentication`: which hold where, and whose tokens they take.

use towpath_auth::{JwtRule, KeySet, RequestAuthentications, TokenLocation};
use towpath_gateway_core::Live;

use crate::Problem;
use crate::objects::{Objects, Stored};
use crate::resources::istio::{JwtRuleSpec, RequestAuthenticationSpec};
use crate::scope::{Place, Scope};

/// Every policy of the mesh, compiled, the oldest first.
pub(crate) struct Authentications {
    policies: Vec<(Scope, Vec<JwtRule>)>,
}

impl Authentications {
    /// Compiles all policies.
    pub(crate) fn compile(objects: &Objects, problems: &mut Vec<Problem>) -> Self {
        let mut sorted: Vec<_> = objects.request_authentications.values().collect();
        sorted.sort_by_key(|object| object.seniority());
        Self { policies: sorted.into_iter().filter_map(|object| scoped(object, objects, problems)).collect() }
    }

    /// The rules in force at a place.
    pub(crate) fn of(&self, objects: &Objects, root: &str, places: &[Place<'_>]) -> RequestAuthentications {
        let holds = |scope: &Scope| places.iter().any(|place| scope.holds(objects, root, *place));
        let rules = self.policies.iter().filter(|(scope, _)| holds(scope)).flat_map(|(_, rules)| rules);
        RequestAuthentications::new(rules.cloned().collect())
    }
}

fn scoped(
    object: &Stored<RequestAuthenticationSpec>,
    objects: &Objects,
    problems: &mut Vec<Problem>,
) -> Option<(Scope, Vec<JwtRule>)> {
    let spec = &object.spec;
    let targets: Vec<_> = spec.target_ref.iter().chain(&spec.target_refs).collect();
    let scope = match Scope::read(&object.name.namespace, spec.selector.as_ref(), &targets) {
        Ok(scope) => scope,
        Err(defect) => {
            let message = format!("{}: no token is taken by the policy", defect.message);
            problems.push(object.error(defect.location, message));
            return None;
        }
    };
    for missing in scope.missing(objects) {
        problems.push(object.warning(None, format!("there is no {missing} that the policy could hold at")));
    }
    Some((scope, spec.jwt_rules.iter().map(|rule| compiled(object, rule, problems)).collect()))
}

fn compiled(
    object: &Stored<RequestAuthenticationSpec>,
    spec: &JwtRuleSpec,
    problems: &mut Vec<Problem>,
) -> JwtRule {
    let mut rule =
        JwtRule::new(object.name.to_string(), spec.issuer.value.as_str(), Live::new(keys(object, spec, problems)));
    rule.audiences = spec.audiences.iter().map(|audience| audience.as_str().into()).collect();
    let headers = spec.from_headers.iter().map(|header| TokenLocation::Header {
        name: header.name.0.clone(),
        prefix: header.prefix.as_deref().unwrap_or_default().into(),
    });
    let params = spec.from_params.iter().map(|name| TokenLocation::Param(name.as_str().into()));
    let cookies = spec.from_cookies.iter().map(|name| TokenLocation::Cookie(name.as_str().into()));
    let locations: Vec<_> = headers.chain(params).chain(cookies).collect();
    if !locations.is_empty() {
        rule.locations = locations;
    }
    rule.forward = spec.forward_original_token;
    rule.payload_header = spec.output_payload_to_header.as_ref().map(|name| name.0.clone());
    let claims = spec.output_claim_to_headers.iter();
    rule.claim_headers = claims
        .map(|output| (output.header.0.clone(), output.claim.split('.').map(Into::into).collect()))
        .collect();
    rule.words = spec.space_delimited_claims.iter().map(|name| name.as_str().into()).collect();
    rule
}

/// The keys of an issuer. Without any, none of its tokens is good.
fn keys(object: &Stored<RequestAuthenticationSpec>, spec: &JwtRuleSpec, problems: &mut Vec<Problem>) -> KeySet {
    let (at, message) = match (&spec.jwks, &spec.jwks_uri) {
        (Some(jwks), None) => match KeySet::parse(&jwks.value) {
            Ok(keys) => return keys,
            Err(error) => (jwks.referenced, format!("`jwks`: {error}")),
        },
        (Some(jwks), Some(_)) => (jwks.referenced, "`jwks` and `jwksUri` do not go together".to_owned()),
        (None, Some(uri)) => (uri.referenced, "keys are not fetched from a URL yet: write them as `jwks`".to_owned()),
        (None, None) => (spec.issuer.referenced, "the issuer has no keys: write them as `jwks`".to_owned()),
    };
    problems.push(object.error(at, format!("{message}; until then every token of the issuer is refused")));
    KeySet::default()
}

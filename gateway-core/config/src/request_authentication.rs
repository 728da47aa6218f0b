//! Istio's `RequestAuthentication`: which hold where, and whose tokens they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use towpath_auth::{JwtRule, KeySet, RequestAuthentications, TokenLocation};
use towpath_gateway_core::{Changes, Live};

use crate::Problem;
use crate::authorization::Policies;
use crate::objects::{Objects, Stored};
use crate::resources::istio::{JwtRuleSpec, RequestAuthenticationSpec};
use crate::scope::{Place, Scope};

/// Every policy of the mesh, compiled, the oldest first.
pub(crate) struct Authentications {
    policies: Vec<(Scope, Vec<JwtRule>)>,
}

/// Keys that are fetched, by URL and by the issuer whose discovery document stands there. They outlive a compilation.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemoteKeys(BTreeMap<(Arc<str>, Option<Arc<str>>), RemoteJwks>);

/// Keys of an issuer that stand at a URL.
#[derive(Debug, Clone)]
pub struct RemoteJwks {
    /// Where: `http` or `https`.
    pub uri: Arc<str>,
    /// The issuer, if a discovery document of it stands there that tells where the keys are (OIDC Discovery 1.0).
    pub discovered_for: Option<Arc<str>>,
    /// The keys of the moment; none until they are fetched.
    pub keys: Live<KeySet>,
    /// Tells of tokens that name a key which is not there.
    pub missed: Changes,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl RemoteKeys {
    /// All of them, in a stable order.
    pub(crate) fn list(&self) -> Vec<RemoteJwks> {
        self.0.values().cloned().collect()
    }
}

impl Authentications {
    /// Compiles all policies. Where one does not tell where it holds, `authorization` refuses everything: who takes no
    /// tokens there takes the claims that clients send for those of an issuer.
    pub(crate) fn compile(
        objects: &Objects,
        before: Option<&RemoteKeys>,
        authorization: &mut Policies,
        problems: &mut Vec<Problem>,
    ) -> (Self, RemoteKeys) {
        let mut sorted: Vec<_> = objects.request_authentications.values().collect();
        sorted.sort_by_key(|object| object.seniority());
        let mut keys = Keys { before, now: RemoteKeys::default() };
        let mut policies = Vec::new();
        for object in sorted {
            match scoped(object, objects, &mut keys, problems) {
                Some(policy) => policies.push(policy),
                None => authorization.shut(object.label(), &object.name.namespace),
            }
        }
        (Self { policies }, keys.now)
    }

    /// The rules in force at a place.
    pub(crate) fn of(&self, objects: &Objects, root: &str, places: &[Place<'_>]) -> RequestAuthentications {
        let holds = |scope: &Scope| places.iter().any(|place| scope.holds(objects, root, *place));
        let rules = self.policies.iter().filter(|(scope, _)| holds(scope)).flat_map(|(_, rules)| rules);
        let mut rules: Vec<_> = rules.cloned().collect();
        // Istio, `newPolicyApplier`: the issuer that sorts first is asked first, whichever policy names it.
        rules.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        RequestAuthentications::new(rules)
    }
}

/// Finds keys that are fetched.
struct Keys<'a> {
    before: Option<&'a RemoteKeys>,
    now: RemoteKeys,
}

impl Keys<'_> {
    fn at(&mut self, uri: Arc<str>, issuer: Option<Arc<str>>, timeout: Option<Duration>) -> RemoteJwks {
        let timeout = timeout.unwrap_or(Duration::from_secs(5));
        let key = (Arc::clone(&uri), issuer.clone());
        // Of several that name one URL, the first says how long it is waited for.
        let entry = self.now.0.entry(key).or_insert_with_key(|key| {
            let kept = self.before.and_then(|before| before.0.get(key));
            let (keys, missed) =
                kept.map_or_else(Default::default, |kept| (kept.keys.clone(), kept.missed.clone()));
            RemoteJwks { uri, discovered_for: issuer, keys, missed, timeout }
        });
        entry.clone()
    }
}

fn scoped(
    object: &Stored<RequestAuthenticationSpec>,
    objects: &Objects,
    keys: &mut Keys<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Scope, Vec<JwtRule>)> {
    let spec = &object.spec;
    let targets: Vec<_> = spec.target_ref.iter().chain(&spec.target_refs).collect();
    let scope = match Scope::read(&object.name.namespace, spec.selector.as_ref(), &targets) {
        Ok(scope) => scope,
        Err(defect) => {
            let message =
                format!("{}: everything in the namespace is refused until it is mended", defect.message);
            problems.push(object.error(defect.location, message));
            return None;
        }
    };
    for missing in scope.missing(objects) {
        problems.push(object.warning(None, format!("there is no {missing} that the policy could hold at")));
    }
    Some((scope, spec.jwt_rules.iter().map(|rule| compiled(object, rule, keys, problems)).collect()))
}

fn compiled(
    object: &Stored<RequestAuthenticationSpec>,
    spec: &JwtRuleSpec,
    keys: &mut Keys<'_>,
    problems: &mut Vec<Problem>,
) -> JwtRule {
    let (found, missed) = match keys_of(object, spec, problems) {
        Where::Here(found) => (Live::new(found), None),
        Where::At(uri, issuer) => {
            let remote = keys.at(uri, issuer, spec.timeout.as_ref().map(|timeout| timeout.0));
            (remote.keys, Some(remote.missed))
        }
    };
    let mut rule = JwtRule::new(object.name.to_string(), spec.issuer.value.as_str(), found);
    rule.missed = missed;
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

/// Where the keys of an issuer are.
enum Where {
    Here(KeySet),
    /// At a URL, or where the document of this issuer says that stands at the URL.
    At(Arc<str>, Option<Arc<str>>),
}

/// Without any keys, none of an issuer's tokens is good.
fn keys_of(
    object: &Stored<RequestAuthenticationSpec>,
    spec: &JwtRuleSpec,
    problems: &mut Vec<Problem>,
) -> Where {
    let (at, message) = match (&spec.jwks, &spec.jwks_uri) {
        (Some(jwks), None) => match KeySet::parse(&jwks.value) {
            Ok(keys) => return Where::Here(keys),
            Err(error) => (jwks.referenced, format!("`jwks`: {error}")),
        },
        (Some(jwks), Some(_)) => (jwks.referenced, "`jwks` and `jwksUri` do not go together".to_owned()),
        (None, Some(uri)) if is_url(&uri.value) => return Where::At(uri.value.as_str().into(), None),
        (None, Some(uri)) => (uri.referenced, format!("`{}` is no URL of http or https", uri.value)),
        (None, None) if is_url(&spec.issuer.value) => {
            let issuer = spec.issuer.value.as_str();
            return Where::At(discovery(issuer), Some(issuer.into()));
        }
        (None, None) => {
            let message = "the issuer has no keys, and is no URL to find them by: give `jwks`, or `jwksUri`";
            (spec.issuer.referenced, message.to_owned())
        }
    };
    problems.push(object.error(at, format!("{message}; until then every token of the issuer is refused")));
    Where::Here(KeySet::default())
}

/// Where an issuer has its discovery document (OIDC Discovery 1.0 section 4).
fn discovery(issuer: &str) -> Arc<str> {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')).into()
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

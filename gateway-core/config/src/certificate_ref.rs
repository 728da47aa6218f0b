//! What references to certificates lead to.

use crate::ObjectName;
use crate::certificate::{self, Credential};
use crate::compile::Work;
use crate::objects::Stored;
use crate::references::{is_granted, target};
use crate::resources::gateway::ObjectRef;
use crate::status::Refusal;

/// What a reference means. While the content of its Secret is broken, what was read from it before stays in force.
/// `invalid` is the reason of every refusal but that of a missing grant.
pub(crate) fn credential<S>(
    work: &mut Work<'_>,
    owner: &Stored<S>,
    reference: &ObjectRef,
    invalid: &'static str,
) -> Result<Credential, (Option<Credential>, Refusal)> {
    let name = secret(work, owner, reference, invalid).map_err(|refusal| (None, refusal))?;
    let invalid = |message: String| Refusal::new(invalid, message);
    let Some(secret) = work.objects.secrets.get(&name) else {
        return Err((None, invalid(format!("there is no Secret {name}"))));
    };
    let credential = match certificate::read(&secret.spec, work.options.now) {
        Ok(credential) => credential,
        Err(why) => {
            let kept = work.credentials_before.and_then(|before| before.get(&name)).cloned();
            work.credentials.extend(kept.clone().map(|kept| (name.clone(), kept)));
            return Err((kept, invalid(format!("Secret {name}: {why}"))));
        }
    };
    if let Some(why) = &credential.out_of_date {
        let message = format!("{why}: whomever {} shows it to will refuse it", owner.label());
        work.problems.push(secret.error(None, message));
    }
    work.credentials.insert(name, credential.clone());
    Ok(credential)
}

/// The Secret that a reference names, if it may name it.
fn secret<S>(
    work: &Work<'_>,
    owner: &Stored<S>,
    reference: &ObjectRef,
    invalid: &'static str,
) -> Result<ObjectName, Refusal> {
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    let group = reference.group.as_deref().unwrap_or_default();
    if !matches!(group, "" | "core") || kind != "Secret" {
        let message = format!("a certificate is in a Secret of the core group, not in `{kind}` of `{group}`");
        return Err(Refusal::new(invalid, message));
    }
    let own = &owner.name.namespace;
    let name = target(own, reference);
    if !is_granted(work.objects, owner.kind, own, "Secret", &name) {
        let message = format!(
            "Secret {name} is in another namespace, and no ReferenceGrant there allows the reference"
        );
        return Err(Refusal::new("RefNotPermitted", message));
    }
    Ok(name)
}

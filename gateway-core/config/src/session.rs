//! `sessionPersistence`, checked by itself and as a rule carries it out.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use serde_saphyr::{Location, Spanned};
use towpath_gateway_core::{Backend, Endpoint};
use towpath_routing::{SessionCarrier, SessionHome, SessionPersistence, WeightedBackend};

use crate::document::Defect;
use crate::resources::leaf::Span;
use crate::resources::traffic::{Lifetime, SessionKind, SessionSpec};

/// Bytes of a digest in a tag: enough that no two endpoints share one.
const TAG: usize = 12;

/// What is wrong with the settings by themselves.
pub(crate) fn check(spec: &Spanned<SessionSpec>, found: &mut Vec<Defect>) {
    let (at, spec) = (spec.referenced, &spec.value);
    for limit in [&spec.absolute_timeout, &spec.idle_timeout].into_iter().flatten() {
        if limit.value.0 < Duration::from_secs(1) {
            found.push(Defect::new(limit.referenced, "sessions age by seconds: a timeout is 1s at least"));
        }
    }
    if let Some(name) = &spec.session_name
        && (name.value.len() > 128 || HeaderName::from_bytes(name.value.as_bytes()).is_err())
    {
        let message = format!("`{}` is not the name of a cookie or a header", name.value);
        found.push(
            Defect::new(name.referenced, message).suggest("a token (RFC 9110 section 5.6.2) of at most 128"),
        );
    }
    check_lifetime(spec, at, found);
}

fn check_lifetime(spec: &SessionSpec, at: Location, found: &mut Vec<Defect>) {
    let Some(cookie) = &spec.cookie_config else { return };
    if spec.kind == SessionKind::Header {
        found.push(Defect::new(cookie.referenced, "`cookieConfig` is for sessions of type Cookie"));
    }
    if cookie.value.lifetime_type == Lifetime::Permanent && spec.absolute_timeout.is_none() {
        found.push(Defect::new(at, "a cookie of lifetimeType Permanent needs `absoluteTimeout`"));
    }
}

/// Sessions over the backends of a rule, of which `owner` tells the name if the settings give none.
pub(crate) fn compile(spec: &SessionSpec, owner: &str, backends: &[WeightedBackend]) -> SessionPersistence {
    let name = spec.session_name.as_ref().map_or_else(
        || format!("session-{}", tag(&[owner]).to_lowercase().get(..8).unwrap_or_default()),
        |name| name.value.clone(),
    );
    let header = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| spec.kind == SessionKind::Header);
    let carrier = header.map_or_else(|| SessionCarrier::Cookie(name.into()), SessionCarrier::Header);
    let homes = backends.iter().flat_map(|own| {
        own.backend.endpoints().into_iter().flatten().map(|endpoint| home(&own.backend, endpoint))
    });
    let limit = |limit: &Option<Spanned<Span>>| limit.as_ref().map(|limit| limit.value.0);
    let mut session = SessionPersistence::new(carrier, homes.collect());
    session.absolute_timeout = limit(&spec.absolute_timeout);
    session.idle_timeout = limit(&spec.idle_timeout);
    session.permanent =
        spec.cookie_config.as_ref().is_some_and(|cookie| cookie.value.lifetime_type == Lifetime::Permanent);
    session
}

fn home(backend: &Arc<Backend>, endpoint: &Arc<Endpoint>) -> SessionHome {
    let tag = tag(&[&backend.name, &endpoint.workload.name, &endpoint.address.to_string()]);
    SessionHome { tag: tag.into(), backend: Arc::clone(backend), endpoint: Arc::clone(endpoint) }
}

/// The same at every gateway, and nothing to read an address from at a glance.
fn tag(parts: &[&str]) -> String {
    let digest = digest(&SHA256, parts.join("\n").as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..TAG).unwrap_or_default())
}

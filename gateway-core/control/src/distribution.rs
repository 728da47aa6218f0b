//! `GET /v1/config`: the configuration as the caller may see it, at once or as soon as it changes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, timeout_at};
use towpath_gateway_core::{Body, Response, SpiffeId};

use crate::Configuration;
use crate::configuration::View;
use crate::refusal::Refusal;

/// How long a caller may wait for a change. Well under the minute after which many middle boxes cut idle connections.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(crate) async fn hand_out(
    configuration: &Configuration,
    caller: &SpiffeId,
    head: &Parts,
) -> Result<Response, Refusal> {
    let known = waits_for(head.uri.query().unwrap_or_default());
    let view = match known {
        Some(known) => changed(configuration, caller, known).await,
        None => configuration.view(caller.namespace()),
    };
    let etag = format!("\"{}\"", view.version);
    let same = known == Some(&*view.version)
        || head.headers.get_all(IF_NONE_MATCH).iter().any(|value| value.as_bytes() == etag.as_bytes());
    let mut response = Response::new(if same { Body::empty() } else { Body::from(view.json.clone()) });
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

/// The version in `wait=<version>`. Versions hold nothing that would be escaped in a query.
fn waits_for(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("wait="))
}

/// The first view whose version is not `known`; the one in force after [`LONGEST_WAIT`].
async fn changed(configuration: &Configuration, caller: &SpiffeId, known: &str) -> Arc<View> {
    let deadline = Instant::now() + LONGEST_WAIT;
    let mut changes = configuration.changes();
    loop {
        // Marks the change seen before looking, so that none is missed in between.
        changes.mark_unchanged();
        let view = configuration.view(caller.namespace());
        if view.version != known {
            return view;
        }
        match timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            _ => return view,
        }
    }
}

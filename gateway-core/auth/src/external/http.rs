//! The protocol `HTTP`: the question is a request like the client's, and the answer's status decides.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, LOCATION, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, response};
use towpath_gateway_core::{Body, Request};

use super::answer::{Action, ExternalChanges, Line};
use super::{ExternalHttp, HeaderNames, PARTIAL_BODY, is_framing};

/// A list of headers that Envoy's HTTP services may send with a 200: the backend does not get these.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// What is sent; `None` if prefix and path make no target together.
pub(super) fn question(
    head: &Parts,
    body: &Bytes,
    partial: Option<bool>,
    http: &ExternalHttp,
) -> Option<Request> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = [http.path_prefix.trim_end_matches('/'), target].concat();
    let mut request = Request::new(Body::from(body.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(PathAndQuery::try_from(target).ok()?);
    let headers = request.headers_mut();
    match (head.headers.get(HOST), head.uri.authority()) {
        (Some(host), _) => _ = headers.insert(HOST, host.clone()),
        (None, Some(authority)) => _ = headers.insert(HOST, authority.as_str().parse().ok()?),
        (None, None) => {}
    }
    let listed = |name: &HeaderName| {
        *name == AUTHORIZATION
            || http.allowed_headers.iter().any(|pattern| pattern.matches_ignoring_case(name.as_str()))
    };
    for (name, value) in &head.headers {
        if !is_framing(name) && *name != PARTIAL_BODY && listed(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &http.added_headers {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(partial) = partial {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if partial { "true" } else { "false" }));
    }
    headers.insert(CONTENT_LENGTH, body.len().into());
    Some(request)
}

/// What a 200 changes. `sent` are the client's headers: what the service sets, or it alone may set, goes in any case.
pub(super) fn changes(answer: &HeaderMap, http: &ExternalHttp, sent: &HeaderMap) -> ExternalChanges {
    let taken = |names: &HeaderNames, action| -> Vec<Line> {
        let meant = |name: &HeaderName| !is_framing(name) && *name != TO_REMOVE && names.takes(name);
        let lines = answer.iter().filter(|(name, _)| meant(name));
        lines.map(|(name, value)| Line { name: name.clone(), value: value.clone(), action }).collect()
    };
    let request = taken(&http.to_backend, Action::Add);
    let mut withheld = reserved(http, sent);
    withheld.extend(request.iter().map(|line| line.name.clone()));
    let listed = answer.get_all(TO_REMOVE).iter().filter_map(|line| line.to_str().ok());
    let listed = listed.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok());
    ExternalChanges {
        withheld,
        request,
        remove: listed.filter(|name| !is_framing(name)).collect(),
        target: None,
        response: taken(&http.to_client, Action::Add),
    }
}

/// What a client sent under names of the service. Credentials that are checked behind it are not claims of who the client is.
pub(super) fn reserved(http: &ExternalHttp, sent: &HeaderMap) -> Vec<HeaderName> {
    let is_checked =
        |name: &HeaderName| [AUTHORIZATION, COOKIE].contains(name) || http.checked_later.contains(name);
    let reserved =
        |name: &&HeaderName| !is_framing(name) && !is_checked(name) && http.to_backend.reserves(name);
    sent.keys().filter(reserved).cloned().collect()
}

/// The client's answer if the request is refused. Nothing but 200 allows, so that no other success may look like one. A body
/// that did not come is left out.
pub(super) fn refusal(mut head: response::Parts, body: Option<Bytes>, names: &HeaderNames) -> Response<Body> {
    if head.status.is_success() || head.status.is_informational() {
        head.status = StatusCode::FORBIDDEN;
    }
    let is_sent = |name: &HeaderName| {
        [CONTENT_LENGTH, WWW_AUTHENTICATE, LOCATION].contains(name)
            || !is_framing(name) && *name != TO_REMOVE && names.holds(name)
    };
    let left_out: Vec<_> = head.headers.keys().filter(|name| !is_sent(name)).cloned().collect();
    for name in left_out {
        head.headers.remove(name);
    }
    if body.is_none() {
        for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
            head.headers.remove(name);
        }
    }
    let body = body.unwrap_or_default();
    if !body.is_empty() && !head.headers.contains_key(CONTENT_TYPE) {
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    Response::from_parts(head, Body::from(body))
}

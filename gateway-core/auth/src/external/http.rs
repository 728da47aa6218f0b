//! The protocol `HTTP`: the question is a request like the client's, and the answer's status decides.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Response, StatusCode, Uri};
use towpath_gateway_core::{Body, Request};

use super::answer::{Action, HeaderChanges, Line};
use super::is_framing;

/// A list of headers that Envoy's HTTP services may send with a 200: the backend does not get these.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// What is sent; `None` if prefix and path make no target together.
pub(super) fn question(head: &Parts, body: &Bytes, prefix: &str, allowed: &[HeaderName]) -> Option<Request> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = [prefix.trim_end_matches('/'), target].concat();
    let mut request = Request::new(Body::from(body.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(PathAndQuery::try_from(target).ok()?);
    let headers = request.headers_mut();
    match (head.headers.get(HOST), head.uri.authority()) {
        (Some(host), _) => _ = headers.insert(HOST, host.clone()),
        (None, Some(authority)) => _ = headers.insert(HOST, authority.as_str().parse().ok()?),
        (None, None) => {}
    }
    let others = allowed.iter().filter(|name| !is_framing(name) && **name != AUTHORIZATION);
    for name in others.chain([&AUTHORIZATION]) {
        for value in head.headers.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONTENT_LENGTH, body.len().into());
    Some(request)
}

/// What a 200 changes. Names in `allowed` are the service's: what the client sent under them goes in any case.
pub(super) fn changes(answer: &HeaderMap, allowed: &[HeaderName]) -> HeaderChanges {
    let taken = |name: &HeaderName| {
        !is_framing(name)
            && *name != TO_REMOVE
            && if allowed.is_empty() { !describes_answer(name) } else { allowed.contains(name) }
    };
    let listed = answer.get_all(TO_REMOVE).iter().filter_map(|line| line.to_str().ok());
    let mut remove: Vec<_> = listed
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .chain(allowed.iter().cloned())
        .chain(answer.keys().filter(|name| taken(name)).cloned())
        .filter(|name| !is_framing(name))
        .collect();
    remove.dedup();
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| Line {
        name: name.clone(),
        value: value.clone(),
        action: Action::Append,
    };
    let request = answer.iter().filter(|(name, _)| taken(name)).map(line).collect();
    HeaderChanges { remove, request, response: Vec::new() }
}

/// Headers about the answer's own body and origin. On the client's request they would say something untrue.
fn describes_answer(name: &HeaderName) -> bool {
    name.as_str().starts_with("content-") || matches!(name.as_str(), "date" | "server" | "vary" | "etag")
}

/// The client's answer if the request is refused. Nothing but 200 allows, so that no other success may look like one.
pub(super) fn refusal(mut answer: Response<Body>) -> Response<Body> {
    if answer.status().is_success() || answer.status().is_informational() {
        *answer.status_mut() = StatusCode::FORBIDDEN;
    }
    answer
}

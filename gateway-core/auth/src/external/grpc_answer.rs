//! What a `CheckResponse` says.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use prost::Message;
use towpath_gateway_core::{Body, Connection};

use super::answer::{Action, ExternalChanges, ExternalVerdict, Line};
use super::grpc::{PREFIX, Target, text};
use super::proto::{CheckResponse, DeniedResponse, HeaderOption, HttpResponse, OkResponse};
use super::{is_framing, query};

/// The message of an answer; an error if it is not one to such a call. `trailers` are those of the response, or its headers if
/// there is nothing else.
pub(super) fn message(body: &Bytes, trailers: &HeaderMap) -> Result<CheckResponse, String> {
    match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(status) => {
            let message = trailers.get("grpc-message").map(|message| text(message.as_bytes()));
            return Err(format!("grpc-status {} {}", text(status), message.unwrap_or_default()));
        }
        None => return Err("no grpc-status".to_owned()),
    }
    let message = unframed(body).ok_or("not one message that is not compressed")?;
    CheckResponse::decode(message).map_err(|error| error.to_string())
}

fn unframed(body: &Bytes) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let (flag, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (*flag == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}

/// Whether it allows. A status that is not there is `OK`, as in Envoy; the answer of a refusal refuses beside any status.
pub(super) fn allows(response: &CheckResponse) -> bool {
    response.status.as_ref().is_none_or(|status| status.code == 0)
        && !matches!(response.http, Some(HttpResponse::Denied(_)))
}

/// What becomes of the request of which `head` was shown; an error if the changes cannot be made to it.
pub(super) fn verdict(
    response: CheckResponse,
    head: &Parts,
    connection: Option<&Connection>,
) -> Result<ExternalVerdict, String> {
    let allowed = allows(&response);
    Ok(match response.http {
        Some(HttpResponse::Ok(ok)) if allowed => ExternalVerdict::Allow(changes(ok, head, connection)?),
        None if allowed => ExternalVerdict::Allow(ExternalChanges::default()),
        Some(HttpResponse::Denied(denied)) => ExternalVerdict::Deny(refusal(denied)),
        _ => ExternalVerdict::Deny(refusal(DeniedResponse::default())),
    })
}

fn changes(ok: OkResponse, head: &Parts, connection: Option<&Connection>) -> Result<ExternalChanges, String> {
    let mut request = Vec::with_capacity(ok.headers.len());
    for option in ok.headers {
        if !names_target(&option, head, connection)? {
            request.extend(line(option, on_request)?);
        }
    }
    let response = ok.response_headers_to_add.into_iter().map(|option| line(option, on_response));
    let mut response: Vec<_> = response.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    request.sort_by_key(|line| line.action);
    response.sort_by_key(|line| line.action);
    let remove = ok.headers_to_remove.iter().filter_map(|name| name.parse().ok());
    let set: Vec<_> = ok.query_parameters_to_set.into_iter().map(|set| (set.key, set.value)).collect();
    let target = (!set.is_empty() || !ok.query_parameters_to_remove.is_empty())
        .then(|| query::changed(&head.uri, &set, &ok.query_parameters_to_remove))
        .map(|target| target.ok_or("the query parameters make no target"));
    Ok(ExternalChanges {
        withheld: Vec::new(),
        request,
        remove: remove.filter(|name| !is_framing(name)).collect(),
        target: target.transpose()?,
        response,
    })
}

/// Whether a line is about the method, the path or the host, and leaves it as it is. By these the route and who may ask were
/// decided: an answer that changes them cannot be carried out.
fn names_target(
    option: &HeaderOption,
    head: &Parts,
    connection: Option<&Connection>,
) -> Result<bool, String> {
    let Some(header) = &option.header else { return Ok(false) };
    let name = if HOST.as_str().eq_ignore_ascii_case(&header.key) { ":authority" } else { &*header.key };
    if !name.starts_with(':') {
        return Ok(false);
    }
    let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let target = Target::of(head, connection);
    if target.fields().iter().any(|(field, own)| *field == name && own.as_bytes() == value) {
        return Ok(true);
    }
    Err(format!("it sets `{}`, which is settled before it is asked", header.key.escape_debug()))
}

/// Envoy, where the way to append is `append` alone, and nothing is appended to a line that is not there.
fn on_request(option: &HeaderOption) -> Action {
    if option.append.as_ref().is_some_and(|append| append.value) { Action::Extend } else { Action::Set }
}

fn on_response(option: &HeaderOption) -> Action {
    match (&option.append, option.append_action) {
        (Some(append), _) if append.value => Action::Add,
        (None, 0) => Action::Add,
        (None, 1) => Action::AddIfAbsent,
        (None, 3) => Action::SetIfPresent,
        _ => Action::Set,
    }
}

/// The line, unless it is of one hop; an error if it cannot be written.
fn line(option: HeaderOption, action: fn(&HeaderOption) -> Action) -> Result<Option<Line>, String> {
    let action = action(&option);
    let header = option.header.unwrap_or_default();
    let name = header.key.parse::<HeaderName>();
    let name = name.map_err(|_| format!("`{}` is not a header name", header.key.escape_debug()))?;
    let value = if header.raw_value.is_empty() { header.value.into() } else { header.raw_value };
    let value = HeaderValue::from_maybe_shared(value);
    let value = value.map_err(|_| format!("the value of `{name}` cannot be written"))?;
    Ok((!is_framing(&name)).then_some(Line { name, value, action }))
}

/// The answer to the client. Whatever it holds the request is refused: lines that cannot be written are left out.
fn refusal(denied: DeniedResponse) -> Response<Body> {
    let code = denied.status.and_then(|status| u16::try_from(status.code).ok());
    let status =
        code.filter(|code| (300..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
    let mut headers = HeaderMap::new();
    let lines = denied.headers.into_iter().filter_map(|option| line(option, |_| Action::Add).ok().flatten());
    lines.for_each(|line| line.write(&mut headers));
    if !denied.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    let mut response = Response::new(Body::from(denied.body));
    *response.status_mut() = status.unwrap_or(StatusCode::FORBIDDEN);
    *response.headers_mut() = headers;
    response
}

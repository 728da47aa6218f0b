//! What a `CheckResponse` says.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use prost::Message;
use towpath_gateway_core::Body;

use super::answer::{Action, ExternalChanges, ExternalVerdict, Line};
use super::grpc::{PREFIX, text};
use super::is_framing;
use super::proto::{CheckResponse, DeniedResponse, HeaderOption, HttpResponse, OkResponse};

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

/// Whether it allows. No status at all is `OK` to protobuf, but here nothing that was left out may allow.
pub(super) fn allows(response: &CheckResponse) -> bool {
    response.status.as_ref().is_some_and(|status| status.code == 0)
        && !matches!(response.http, Some(HttpResponse::Denied(_)))
}

/// What becomes of the request.
pub(super) fn verdict(response: CheckResponse) -> ExternalVerdict {
    let allowed = allows(&response);
    match response.http {
        Some(HttpResponse::Ok(ok)) if allowed => ExternalVerdict::Allow(changes(ok)),
        None if allowed => ExternalVerdict::Allow(ExternalChanges::default()),
        Some(HttpResponse::Denied(denied)) => ExternalVerdict::Deny(refusal(denied)),
        _ => ExternalVerdict::Deny(refusal(DeniedResponse::default())),
    }
}

fn changes(ok: OkResponse) -> ExternalChanges {
    let remove = ok.headers_to_remove.iter().filter_map(|name| name.parse().ok());
    ExternalChanges {
        withheld: Vec::new(),
        request: ok.headers.into_iter().filter_map(line).collect(),
        remove: remove.filter(|name| !is_framing(name)).collect(),
        response: ok.response_headers_to_add.into_iter().filter_map(line).collect(),
    }
}

/// A line that can be written; those of one hop and what is no header are left out.
fn line(option: HeaderOption) -> Option<Line> {
    let header = option.header?;
    let name: HeaderName = header.key.parse().ok().filter(|name| !is_framing(name))?;
    let value = if header.raw_value.is_empty() { header.value.into() } else { header.raw_value };
    let action = match (option.append, option.append_action) {
        (Some(append), _) if append.value => Action::Add,
        (None, 1) => Action::AddIfAbsent,
        (None, 3) => Action::SetIfPresent,
        // `append` is false unless it is said in these messages.
        _ => Action::Set,
    };
    Some(Line { name, value: HeaderValue::from_maybe_shared(value).ok()?, action })
}

fn refusal(denied: DeniedResponse) -> Response<Body> {
    let code = denied.status.and_then(|status| u16::try_from(status.code).ok());
    let status =
        code.filter(|code| (300..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = Response::new(Body::from(denied.body));
    *response.status_mut() = status.unwrap_or(StatusCode::FORBIDDEN);
    denied.headers.into_iter().filter_map(line).for_each(|line| line.write(response.headers_mut()));
    response
}

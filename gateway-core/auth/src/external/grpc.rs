//! The protocol `GRPC`: `envoy.service.auth.v3.Authorization/Check`, as one unary call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version};
use prost::Message;
use towpath_gateway_core::{Body, Connection, Request};

use super::answer::{Action, ExternalVerdict, HeaderChanges, Line};
use super::is_framing;
use super::proto::{
    Address, Asked, Attributes, CheckRequest, CheckResponse, DeniedResponse, HeaderOption, HttpRequest,
    HttpResponse, OkResponse, Peer, SocketAddress, Timestamp, TlsSession,
};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The flag of a message that is not compressed, and the four bytes of its length (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// What is sent about a request. `authority` names the service.
pub(super) fn question(
    head: &Parts,
    body: &Bytes,
    connection: Option<&Connection>,
    allowed: &[HeaderName],
    authority: &str,
    now: SystemTime,
) -> Request {
    let principal = connection.and_then(Connection::identity);
    let principal = principal.map(|id| id.as_str().to_owned()).unwrap_or_default();
    let http = Some(http_request(head, body, connection, allowed));
    let attributes = Attributes {
        source: connection.map(|c| Peer { address: Some(address(c.peer)), principal }),
        destination: connection.map(|c| Peer { address: Some(address(c.local)), principal: String::new() }),
        request: Some(Asked { time: Some(timestamp(now)), http }),
        tls_session: None,
    };
    call(attributes, authority)
}

/// What is sent about a connection, as by Envoy's network filter: nothing of HTTP.
pub(super) fn connection_question(connection: &Connection, authority: &str) -> Request {
    let tls = connection.tls.as_ref();
    let own = tls.and_then(|tls| own_name(tls.forwarded_cert.as_deref()?));
    let peer = connection.identity().map(|id| id.as_str().to_owned());
    let attributes = Attributes {
        source: Some(Peer { address: Some(address(connection.peer)), principal: peer.unwrap_or_default() }),
        destination: Some(Peer {
            address: Some(address(connection.local)),
            principal: own.unwrap_or_default().to_owned(),
        }),
        request: None,
        tls_session: connection.server_name().map(|name| TlsSession { sni: name.to_owned() }),
    };
    call(attributes, authority)
}

/// Whose certificate was shown to the peer, from the element of `X-Forwarded-Client-Cert` that was made at the handshake.
fn own_name(element: &str) -> Option<&str> {
    element.strip_prefix("By=")?.split(';').next()
}

fn call(attributes: Attributes, authority: &str) -> Request {
    let message = CheckRequest { attributes: Some(attributes) };
    let mut framed = BytesMut::with_capacity(PREFIX + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    let mut request = Request::new(Body::from(framed.freeze()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(PATH);
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Ok(authority) = HeaderValue::from_str(authority) {
        headers.insert(HOST, authority);
    }
    request
}

fn timestamp(now: SystemTime) -> Timestamp {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().try_into().unwrap_or_default(),
    }
}

fn address(address: SocketAddr) -> Address {
    let socket =
        SocketAddress { address: address.ip().to_canonical().to_string(), port: address.port().into() };
    Address { socket: Some(socket) }
}

fn http_request(
    head: &Parts,
    body: &Bytes,
    connection: Option<&Connection>,
    allowed: &[HeaderName],
) -> HttpRequest {
    let host = head.headers.get(HOST).map(|host| text(host.as_bytes()));
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str().to_owned()));
    let (host, method) = (host.unwrap_or_default(), head.method.as_str().to_owned());
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    let scheme = if connection.is_some_and(|c| c.tls.is_some()) { "https" } else { "http" };
    let mut headers = headers(&head.headers, allowed);
    // Envoy's map holds these, too, and policies of such services read them there.
    let pseudo = [(":authority", &host), (":method", &method), (":path", &path)];
    if allowed.is_empty() {
        headers.extend(pseudo.map(|(name, value)| (name.to_owned(), value.clone())));
        headers.insert(":scheme".to_owned(), scheme.to_owned());
    }
    let (body, raw_body) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), Bytes::new()),
        Err(_) => (String::new(), body.clone()),
    };
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    HttpRequest {
        id: head.headers.get("x-request-id").map(|id| text(id.as_bytes())).unwrap_or_default(),
        method,
        headers,
        path,
        host,
        scheme: scheme.to_owned(),
        size: length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(-1),
        protocol: if head.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        body,
        raw_body,
    }
}

/// Names in lower case; repeated lines joined (RFC 9110 section 5.3).
fn headers(headers: &HeaderMap, allowed: &[HeaderName]) -> BTreeMap<String, String> {
    let sent = |name: &&HeaderName| allowed.is_empty() || allowed.contains(name);
    let joined = |name: &HeaderName| {
        let glue = if *name == http::header::COOKIE { "; " } else { "," };
        headers.get_all(name).iter().map(|value| text(value.as_bytes())).collect::<Vec<_>>().join(glue)
    };
    headers.keys().filter(sent).map(|name| (name.as_str().to_owned(), joined(name))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the service says; an error if it is not an answer to such a call. `trailers` are those of the response, or its
/// headers if there is nothing else.
pub(super) fn verdict(body: &Bytes, trailers: &HeaderMap) -> Result<ExternalVerdict, String> {
    match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(status) => {
            let message = trailers.get("grpc-message").map(|message| text(message.as_bytes()));
            return Err(format!("grpc-status {} {}", text(status), message.unwrap_or_default()));
        }
        None => return Err("no grpc-status".to_owned()),
    }
    let message = unframed(body).ok_or("not one message that is not compressed")?;
    let response = CheckResponse::decode(message).map_err(|error| error.to_string())?;
    // No status at all is `OK` to protobuf, but here nothing that was left out may allow a request.
    let allowed = response.status.as_ref().is_some_and(|status| status.code == 0);
    Ok(match response.http {
        Some(HttpResponse::Ok(ok)) if allowed => ExternalVerdict::Allow(changes(ok)),
        None if allowed => ExternalVerdict::Allow(HeaderChanges::default()),
        Some(HttpResponse::Denied(denied)) => ExternalVerdict::Deny(refusal(denied)),
        _ => ExternalVerdict::Deny(refusal(DeniedResponse::default())),
    })
}

fn unframed(body: &Bytes) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let (flag, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (*flag == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}

fn changes(ok: OkResponse) -> HeaderChanges {
    let remove = ok.headers_to_remove.iter().filter_map(|name| name.parse().ok());
    HeaderChanges {
        remove: remove.filter(|name| !is_framing(name)).collect(),
        request: ok.headers.into_iter().filter_map(line).collect(),
        response: ok.response_headers_to_add.into_iter().filter_map(line).collect(),
    }
}

/// A line that can be written; those of one hop and what is no header are left out.
fn line(option: HeaderOption) -> Option<Line> {
    let header = option.header?;
    let name: HeaderName = header.key.parse().ok().filter(|name| !is_framing(name))?;
    let value = if header.raw_value.is_empty() { header.value.into() } else { header.raw_value };
    let action = match (option.append, option.append_action) {
        (Some(append), _) if append.value => Action::Append,
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

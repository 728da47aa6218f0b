//! The protocol `GRPC`: `envoy.service.auth.v3.Authorization/Check`, as one unary call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use prost::Message;
use towpath_gateway_core::{Body, Connection, Request};

use super::PARTIAL_BODY;
use super::proto::{
    Address, Asked, Attributes, CheckRequest, HttpRequest, Peer, SocketAddress, Timestamp, TlsSession,
};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The flag of a message that is not compressed, and the four bytes of its length (gRPC over HTTP/2).
pub(super) const PREFIX: usize = 5;

/// What is sent of a body.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether there is more, if the service is told.
    pub(super) partial: Option<bool>,
    /// As bytes, even if it is text.
    pub(super) raw: bool,
}

/// What is sent about a request. `authority` names the service.
pub(super) fn question(
    head: &Parts,
    body: Shown<'_>,
    connection: Option<&Connection>,
    allowed: &[HeaderName],
    authority: &str,
    now: SystemTime,
) -> Request {
    let http = Some(http_request(head, body, connection, allowed));
    let attributes = Attributes {
        source: connection.map(source),
        destination: connection.map(destination),
        request: Some(Asked { time: Some(timestamp(now)), http }),
        tls_session: None,
    };
    call(attributes, authority)
}

/// What is sent about a connection, as by Envoy's network filter: nothing of HTTP.
pub(super) fn connection_question(connection: &Connection, authority: &str) -> Request {
    let attributes = Attributes {
        source: Some(source(connection)),
        destination: Some(destination(connection)),
        request: None,
        tls_session: connection.server_name().map(|name| TlsSession { sni: name.to_owned() }),
    };
    call(attributes, authority)
}

fn source(connection: &Connection) -> Peer {
    let peer = connection.identity().map(|id| id.as_str().to_owned());
    Peer { address: Some(address(connection.peer)), principal: peer.unwrap_or_default() }
}

fn destination(connection: &Connection) -> Peer {
    let tls = connection.tls.as_ref();
    let own = tls.and_then(|tls| own_name(tls.forwarded_cert.as_deref()?));
    Peer { address: Some(address(connection.local)), principal: own.unwrap_or_default().to_owned() }
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

/// The parts of a request that HTTP/2 carries as pseudo-header fields.
pub(super) struct Target {
    pub(super) authority: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) scheme: &'static str,
}

impl Target {
    pub(super) fn of(head: &Parts, connection: Option<&Connection>) -> Self {
        let host = head.headers.get(HOST).map(|host| text(host.as_bytes()));
        let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str().to_owned()));
        Self {
            authority: host.unwrap_or_default(),
            method: head.method.as_str().to_owned(),
            path: head.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
            scheme: if connection.is_some_and(|c| c.tls.is_some()) { "https" } else { "http" },
        }
    }

    /// The names and values of the fields.
    pub(super) fn fields(&self) -> [(&'static str, &str); 4] {
        [
            (":authority", &self.authority),
            (":method", &self.method),
            (":path", &self.path),
            (":scheme", self.scheme),
        ]
    }
}

fn http_request(
    head: &Parts,
    shown: Shown<'_>,
    connection: Option<&Connection>,
    allowed: &[HeaderName],
) -> HttpRequest {
    let target = Target::of(head, connection);
    let mut headers = headers(&head.headers, allowed);
    // Envoy's map holds these, too, and policies of such services read them there.
    if allowed.is_empty() {
        headers.extend(target.fields().map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    if let Some(partial) = shown.partial {
        headers.insert(PARTIAL_BODY.to_string(), partial.to_string());
    }
    let (body, raw_body) = match std::str::from_utf8(shown.bytes) {
        Ok(text) if !shown.raw => (text.to_owned(), Bytes::new()),
        _ => (String::new(), Bytes::copy_from_slice(shown.bytes)),
    };
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    HttpRequest {
        id: head.headers.get("x-request-id").map(|id| text(id.as_bytes())).unwrap_or_default(),
        method: target.method,
        headers,
        path: target.path,
        host: target.authority,
        scheme: target.scheme.to_owned(),
        size: length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(-1),
        protocol: if head.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        body,
        raw_body,
    }
}

/// Names in lower case; repeated lines joined (RFC 9110 section 5.3).
fn headers(headers: &HeaderMap, allowed: &[HeaderName]) -> BTreeMap<String, String> {
    let sent = |name: &&HeaderName| **name != PARTIAL_BODY && (allowed.is_empty() || allowed.contains(name));
    let joined = |name: &HeaderName| {
        let glue = if *name == http::header::COOKIE { "; " } else { "," };
        headers.get_all(name).iter().map(|value| text(value.as_bytes())).collect::<Vec<_>>().join(glue)
    };
    headers.keys().filter(sent).map(|name| (name.as_str().to_owned(), joined(name))).collect()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

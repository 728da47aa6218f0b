//! Headers that concern one connection only (RFC 9110 section 7.6.1).

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use towpath_gateway_core::{Fault, Reason};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Which of these headers a message holds, so that those that are not there need not be looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HopHeaders {
    connection: bool,
    te: bool,
    /// Any of the others; `Upgrade` too.
    others: bool,
}

impl HopHeaders {
    /// Those of a message.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        headers.keys().for_each(|name| found.note(name.as_str()));
        found
    }

    /// Takes note of one header.
    pub(crate) fn note(&mut self, name: &str) {
        match name {
            "connection" => self.connection = true,
            "te" => self.te = true,
            "upgrade" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "http2-settings" => {
                self.others = true;
            }
            _ => {}
        }
    }
}

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1), the only upgrade that is passed on.
pub(crate) fn is_websocket<B>(request: &Request<B>, found: HopHeaders) -> bool {
    let headers = request.headers();
    (found.connection && found.others)
        && request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && headers.get_all(UPGRADE).iter().count() == 1
        && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Removes them from a request. `TE: trailers` stays, which gRPC needs, and so do `Connection` and `Upgrade` of a
/// WebSocket, alone. A `Connection` that names `Host` or `Content-Length` would take the message apart: refused.
pub(crate) fn strip_request(
    headers: &mut HeaderMap,
    found: HopHeaders,
    websocket: bool,
) -> Result<(), Fault> {
    if found.connection && tokens(headers).any(is_vital) {
        let detail = "`Connection` names a header that is not for one hop";
        return Err(Fault::new(Reason::BadRequest).with_detail(detail));
    }
    let trailers = found.te && headers.get_all(TE).iter().any(wants_trailers);
    strip(headers, found);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if websocket {
        keep_upgrade(headers);
    }
    Ok(())
}

/// Removes them from a response. `switching` is the answer to a WebSocket request that was accepted.
pub(crate) fn strip_response(headers: &mut HeaderMap, switching: bool) {
    strip(headers, HopHeaders::of(headers));
    if switching {
        keep_upgrade(headers);
    }
}

fn keep_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn strip(headers: &mut HeaderMap, found: HopHeaders) {
    if found.connection {
        let named: Vec<HeaderName> = tokens(headers)
            .filter(|token| !is_vital(token) && !is_usual(token))
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if found.te || found.others {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS] {
            headers.remove(name);
        }
    }
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn is_vital(token: &str) -> bool {
    token.eq_ignore_ascii_case(HOST.as_str()) || token.eq_ignore_ascii_case(CONTENT_LENGTH.as_str())
}

// Options that name no header, or one that is removed anyway.
fn is_usual(token: &str) -> bool {
    ["close", "keep-alive", "upgrade", "te"].iter().any(|usual| token.eq_ignore_ascii_case(usual))
}

fn wants_trailers(value: &HeaderValue) -> bool {
    let coding =
        |text: &str| text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("trailers");
    value.to_str().is_ok_and(|text| text.split(',').any(coding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn stripped(headers: &mut HeaderMap, websocket: bool) -> Result<(), Fault> {
        let found = HopHeaders::of(headers);
        strip_request(headers, found, websocket)
    }

    #[test]
    fn each_of_them_goes_when_it_comes_alone() {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS, CONNECTION]
        {
            let mut given = headers(&[("x-end", "1")]);
            given.insert(&name, HeaderValue::from_static("x"));
            let mut answer = given.clone();
            stripped(&mut given, false).unwrap();
            strip_response(&mut answer, false);
            assert_eq!((&given, &answer), (&headers(&[("x-end", "1")]), &given), "{name}");
        }
    }

    #[test]
    fn what_concerns_one_hop_goes() {
        let mut given = headers(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-authorization", "Basic eDp5"),
            ("trailer", "x-sum"),
            ("x-end", "1"),
        ]);
        stripped(&mut given, false).unwrap();
        let kept = headers(&[("proxy-authorization", "Basic eDp5"), ("trailer", "x-sum"), ("x-end", "1")]);
        assert_eq!(given, kept);
    }

    #[test]
    fn trailers_may_be_asked_for() {
        let mut given = headers(&[("connection", "TE"), ("te", "gzip;q=0.5, Trailers")]);
        stripped(&mut given, false).unwrap();
        assert_eq!(given, headers(&[("te", "trailers")]));
    }

    #[test]
    fn an_upgrade_keeps_its_two_lines_alone() {
        let mut given = headers(&[
            ("connection", "keep-alive, Upgrade, x-hop"),
            ("upgrade", "WebSocket"),
            ("x-hop", "1"),
        ]);
        let kept = headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        stripped(&mut given, true).unwrap();
        assert_eq!(given, kept);
        strip_response(&mut given, true);
        assert_eq!(given, kept);
        strip_response(&mut given, false);
        assert!(given.is_empty());
    }

    #[test]
    fn the_frame_of_a_message_cannot_be_named_away() {
        for name in ["Host", "content-length"] {
            let mut given = headers(&[("content-length", "3")]);
            given.insert(CONNECTION, HeaderValue::from_static(name));
            assert_eq!(stripped(&mut given.clone(), false).unwrap_err().reason(), Reason::BadRequest);
            strip_response(&mut given, false);
            assert_eq!(given, headers(&[("content-length", "3")]));
        }
    }

    #[test]
    fn only_a_websocket_is_an_upgrade() {
        for (method, version, connection, upgrade, wanted) in [
            ("GET", Version::HTTP_11, "Upgrade", "websocket", true),
            ("GET", Version::HTTP_11, "keep-alive, upgrade", "WebSocket", true),
            ("GET", Version::HTTP_11, "Upgrade", "h2c", false),
            ("GET", Version::HTTP_11, "Upgrade", "websocket, h2c", false),
            ("GET", Version::HTTP_11, "close", "websocket", false),
            ("POST", Version::HTTP_11, "Upgrade", "websocket", false),
            ("GET", Version::HTTP_10, "Upgrade", "websocket", false),
            ("GET", Version::HTTP_2, "Upgrade", "websocket", false),
        ] {
            let request = Request::builder().method(method).version(version);
            let request = request.header(CONNECTION, connection).header(UPGRADE, upgrade).body(()).unwrap();
            assert_eq!(
                is_websocket(&request, HopHeaders::of(request.headers())),
                wanted,
                "{method} {version:?} {connection} {upgrade}"
            );
        }
    }
}

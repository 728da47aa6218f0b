//! Headers that concern one connection only (RFC 9110 section 7.6.1).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

/// `Keep-Alive`, of HTTP/1.0.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `Proxy-Connection`, which no standard has and clients send.
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `HTTP2-Settings`, of an upgrade to HTTP/2 over cleartext (RFC 7540 section 3.2.1).
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that a `Connection` header cannot take away, whatever it names.
const END_TO_END: [HeaderName; 3] = [HOST, CONTENT_LENGTH, PROXY_AUTHENTICATE];

/// Removes connection headers and those that `Connection` names.
pub fn strip(headers: &mut HeaderMap) {
    // Most messages have none of them, and one look at the names costs less than the search for each.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        for name in named(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, TE, UPGRADE, HTTP2_SETTINGS] {
        headers.remove(name);
    }
}

/// Whether a header concerns one connection alone, whatever `Connection` says.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Asked of every header line: a text is told apart by its length, while a `HeaderName` has to be made and dropped.
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "te"
            | "upgrade"
            | "http2-settings"
    )
}

/// Whether a field may be sent as a trailer: not what frames or routes a message, nor what concerns its connection (RFC
/// 9110 section 6.5.1).
pub fn may_trail(name: &HeaderName) -> bool {
    !is_hop_by_hop(name) && ![HOST, CONTENT_LENGTH, TRAILER].contains(name)
}

fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect()
}

/// The members of a comma-separated header, over all of its lines.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Whether the sender of these headers takes trailers.
pub fn accepts_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Whether a request with these headers asks to go on in another protocol (RFC 9110 section 7.8).
///
/// HTTP/2 over cleartext is not among them: it would carry requests past every layer of a proxy, and a server may
/// always decline.
pub fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    let http = |name: &str| starts_with_ignore_case(name, "h2c") || starts_with_ignore_case(name, "http/");
    headers.contains_key(UPGRADE)
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && !tokens(headers, &UPGRADE).any(http)
}

fn starts_with_ignore_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn what_connection_names_goes_but_not_what_frames_the_message() {
        let mut headers = headers(&[
            ("connection", "x-hop, host"),
            ("connection", "content-length,close"),
            ("x-hop", "1"),
            ("host", "a"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("x", "stays"),
        ]);
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x"]);
    }

    #[test]
    fn upgrades_are_asked_for_in_two_headers_and_never_to_http() {
        for (lines, asks) in [
            (&[("connection", "upgrade"), ("upgrade", "websocket")][..], true),
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "echo")], true),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade")], false),
            (&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], false),
            (&[("connection", "upgrade"), ("upgrade", "HTTP/2.0, websocket")], false),
        ] {
            assert_eq!(asks_to_upgrade(&headers(lines)), asks, "{lines:?}");
        }
    }
}

//! Headers that only this side may write, where clients are not trusted.

use std::io::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use towpath_gateway_core::{Connection, Fault, Reason};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Refuses names with an underscore: many backends read `X_Forwarded_For` and `X-Forwarded-For` as one (RFC 3875
/// section 4.1.18), so a client could write what is dropped below.
pub(crate) fn refuse_underscores(headers: &HeaderMap) -> Result<(), Fault> {
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(Fault::new(Reason::BadRequest).with_detail("a header name holds an underscore"));
    }
    Ok(())
}

/// Drops what a client has no business to send: the certificate header, and control headers of proxies.
pub(crate) fn drop_internal(headers: &mut HeaderMap) {
    // Collects nothing, and so allocates nothing, where there is none: the common case.
    let internal: Vec<HeaderName> = headers.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

fn is_internal(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-")
        && (name == "x-forwarded-client-cert"
            || name.starts_with("x-envoy-")
            || name.starts_with("x-towpath-"))
}

/// Appends the peer to `X-Forwarded-For`, in one line, and sets `X-Forwarded-Proto` to what the peer speaks.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, connection: &Connection) {
    let mut line = Vec::with_capacity(45); // the longest IPv6 text
    for earlier in headers.get_all(FORWARDED_FOR) {
        line.extend_from_slice(earlier.as_bytes());
        line.extend_from_slice(b", ");
    }
    // Writing to memory does not fail.
    let _ = write!(line, "{}", connection.peer.ip().to_canonical());
    if let Ok(value) = HeaderValue::try_from(line) {
        headers.insert(FORWARDED_FOR, value);
    }
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

#[cfg(test)]
mod tests {
    use towpath_gateway_core::{TlsFacts, TlsVersion};

    use super::*;

    #[test]
    fn internal_headers_go_and_others_stay() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-forwarded-client-cert", "x-envoy-retry-on", "x-towpath-consumer", "x-request-id", "accept"]
        {
            headers.append(name, HeaderValue::from_static("1"));
            headers.append(name, HeaderValue::from_static("2"));
        }
        drop_internal(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-request-id"]);
    }

    #[test]
    fn the_peer_is_appended_and_the_scheme_overwritten() {
        let mut connection =
            Connection::plaintext("[::ffff:127.0.0.9]:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_PROTO, HeaderValue::from_static("https"));
        set_forwarded(&mut headers, &connection);
        assert_eq!(
            (&headers[FORWARDED_FOR], &headers[FORWARDED_PROTO]),
            (&"127.0.0.9".parse().unwrap(), &"http".parse().unwrap())
        );
        headers.append(FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        connection.tls =
            Some(TlsFacts { version: TlsVersion::Tls13, server_name: None, alpn: None, identity: None });
        set_forwarded(&mut headers, &connection);
        assert_eq!(headers[FORWARDED_FOR], "127.0.0.9, 10.0.0.1, 127.0.0.9");
        assert_eq!(
            (headers.get_all(FORWARDED_FOR).iter().count(), &headers[FORWARDED_PROTO]),
            (1, &"https".parse().unwrap())
        );
    }

    #[test]
    fn underscores_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        assert!(refuse_underscores(&headers).is_ok());
        headers.insert("x_forwarded_for", HeaderValue::from_static("1"));
        assert_eq!(refuse_underscores(&headers).unwrap_err().reason(), Reason::BadRequest);
    }
}

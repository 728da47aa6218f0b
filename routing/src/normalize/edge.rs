//! Headers that only this side may write, where clients are not trusted.

use std::fmt::{self, Write};
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use towpath_gateway_core::{Connection, Fault, Reason};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Which headers a request holds that concern the edge.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EdgeHeaders {
    /// A name with an underscore.
    pub(crate) underscores: bool,
    /// What a client has no business to send.
    pub(crate) internal: bool,
    /// `X-Forwarded-For`.
    pub(crate) forwarded: bool,
}

impl EdgeHeaders {
    /// Takes note of one header.
    pub(crate) fn note(&mut self, name: &str) {
        self.underscores |= name.as_bytes().contains(&b'_');
        if name.starts_with("x-") {
            self.internal |= is_internal(name);
            self.forwarded |= name == FORWARDED_FOR.as_str();
        }
    }
}

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
    let internal: Vec<HeaderName> =
        headers.keys().filter(|name| is_internal(name.as_str())).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

fn is_internal(name: &str) -> bool {
    name.starts_with("x-")
        && (name == CLIENT_CERT.as_str() || name.starts_with("x-envoy-") || name.starts_with("x-towpath-"))
}

/// Appends the peer to `X-Forwarded-For`, in one line, and sets `X-Forwarded-Proto` to what the peer speaks, and
/// `X-Forwarded-Client-Cert` to what is proven of it by a certificate (Envoy, `SANITIZE_SET`: earlier ones are dropped).
/// `earlier` says whether there is an `X-Forwarded-For` already.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, connection: &Connection, earlier: bool) {
    let peer = Text::of(connection.peer.ip().to_canonical());
    let value = if earlier {
        HeaderValue::try_from(appended(headers, peer.as_bytes()))
    } else {
        HeaderValue::try_from(peer.as_bytes())
    };
    if let Ok(value) = value {
        headers.insert(FORWARDED_FOR, value);
    }
    let mut scheme = "http";
    if let Some(tls) = &connection.tls {
        scheme = "https";
        let element = tls.forwarded_cert.as_deref().and_then(|element| HeaderValue::from_str(element).ok());
        if let Some(element) = element {
            headers.insert(CLIENT_CERT, element);
        }
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

/// The address that the outermost of so many trusted proxies tells: that many entries from the right of
/// `X-Forwarded-For`, before ours is appended. `None` if nothing is trusted, or if what stands there is no address.
pub(crate) fn told(headers: &HeaderMap, trusted_proxies: u8) -> Option<IpAddr> {
    let place = usize::from(trusted_proxies).checked_sub(1)?;
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let entry = std::str::from_utf8(entries.nth(place)?).ok()?;
    entry.trim().parse().ok()
}

fn appended(headers: &HeaderMap, peer: &[u8]) -> Vec<u8> {
    let lines = headers.get_all(FORWARDED_FOR);
    let length: usize = lines.iter().map(|line| line.len() + 2).sum();
    let mut joined = Vec::with_capacity(length + peer.len());
    for line in lines {
        joined.extend_from_slice(line.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(peer);
    joined
}

/// The text of an address, on the stack.
struct Text {
    bytes: [u8; 45], // the longest IPv6 text
    length: usize,
}

impl Text {
    fn of(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; 45], length: 0 };
        match address {
            // By hand: the formatting machinery costs more than all else that is done to the headers.
            IpAddr::V4(address) => text.push_octets(address.octets()),
            // Writing to memory that is long enough does not fail.
            IpAddr::V6(address) => _ = write!(text, "{address}"),
        }
        text
    }

    fn push_octets(&mut self, octets: [u8; 4]) {
        for octet in octets {
            if self.length > 0 {
                self.push(b'.');
            }
            if octet >= 100 {
                self.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.push(b'0' + octet / 10 % 10);
            }
            self.push(b'0' + octet % 10);
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
        let (peer, http): (HeaderValue, HeaderValue) =
            ("127.0.0.9".parse().unwrap(), "http".parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_PROTO, HeaderValue::from_static("https"));
        set_forwarded(&mut headers, &connection, false);
        assert_eq!((&headers[FORWARDED_FOR], &headers[FORWARDED_PROTO]), (&peer, &http));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        connection.tls = Some(TlsFacts {
            version: TlsVersion::Tls13,
            server_name: None,
            alpn: None,
            identity: None,
            forwarded_cert: None,
        });
        set_forwarded(&mut headers, &connection, true);
        assert_eq!(headers[FORWARDED_FOR], "127.0.0.9, 10.0.0.1, 127.0.0.9");
        assert_eq!(
            (headers.get_all(FORWARDED_FOR).iter().count(), &headers[FORWARDED_PROTO]),
            (1, &"https".parse().unwrap())
        );
        assert!(!headers.contains_key(CLIENT_CERT), "nothing is proven");
        connection.tls.as_mut().unwrap().forwarded_cert = Some("Hash=ab".into());
        set_forwarded(&mut headers, &connection, true);
        assert_eq!(headers.get_all(CLIENT_CERT).iter().collect::<Vec<_>>(), ["Hash=ab"]);
    }

    #[test]
    fn the_outermost_trusted_proxy_tells_the_client() {
        let mut headers = HeaderMap::new();
        assert_eq!(told(&headers, 1), None);
        headers.append(FORWARDED_FOR, HeaderValue::from_static("spoofed, 203.0.113.7"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("2001:db8::1"));
        for (trusted, client) in
            [(0, None), (1, Some("2001:db8::1")), (2, Some("203.0.113.7")), (3, None), (4, None), (255, None)]
        {
            assert_eq!(told(&headers, trusted), client.map(|client| client.parse().unwrap()), "{trusted}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_the_library_writes_them(v4: [u8; 4], v6: [u16; 8]) {
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                let (ours, theirs) = (Text::of(address), address.to_string());
                prop_assert_eq!(ours.as_bytes(), theirs.as_bytes());
            }
        }
    }

    #[test]
    fn a_walk_notes_what_it_meets() {
        let noted = |name: &str| {
            let mut found = EdgeHeaders::default();
            found.note(name);
            (found.underscores, found.internal, found.forwarded)
        };
        assert_eq!(noted("x-request-id"), (false, false, false));
        assert_eq!(noted("a-long-name-that-holds-an_underscore"), (true, false, false));
        assert_eq!(noted("x-envoy-retry-on"), (false, true, false));
        assert_eq!(noted("x-forwarded-for"), (false, false, true));
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

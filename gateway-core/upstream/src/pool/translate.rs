//! Requests and responses in the form that the next connection needs (RFC 9110 section 7.6, RFC 9112, RFC 9113).

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri, Version};
use http_body::Body as _;
use towpath_gateway_core::{Endpoint, Fault, Reason, Request, Transport};
use towpath_http1::hop::{accepts_trailers, is_hop_by_hop, strip};
use towpath_http1::{Length, length};

/// Origin form, a `Host`, sound framing, which it gives. `upgrade` says that the request may leave HTTP behind.
pub(super) fn to_http1(request: &mut Request, endpoint: &Endpoint, upgrade: bool) -> Result<Length, Fault> {
    let found = Found::among(request.headers());
    host(request, endpoint, found.host)?;
    if let Some(uri) = origin_form(request.uri()) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    let trailers = found.hop && accepts_trailers(request.headers());
    let protocol = upgrade.then(|| request.headers().get(UPGRADE).cloned()).flatten();
    if found.hop {
        strip(request.headers_mut());
    }
    let length = frame(request, found.length)?;
    let headers = request.headers_mut();
    if found.cookie {
        join_cookies(headers);
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    Ok(length)
}

/// Which of the headers that matter here a request holds: one walk in place of a search for each.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // facts that do not depend on each other
struct Found {
    host: bool,
    length: bool,
    cookie: bool,
    hop: bool,
}

impl Found {
    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            found.host |= *name == HOST;
            found.length |= *name == CONTENT_LENGTH;
            found.cookie |= *name == COOKIE;
            found.hop |= is_hop_by_hop(name);
        }
        found
    }
}

/// Scheme and authority in the URI, no `Host`, no connection headers.
pub(super) fn to_http2(request: &mut Request, endpoint: &Endpoint) -> Result<(), Fault> {
    let found = Found::among(request.headers());
    host(request, endpoint, found.host)?;
    let authority = request.headers_mut().remove(HOST);
    let authority = authority.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let path = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match endpoint.transport {
        // What is in a tunnel is plain.
        Transport::Plaintext | Transport::Hbone { .. } => Scheme::HTTP,
        Transport::Mtls { .. } | Transport::Tls { .. } => Scheme::HTTPS,
    });
    parts.authority = authority;
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("Host is not an authority"))?;
    *request.version_mut() = Version::HTTP_2;
    let trailers = accepts_trailers(request.headers());
    // HTTP/2 has frames of its own: of this only a length that is known stays.
    frame(request, found.length)?;
    let headers = request.headers_mut();
    strip(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(())
}

/// Makes `Host` say where the request goes, from the URI or the endpoint if the client did not.
fn host(request: &mut Request, endpoint: &Endpoint, named: bool) -> Result<(), Fault> {
    if request.method() == http::Method::CONNECT {
        return Err(bad("CONNECT asks for a tunnel, and a backend is not a proxy"));
    }
    if named {
        return Ok(());
    }
    let authority = request.uri().authority().map(Authority::as_str);
    let named =
        authority.map_or_else(|| HeaderValue::try_from(endpoint.address.to_string()), HeaderValue::from_str);
    request.headers_mut().insert(HOST, named.map_err(|_| bad("the authority is not a header value"))?);
    Ok(())
}

fn bad(detail: &'static str) -> Fault {
    Fault::new(Reason::BadRequest).with_detail(detail)
}

/// The target without scheme and authority, if it has them.
fn origin_form(uri: &Uri) -> Option<Uri> {
    if uri.scheme().is_none() && uri.authority().is_none() {
        return None;
    }
    Some(uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from))
}

/// One statement of the body's length, which is the body's own: two would be read two ways. `stated` says that the
/// headers have one.
fn frame(request: &mut Request, stated: bool) -> Result<Length, Fault> {
    let (ended, exact) = (request.body().is_end_stream(), request.body().size_hint().exact());
    let headers = request.headers_mut();
    match exact {
        _ if ended => {
            // What is left of a body that has ended already is nothing, whatever its length was said to be.
            if stated {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            }
            Ok(Length::Ended)
        }
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(Length::Known(length))
        }
        None if stated => {
            let stated = headers.get(CONTENT_LENGTH).and_then(|value| length(value.as_bytes()));
            let length = stated.ok_or_else(|| bad("Content-Length is not a number"))?;
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(Length::Known(length))
        }
        // Said outright, for a GET with a body of unknown length would else be sent without it.
        None => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Ok(Length::Chunked { trailers: true })
        }
    }
}

/// HTTP/2 may split the cookie; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};
    use http_body_util::StreamBody;
    use towpath_gateway_core::Body;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::plaintext("127.0.0.1:8080".parse().unwrap())
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).unwrap()
    }

    fn http1(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = request(uri, headers);
        to_http1(&mut request, &endpoint(), false).unwrap();
        request
    }

    fn http2(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = request(uri, headers);
        to_http2(&mut request, &endpoint()).unwrap();
        request
    }

    fn stream() -> Body {
        let frames = futures_util::stream::empty::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>();
        Body::new(StreamBody::new(frames))
    }

    #[test]
    fn host_comes_from_the_header_then_the_uri_then_the_endpoint() {
        let table: [(&str, &[(&str, &str)], &str); 3] = [
            ("http://uri.example/a?b=c", &[("host", "header.example")], "header.example"),
            ("http://uri.example/a?b=c", &[], "uri.example"),
            ("/a?b=c", &[], "127.0.0.1:8080"),
        ];
        for (uri, headers, host) in table {
            let one = http1(uri, headers);
            assert_eq!((one.headers()[HOST].as_bytes(), one.version()), (host.as_bytes(), Version::HTTP_11));
            assert_eq!(one.uri(), "/a?b=c");
            let two = http2(uri, headers);
            assert_eq!(two.uri().to_string(), format!("http://{host}/a?b=c"));
            assert_eq!((two.headers().get(HOST), two.version()), (None, Version::HTTP_2));
        }
    }

    #[test]
    fn behind_mtls_the_scheme_is_https() {
        let mut request = request("/", &[("host", "a")]);
        to_http2(&mut request, &endpoint().with_mtls(vec![])).unwrap();
        assert_eq!(request.uri(), "https://a/");
    }

    #[test]
    fn the_asterisk_form_stays() {
        assert_eq!(http1("*", &[("host", "a")]).uri(), "*");
    }

    #[test]
    fn connection_headers_and_what_they_name_end_here() {
        let sent = [
            ("host", "a"),
            ("connection", "close, x-mine, Host, content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("transfer-encoding", "gzip"),
            ("accept", "*/*"),
        ];
        let left = http1("/", &sent);
        let names: Vec<_> = left.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "accept"]);
        let left = http2("/", &sent);
        let names: Vec<_> = left.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept"]);
    }

    #[test]
    fn trailers_may_still_be_asked_for() {
        let sent = [("host", "a"), ("te", "gzip, Trailers"), ("connection", "te")];
        assert_eq!(http1("/", &sent).headers()[TE], "trailers");
        assert_eq!(http1("/", &sent).headers()[CONNECTION], "te");
        assert_eq!(http2("/", &sent).headers()[TE], "trailers");
    }

    #[test]
    fn the_body_decides_its_framing() {
        let framed = |body: Body, length: Option<&'static str>| {
            let mut request = request("/", &[("transfer-encoding", "chunked")]);
            *request.body_mut() = body;
            if let Some(length) = length {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            to_http1(&mut request, &endpoint(), false).unwrap();
            let text =
                |name| request.headers().get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned());
            (text(CONTENT_LENGTH), text(TRANSFER_ENCODING))
        };
        assert_eq!(framed(Body::empty(), None), (None, None));
        assert_eq!(framed(Body::empty(), Some("7")), (Some("0".into()), None));
        assert_eq!(framed(Body::from("abc"), Some("7")), (Some("3".into()), None));
        assert_eq!(framed(stream(), None), (None, Some("chunked".into())));
        assert_eq!(framed(stream(), Some("7")), (Some("7".into()), None));
    }

    #[test]
    fn http2_states_a_length_only_if_it_is_the_bodys() {
        let stated = |body: Body| {
            let mut request = request("/", &[("content-length", "7")]);
            *request.body_mut() = body;
            to_http2(&mut request, &endpoint()).unwrap();
            assert!(!request.headers().contains_key(TRANSFER_ENCODING));
            request.headers().get(CONTENT_LENGTH).map(|length| length.to_str().unwrap().to_owned())
        };
        assert_eq!(stated(Body::from("abc")), Some("3".into()));
        assert_eq!(stated(Body::empty()), Some("0".into()));
        assert_eq!(stated(stream()), Some("7".into()));
    }

    #[test]
    fn a_split_cookie_is_one_again() {
        let request = http1("/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        let cookies: Vec<_> = request.headers().get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn a_tunnel_is_not_for_backends() {
        let mut request = request("http://a/", &[]);
        *request.method_mut() = Method::CONNECT;
        assert_eq!(to_http1(&mut request, &endpoint(), false).unwrap_err().reason(), Reason::BadRequest);
        assert_eq!(to_http2(&mut request, &endpoint()).unwrap_err().reason(), Reason::BadRequest);
    }

    #[test]
    fn an_upgrade_is_passed_on_when_it_may_be() {
        let mut request = request("/", &[("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        to_http1(&mut request, &endpoint(), true).unwrap();
        assert_eq!(request.headers()[CONNECTION], "upgrade");
        assert_eq!(request.headers()[UPGRADE], "websocket");
    }
}

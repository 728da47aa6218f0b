//! The host that a request names, as tables compare it.

use std::borrow::Cow;

use http::Request;
use http::header::HOST;

/// Authority of the URI, else the `Host` header, without port and in lower case; empty if there is none.
pub(super) fn host_of<B>(request: &Request<B>) -> Cow<'_, str> {
    let host = match request.uri().authority() {
        Some(authority) => authority.host(),
        None => request.headers().get(HOST).and_then(|value| value.to_str().ok()).map_or("", without_port),
    };
    lower(host)
}

/// A name in lower case; copied only if it is not so already.
pub(super) fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

// A colon inside brackets belongs to an address.
fn without_port(host: &str) -> &str {
    let colon = host.bytes().rposition(|byte| byte == b':');
    match colon.and_then(|at| host.split_at_checked(at)) {
        Some((name, port)) if !port.as_bytes().contains(&b']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_dropped_and_the_case_lowered() {
        for (target, host, wanted) in [
            ("/", "Example.COM:8080", "example.com"),
            ("/", "example.com", "example.com"),
            ("/", "[::1]:80", "[::1]"),
            ("/", "[::1]", "[::1]"),
            ("http://Here:80/", "there", "here"),
            ("http://[::1]:80/", "there", "[::1]"),
        ] {
            let request = Request::builder().uri(target).header(HOST, host).body(()).unwrap();
            assert_eq!(host_of(&request), wanted, "{target} {host}");
        }
        assert_eq!(host_of(&Request::new(())), "");
    }
}

//! One host per request.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Version};
use towpath_gateway_core::{Fault, Reason};

/// Leaves exactly one valid host, in the `Host` header, the same that the URI's authority names if there is one.
///
/// In HTTP/1.1 the authority of an absolute-form target wins over `Host` (RFC 9112 section 3.2.2); in HTTP/2
/// `:authority` and `host` have to be the same (RFC 9113 section 8.3.1). Only HTTP/1.0 may name no host at all.
///
/// `lines` is how often the `Host` header comes.
pub(crate) fn settle<B>(request: &mut Request<B>, lines: usize) -> Result<(), Fault> {
    let line = only_line(request.headers(), lines)?;
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let same = authority.zip(line).map(|(a, b)| a.eq_ignore_ascii_case(b));
    if same == Some(false) && request.version() >= Version::HTTP_2 {
        return Err(refused("`:authority` and `host` differ"));
    }
    match authority.or(line) {
        Some(host) if !is_host(host) => Err(refused("the host is not a valid host name or address")),
        None if request.version() >= Version::HTTP_11 => Err(refused("the request names no host")),
        _ if same == Some(true) => Ok(()),
        _ => take_authority(request),
    }
}

fn only_line(headers: &HeaderMap, lines: usize) -> Result<Option<&[u8]>, Fault> {
    match lines {
        0 => Ok(None),
        1 => Ok(headers.get(HOST).map(HeaderValue::as_bytes)),
        _ => Err(refused("more than one `Host`")),
    }
}

fn take_authority<B>(request: &mut Request<B>) -> Result<(), Fault> {
    if let Some(authority) = request.uri().authority() {
        let value = HeaderValue::from_str(authority.as_str())
            .map_err(|_| refused("the host is not a header value"))?;
        request.headers_mut().insert(HOST, value);
    }
    Ok(())
}

fn refused(detail: &'static str) -> Fault {
    Fault::new(Reason::BadRequest).with_detail(detail)
}

/// A DNS name (an underscore is let pass, for container names hold some), an IPv4 address or an IPv6 address in
/// brackets, with an optional port. User information, percent escapes and sub-delimiters are refused.
fn is_host(host: &[u8]) -> bool {
    let end = |delimiter: u8| host.iter().position(|byte| *byte == delimiter);
    let (valid, rest) = if host.starts_with(b"[") {
        let Some((address, rest)) = end(b']').and_then(|at| host.split_at_checked(at)) else { return false };
        (address.get(1..).is_some_and(is_ipv6), rest.get(1..).unwrap_or_default())
    } else {
        let (name, rest) = host.split_at(end(b':').unwrap_or(host.len()));
        (is_name(name), rest)
    };
    valid && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn is_port(text: &[u8]) -> bool {
    let number = text.iter().try_fold(0_u16, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    !text.is_empty() && number.is_some()
}

fn is_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let mut label = 0; // bytes of the label so far
    let sound = name.iter().all(|byte| {
        let before = label;
        label = if *byte == b'.' { 0 } else { before + 1 };
        match *byte {
            b'.' => before > 0,
            byte => label <= 63 && (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
        }
    });
    sound && label > 0 && name.len() <= 253
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(version: Version, target: &str, lines: &[&str]) -> Result<Option<String>, String> {
        let mut request = Request::builder().version(version).uri(target).body(()).unwrap();
        for line in lines {
            request.headers_mut().append(HOST, HeaderValue::from_str(line).unwrap());
        }
        settle(&mut request, lines.len()).map_err(|fault| fault.detail().to_owned())?;
        Ok(request.headers().get(HOST).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn one_host_remains() {
        for (version, target, lines, wanted) in [
            (Version::HTTP_11, "/", &["a.example:80"][..], Some("a.example:80")),
            (Version::HTTP_11, "http://a.example/", &["b.example"], Some("a.example")),
            (Version::HTTP_11, "http://a.example/", &[], Some("a.example")),
            (Version::HTTP_2, "https://a.example/", &[], Some("a.example")),
            (Version::HTTP_2, "https://a.example/", &["A.example"], Some("A.example")),
            (Version::HTTP_2, "/", &["a.example"], Some("a.example")),
            (Version::HTTP_10, "/", &[], None),
        ] {
            assert_eq!(settled(version, target, lines), Ok(wanted.map(str::to_owned)), "{target} {lines:?}");
        }
    }

    #[test]
    fn a_doubtful_host_is_refused() {
        for (version, target, lines, why) in [
            (Version::HTTP_11, "/", &[][..], "no host"),
            (Version::HTTP_2, "/", &[], "no host"),
            (Version::HTTP_11, "/", &["a", "a"], "more than one"),
            (Version::HTTP_10, "/", &["a", "b"], "more than one"),
            (Version::HTTP_2, "https://a/", &["b"], "differ"),
            (Version::HTTP_2, "https://a/", &["a:443"], "differ"),
            (Version::HTTP_11, "http://user@a/", &["a"], "not a valid"),
        ] {
            let fault = settled(version, target, lines).unwrap_err();
            assert!(fault.contains(why), "{target} {lines:?}: {fault}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in
            ["a", "a.b.", "A-1.b_c", "127.0.0.1:8080", "a:0", "a:0000065535", "[::1]", "[fe80::1]:65535"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        let long = ["a"; 64].concat();
        assert!(is_host(&long.as_bytes()[..63]));
        for host in [
            "", ".", "a..b", ".a", "a b", "a,b", "a@b", "a/b", "a:", "a:b", "a:+80", "a:65536", "a:1:2",
            "[::1", "[a]", "[::1]x", "::1", "a%41", "é", &long,
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}

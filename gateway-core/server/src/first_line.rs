//! Whether a connection begins as HTTP does. Pure: bytes in, verdict out.

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Http,
    Opaque,
}

/// A line that is longer is judged by what there is of it.
pub(crate) const LONGEST: usize = 1024;

/// The verdict on the bytes so far; `None` while more may change it.
///
/// A method, a space and a target (RFC 9112 section 3) are HTTP; the preface of HTTP/2 has them, too. Applications take more
/// than that, empty lines before it, other spaces, methods of any letters: such a line is HTTP if it names its version. It is
/// refused then by who serves HTTP; as a stream it would reach the application past all that holds for requests.
pub(crate) fn shows(seen: &[u8]) -> Option<Shown> {
    let (seen, cut) = match seen.get(..LONGEST) {
        Some(most) => (most, true),
        None => (seen, false),
    };
    let begin = seen.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let Some(line) = begin.and_then(|begin| seen.get(begin..)) else { return cut.then_some(Shown::Opaque) };
    let method = line.iter().take_while(|byte| is_of_a_method(**byte)).count();
    let (method, rest) = line.split_at(method);
    match rest {
        _ if method.is_empty() => Some(Shown::Opaque),
        [] if cut => Some(Shown::Opaque),
        [] => None,
        [b' ' | b'\t', ..] => of_target(method, rest, line).or_else(|| cut.then(|| of_what_there_is(rest))),
        _ => Some(Shown::Opaque),
    }
}

fn of_target(method: &[u8], rest: &[u8], line: &[u8]) -> Option<Shown> {
    let usual = method.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    // Origin form, asterisk form, absolute form.
    let target = rest.get(1..).unwrap_or_default();
    if usual
        && rest.starts_with(b" ")
        && [&b"/"[..], b"* ", b"http://", b"https://"].iter().any(|form| target.starts_with(form))
    {
        return Some(Shown::Http);
    }
    if line.contains(&0) {
        return Some(Shown::Opaque);
    }
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let line = line.get(..end).unwrap_or_default();
    let names_version = line.windows(5).any(|window| window.eq_ignore_ascii_case(b"HTTP/"));
    Some(if names_version { Shown::Http } else { Shown::Opaque })
}

/// A line without an end.
fn of_what_there_is(rest: &[u8]) -> Shown {
    let target = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    if target == Some(&b'/') { Shown::Http } else { Shown::Opaque }
}

/// Characters of a token (RFC 9110 section 5.6.2).
fn is_of_a_method(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_method_and_a_target_are_http() {
        for (bytes, shown) in [
            (&b""[..], None),
            (b"GET", None),
            (b"GET ", None),
            (b"GET /", Some(Shown::Http)),
            (b"OPTIONS * HTTP/1.1", Some(Shown::Http)),
            (b"GET ht", None),
            (b"GET http://a/", Some(Shown::Http)),
            (b"M-SEARCH * HTTP/1.1", Some(Shown::Http)),
            (b"CONNECT a:1", None),
            (b"CONNECT a:1 HTTP/1.1\r\n", Some(Shown::Http)),
            (b"PRI * HTTP/2.0", Some(Shown::Http)),
            // What servers are lenient about.
            (b"\r\n", None),
            (b"\r\n\nGET /", Some(Shown::Http)),
            (b"GET  /admin", None),
            (b"GET  /admin HTTP/1.1\r\n", Some(Shown::Http)),
            (b"GET\t/admin\thttp/1.1\n", Some(Shown::Http)),
            (b"get", None),
            (b"get /admin HTTP/1.0\r\n", Some(Shown::Http)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH /", Some(Shown::Http)),
            (b"GET admin HTTP/1.1\r\n", Some(Shown::Http)),
            // Others.
            (b" /", Some(Shown::Opaque)),
            (b"PING\r\n", Some(Shown::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Shown::Opaque)),
            (b"get key\r\n", Some(Shown::Opaque)),
            (b"EHLO host.example\r\n", Some(Shown::Opaque)),
            (b"USER harry\r\n", Some(Shown::Opaque)),
            (b"CONNECT {\"verbose\":false}\r\n", Some(Shown::Opaque)),
            (b"SSH-2.0-a", None),
            (b"SSH-2.0-a\r\n", Some(Shown::Opaque)),
            (b"AMQP\0", Some(Shown::Opaque)),
            (b"{\"id\":1}", Some(Shown::Opaque)),
            (b"\x16\x03\x01", Some(Shown::Opaque)),
            (b"\0\0\0", Some(Shown::Opaque)),
        ] {
            assert_eq!(shows(bytes), shown, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_line_without_end_is_judged_by_what_there_is() {
        for (begin, shown) in
            [("get /", Shown::Http), ("get  /", Shown::Http), ("get a", Shown::Opaque), ("a", Shown::Opaque)]
        {
            let line = begin.to_owned() + &"a".repeat(LONGEST - begin.len());
            assert_eq!(shows(line.get(..LONGEST - 1).unwrap().as_bytes()), None, "{begin}");
            assert_eq!(shows(line.as_bytes()), Some(shown), "{begin}");
        }
        assert_eq!(shows(&[b'\n'; LONGEST]), Some(Shown::Opaque));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(bytes in "[A-Cht /*:\r\n\t-]{0,24}", at in 0_usize..24) {
            let early = shows(bytes.as_bytes().get(..at).unwrap_or(bytes.as_bytes()));
            prop_assert!(early.is_none() || early == shows(bytes.as_bytes()));
        }
    }
}

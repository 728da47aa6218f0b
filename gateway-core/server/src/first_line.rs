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
/// than that: blanks before it, other blanks between, methods of any letters. What begins so is HTTP as soon as its target
/// begins or it names a version, before the line has ended. It is refused then by who serves HTTP; as a stream it would reach the
/// application past all that holds for requests.
pub(crate) fn shows(seen: &[u8]) -> Option<Shown> {
    let (seen, cut) = match seen.get(..LONGEST) {
        Some(most) => (most, true),
        None => (seen, false),
    };
    // Nothing but blanks, for so long, is for whoever skips them.
    let unsettled = |at_last: Shown| cut.then_some(at_last);
    let line = without_blanks(seen);
    if BOM.starts_with(line) {
        return unsettled(Shown::Http);
    }
    let line = without_blanks(line.strip_prefix(BOM).unwrap_or(line));
    let length = line.iter().take_while(|byte| is_of_a_method(**byte)).count();
    let (method, rest) = line.split_at(length);
    let is_usual = method.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    if method.is_empty() && line.is_empty() {
        return unsettled(Shown::Http);
    }
    if !rest.is_empty() && !method.iter().any(u8::is_ascii_alphabetic) {
        return Some(Shown::Opaque);
    }
    match rest {
        [] => unsettled(if is_usual { Shown::Http } else { Shown::Opaque }),
        // It may be the end of the line.
        [b'\r'] => unsettled(Shown::Opaque),
        [b'\r', b'\n', ..] | [b'\n', ..] => Some(Shown::Opaque),
        [blank, ..] if is_blank(*blank) => of_target(method, is_usual, rest).or_else(|| {
            let target = without_blanks(rest);
            unsettled(if matches!(target, [] | [b'/', ..]) { Shown::Http } else { Shown::Opaque })
        }),
        _ => Some(Shown::Opaque),
    }
}

/// What comes behind a method and a blank.
fn of_target(method: &[u8], is_usual: bool, rest: &[u8]) -> Option<Shown> {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let target = without_blanks(line);
    // Origin form, asterisk form, absolute form.
    if is_usual && [&b"/"[..], b"* ", b"http://", b"https://"].iter().any(|form| target.starts_with(form)) {
        return Some(Shown::Http);
    }
    let is_version = |at: &[u8]| {
        let [blank, name @ .., digit] = at else { return false };
        is_blank(*blank) && name.eq_ignore_ascii_case(b"HTTP/") && digit.is_ascii_digit()
    };
    if line.windows(7).any(is_version) {
        return Some(Shown::Http);
    }
    let is_binary = line.contains(&0) && !method.iter().all(u8::is_ascii_alphabetic);
    (end.is_some() || is_binary).then_some(Shown::Opaque)
}

/// A mark of byte order (UTF-8), which some skip.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What somebody takes for a blank in a request line: those of ASCII, its separators, and those of Latin-1.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| *byte != b'\n' && !is_blank(*byte));
    bytes.get(begin.unwrap_or(bytes.len())..).unwrap_or_default()
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
            (b"GET  /", Some(Shown::Http)),
            (b"GET \0", None),
            (b"get /admin HTTP/1", Some(Shown::Http)),
            (b"get /admin HTTP/1.0\r\n\r\n\0", Some(Shown::Http)),
            (b"\t GET /", Some(Shown::Http)),
            (b"\xef\xbb\xbf", None),
            (b"\xef\xbb\xbfGET /", Some(Shown::Http)),
            (b"GET\x0b/", Some(Shown::Http)),
            (b"GET\xa0/", Some(Shown::Http)),
            (b"GET\r/", Some(Shown::Http)),
            (b"GET\t/admin\thttp/1.1\n", Some(Shown::Http)),
            (b"get", None),
            (b"get /admin HTTP/1.0\r\n", Some(Shown::Http)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH /", Some(Shown::Http)),
            (b"GET admin HTTP/1.1\r\n", Some(Shown::Http)),
            // Others.
            (b" /", Some(Shown::Opaque)),
            (b"PING\r", None),
            (b"PING\r\n", Some(Shown::Opaque)),
            (b"get page:http/1\r\n", Some(Shown::Opaque)),
            (b"get http/a\r\n", Some(Shown::Opaque)),
            (b"23 <34>1 2026", Some(Shown::Opaque)),
            (b"0032git-upload-pack /a\0host=a", Some(Shown::Opaque)),
            (b"\x0bMSH|^~\\&|a", Some(Shown::Opaque)),
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
        for blanks in [&b"\n"[..], b"\r\n", b" ", b"GET "] {
            let line = [blanks, &blanks.get(blanks.len() - 1..).unwrap().repeat(LONGEST)].concat();
            assert_eq!(shows(&line), Some(Shown::Http), "{blanks:?}");
        }
        assert_eq!(shows(&[b'A'; LONGEST]), Some(Shown::Http));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(bytes in "[A-Cht /*:1\r\n\t\0\x0b-]{0,24}", at in 0_usize..24) {
            let early = shows(bytes.as_bytes().get(..at).unwrap_or(bytes.as_bytes()));
            prop_assert!(early.is_none() || early == shows(bytes.as_bytes()));
        }
    }
}

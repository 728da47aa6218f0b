//! Header lines, one at a time.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::Invalid;

/// Name and value of a line of `bytes`; the value is a part of them.
pub(crate) fn field(
    bytes: &Bytes,
    header: &httparse::Header<'_>,
) -> Result<(HeaderName, HeaderValue), Invalid> {
    let name = HeaderName::from_bytes(header.name.as_bytes());
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(header.value));
    Ok((name.map_err(|_| Invalid("a header name"))?, value.map_err(|_| Invalid("a header value"))?))
}

/// The number of a `Content-Length`: `1*DIGIT` and nothing else, below 2^64 (RFC 9110 section 8.6).
pub fn length(text: &[u8]) -> Option<u64> {
    let digits = (!text.is_empty()).then_some(text)?;
    digits.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// Appends one header line.
pub fn write_line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Members of a comma-separated value, trimmed.
pub(crate) fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_and_nothing_else() {
        let table: [(&str, Option<u64>); 11] = [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1,1", None),
            ("0x1", None),
            ("1_0", None),
        ];
        for (text, expected) in table {
            assert_eq!(length(text.as_bytes()), expected, "{text:?}");
        }
    }
}

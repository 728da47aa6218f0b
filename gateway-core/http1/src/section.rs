//! Sections of header lines: where one ends, and what makes bytes no HTTP.

use std::error::Error;
use std::fmt;

/// Bytes that are not HTTP/1.1, with what is wrong about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Invalid {}

/// Finds the empty line that ends a section. Remembers how far it looked, so that a section that comes byte by byte
/// is looked through once.
#[derive(Debug, Default)]
pub struct Section {
    seen: usize,
}

impl Section {
    /// The length of the section at the start of `bytes`, its empty line included, or `None` if that has not come yet.
    ///
    /// A line that ends with a bare LF is invalid at once: peers that read such lines two ways are how requests are
    /// smuggled (RFC 9112 section 2.2 lets a recipient accept them; it need not).
    pub fn end(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Invalid> {
        while let Some(at) = line_feed(bytes, self.seen) {
            let before = |n: usize| at.checked_sub(n).and_then(|at| bytes.get(at));
            if before(1) != Some(&b'\r') {
                return Err(Invalid("a line ends without CR"));
            }
            self.seen = at + 1;
            if self.seen > limit {
                break;
            }
            if at == 1 || before(2) == Some(&b'\n') {
                return Ok(Some(std::mem::take(&mut self.seen)));
            }
        }
        self.seen = bytes.len();
        if bytes.len() > limit { Err(Invalid("a section of header lines is too long")) } else { Ok(None) }
    }
}

/// The place of the first LF from `start` on.
pub(crate) fn line_feed(bytes: &[u8], start: usize) -> Option<usize> {
    Some(start + memchr::memchr(b'\n', bytes.get(start..)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_line_is_found_however_the_bytes_come() {
        let table: [(&[u8], Result<Option<usize>, ()>); 7] = [
            (b"a: b\r\n\r\nrest", Ok(Some(8))),
            (b"\r\nrest", Ok(Some(2))),
            (b"a: b\r\nc: d\r\n", Ok(None)),
            (b"a: b\n", Err(())),
            (b"\n", Err(())),
            (b"a: b\r\n\n", Err(())),
            (b"a: 0123456789012345\r\n\r\n", Err(())),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                Section::default().end(bytes, 20).map_err(|_| ()),
                expected,
                "{}",
                bytes.escape_ascii()
            );
            let mut section = Section::default();
            let stepwise = (1..=bytes.len()).find_map(|n| match section.end(&bytes[..n], 20) {
                Ok(None) => None,
                other => Some(other.map_err(|_| ())),
            });
            assert_eq!(stepwise.unwrap_or(Ok(None)), expected, "{}", bytes.escape_ascii());
        }
    }
}

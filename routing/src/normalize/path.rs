//! The normal form of a path. Routing, policies and the backend see this form and no other.

use std::borrow::Cow;
use std::fmt;

/// How far paths are normalized. The first four are those of Istio (`MeshConfig.ProxyPathNormalization`).
///
/// Each form but `None` is a fixed point: normalizing twice changes nothing more, and no segment is `.` or `..`.
///
/// | step | `Base` | `MergeSlashes` | `DecodeAndMergeSlashes` | `Edge` |
/// |---|---|---|---|---|
/// | `%XX` of an unreserved character is decoded (RFC 3986 section 6.2.2.2) | yes | yes | yes | yes |
/// | `%2F` and `%5C` are decoded | | | yes | |
/// | `\` becomes `/` | yes | yes | yes | yes |
/// | dot segments are resolved (RFC 3986 section 5.2.4); none leads above the root | yes | yes | yes | yes |
/// | runs of `/` become one, after the dots | | yes | yes | yes |
/// | a path of slashes alone | as it is | `//` | `//` | `/` |
/// | hex digits of other `%XX` become upper case | | | | yes |
/// | raw `"`, `<`, `>`, `^`, `` ` ``, `{`, `\|` and `}` are percent-encoded | yes | yes | yes | yes |
/// | a dot segment with a parameter (`/..;x/`) | resolved | resolved | resolved | refused, `%3B` too |
/// | over-long UTF-8 (`%C0%AE`) | as it is | as it is | as it is | refused |
///
/// Bytes above ASCII are percent-encoded. Two slashes for many are Envoy's way with a path that has no segment. Envoy leaves a dot
/// segment with a parameter as it is where it comes to light by decoding (`/%2e%2e;/`); here that would break the fixed point.
/// Refused in every form but `None`: a raw `#`, control characters, `%00`,
/// and a `%` without two hex digits. Istio lets the last pass as it is; here it would break the fixed point, for in
/// `%%32e` the decoded digit would complete a new escape.
///
/// Paths in routes and policies are compared as they are written: write them in this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathNormalization {
    /// Paths are passed on as they came.
    None,
    /// Istio's default.
    #[default]
    Base,
    /// `Base`, and slashes are merged.
    MergeSlashes,
    /// `MergeSlashes` after decoding escaped slashes. Only for backends that decode them too.
    DecodeAndMergeSlashes,
    /// `MergeSlashes` for clients that are not trusted: one spelling of each escape, nothing doubtful passes.
    Edge,
}

/// Why a path has no normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedPath {
    /// It does not begin with a slash.
    Relative,
    /// A raw `#` or a control character.
    Character,
    /// `%00`.
    Nul,
    /// A `%` without two hex digits.
    Escape,
    /// Over-long UTF-8: a second spelling of a character.
    Overlong,
    /// A dot segment with a parameter.
    DotParameter,
}

impl fmt::Display for RefusedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for RefusedPath {}

impl RefusedPath {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Relative => "the path does not begin with `/`",
            Self::Character => "the path holds a `#` or a control character",
            Self::Nul => "the path holds `%00`",
            Self::Escape => "the path holds a `%` without two hex digits",
            Self::Overlong => "the path holds over-long UTF-8",
            Self::DotParameter => "the path holds a dot segment with a parameter",
        }
    }
}

impl PathNormalization {
    /// The normal form; borrowed if the path is normal already. `*` (of `OPTIONS`) and the empty path (of `CONNECT`)
    /// are normal.
    pub fn apply(self, path: &str) -> Result<Cow<'_, str>, RefusedPath> {
        if self == Self::None || self.is_plain(path) || matches!(path, "*" | "") {
            return Ok(Cow::Borrowed(path));
        }
        if !path.starts_with('/') {
            return Err(RefusedPath::Relative);
        }
        let normal = self.resolve(&self.spell(path)?)?;
        Ok(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
    }

    /// One pass over the bytes that lets the usual path through: a slash first, nothing escaped or odd, no segment
    /// that begins with a dot, and no empty segment where those are merged.
    fn is_plain(self, path: &str) -> bool {
        let usual =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\' | b'#') && !is_unwise(byte);
        let mut before = b' ';
        path.starts_with('/')
            && path.bytes().all(|byte| {
                let odd = before == b'/' && (byte == b'.' || (byte == b'/' && self.merges()));
                before = byte;
                usual(byte) && !odd
            })
    }

    fn merges(self) -> bool {
        matches!(self, Self::MergeSlashes | Self::DecodeAndMergeSlashes | Self::Edge)
    }

    /// One spelling for each character.
    fn spell(self, path: &str) -> Result<String, RefusedPath> {
        let mut out = String::with_capacity(path.len());
        let mut bytes = path.bytes();
        let mut lead = 0;
        while let Some(byte) = bytes.next() {
            let escaped = if byte == b'%' { Some(escape(&mut bytes)?) } else { None };
            let value = escaped.map_or(byte, |(value, _)| value);
            if self == Self::Edge && is_overlong(lead, value) {
                return Err(RefusedPath::Overlong);
            }
            lead = value;
            match escaped {
                Some((value, digits)) => self.put_escaped(&mut out, value, digits)?,
                None => put_raw(&mut out, byte)?,
            }
        }
        Ok(out)
    }

    fn put_escaped(self, out: &mut String, value: u8, digits: [u8; 2]) -> Result<(), RefusedPath> {
        match value {
            0 => return Err(RefusedPath::Nul),
            b'/' | b'\\' if self == Self::DecodeAndMergeSlashes => out.push('/'),
            _ if value.is_ascii_alphanumeric() || b"-._~".contains(&value) => out.push(char::from(value)),
            _ if self == Self::Edge => put_encoded(out, value),
            _ => out.extend(['%', char::from(digits[0]), char::from(digits[1])]),
        }
        Ok(())
    }

    /// Resolves dot segments, then merges slashes: the order of Envoy, in which `/a//../b` is `/a/b`.
    fn resolve(self, path: &str) -> Result<String, RefusedPath> {
        let mut kept: Vec<&str> = Vec::new();
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let dots = self.dots(segment)?;
            match dots {
                None => kept.push(segment),
                Some(Dots::Parent) => drop(kept.pop()),
                Some(Dots::Same) => {}
            }
            if dots.is_some() && segments.peek().is_none() {
                kept.push(""); // `/a/..` names a directory
            }
        }
        let slashes_alone = kept.len() > 1 && kept.iter().all(|segment| segment.is_empty());
        if slashes_alone && self.merges() && self != Self::Edge {
            return Ok("//".to_owned());
        }
        let last = kept.len().saturating_sub(1);
        let mut out = String::with_capacity(path.len());
        for (at, segment) in kept.iter().enumerate() {
            if !(segment.is_empty() && at < last && self.merges()) {
                out.push('/');
                out.push_str(segment);
            }
        }
        Ok(if out.is_empty() { "/".to_owned() } else { out })
    }

    fn dots(self, segment: &str) -> Result<Option<Dots>, RefusedPath> {
        let (dots, rest) = if let Some(rest) = segment.strip_prefix("..") {
            (Dots::Parent, rest)
        } else if let Some(rest) = segment.strip_prefix('.') {
            (Dots::Same, rest)
        } else {
            return Ok(None);
        };
        let parameter = rest.starts_with(';');
        match self {
            Self::Edge if parameter || rest.starts_with("%3B") => Err(RefusedPath::DotParameter),
            _ => Ok((rest.is_empty() || parameter).then_some(dots)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Dots {
    Same,
    Parent,
}

fn put_raw(out: &mut String, byte: u8) -> Result<(), RefusedPath> {
    match byte {
        b'#' | 0x00..=0x1f | 0x7f => return Err(RefusedPath::Character),
        b'\\' => out.push('/'),
        _ if byte.is_ascii() && !is_unwise(byte) => out.push(char::from(byte)),
        _ => put_encoded(out, byte),
    }
    Ok(())
}

// Characters that stand nowhere in a path (RFC 3986 section 3.3), though many send them.
fn is_unwise(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

fn escape(bytes: &mut impl Iterator<Item = u8>) -> Result<(u8, [u8; 2]), RefusedPath> {
    let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else { return Err(RefusedPath::Escape) };
    Ok((hex_pair(high, low).ok_or(RefusedPath::Escape)?, [high, low]))
}

/// The byte that two hex digits stand for.
pub(crate) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn put_encoded(out: &mut String, byte: u8) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or('0');
    out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

// The first two bytes of a character spelled longer than need be (RFC 3629 section 3).
fn is_overlong(lead: u8, next: u8) -> bool {
    match lead {
        0xc0 | 0xc1 => (0x80..=0xbf).contains(&next),
        0xe0 => (0x80..=0x9f).contains(&next),
        0xf0 => (0x80..=0x8f).contains(&next),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use PathNormalization::{Base, DecodeAndMergeSlashes as Decode, Edge, MergeSlashes as Merge};
    use proptest::prelude::*;

    use super::*;

    const ALL: [PathNormalization; 4] = [Base, Merge, Decode, Edge];

    #[test]
    fn each_form_spells_a_path_its_own_way() {
        for (rule, path, wanted) in [
            (Base, "/a/../b", "/b"),
            (Base, "/a/./b/.", "/a/b/"),
            (Base, "/a/..", "/"),
            (Base, "/a/b/../../../c", "/c"),
            (Base, "/a/%2E./c", "/c"),
            (Base, "/x%30..//abc", "/x0..//abc"),
            (Base, "/...//a", "/...//a"),
            (Base, "/a//../b", "/a/b"),
            (Base, "/a\\..\\b", "/b"),
            (Base, "/%2Fa%5cb%5Cc", "/%2Fa%5cb%5Cc"),
            (Base, "/..;/a", "/a"),
            (Base, "/a/..;x=1/b", "/b"),
            (Base, "/..%3b/a", "/..%3b/a"),
            (Base, "/%252e%252e/a", "/%252e%252e/a"),
            (Base, "/é", "/%C3%A9"),
            (Base, "/%c0%ae%C0%AE/a", "/%c0%ae%C0%AE/a"),
            (Decode, "/%c0%af../a", "/%c0%af../a"),
            (Base, "/.hidden/..b", "/.hidden/..b"),
            (Merge, "///a//b//", "/a/b/"),
            (Merge, "/a//../b", "/a/b"),
            (Merge, "///", "//"),
            (Merge, "/\\", "//"),
            (Merge, "/..//", "//"),
            (Merge, "/a/..//", "//"),
            (Decode, "/%2F", "//"),
            (Edge, "///", "/"),
            (Base, "/a{\"x\"}|^", "/a%7B%22x%22%7D%7C%5E"),
            (Base, "/%7b", "/%7b"),
            (Merge, "/a%2Fb", "/a%2Fb"),
            (Decode, "/%2Fa", "/a"),
            (Decode, "/a%2f..%2fb", "/b"),
            (Decode, "/%c0%2fa", "/%c0/a"),
            (Decode, "/%252fa", "/%252fa"),
            (Decode, "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\\\abc", "/app/admin/abc"),
            (Edge, "/a%2fb//c%c3%a9", "/a%2Fb/c%C3%A9"),
            (Edge, "/a;x=1/b", "/a;x=1/b"),
            (PathNormalization::None, "/a/../%zz", "/a/../%zz"),
        ] {
            assert_eq!(rule.apply(path).as_deref(), Ok(wanted), "{rule:?} {path}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (path, why) in [
            ("a", RefusedPath::Relative),
            ("/a#b", RefusedPath::Character),
            ("/a\u{1}", RefusedPath::Character),
            ("/a\u{7f}", RefusedPath::Character),
            ("/a%00", RefusedPath::Nul),
            ("/a%", RefusedPath::Escape),
            ("/a%4", RefusedPath::Escape),
            ("/%%32%65", RefusedPath::Escape),
            ("/%u002e", RefusedPath::Escape),
        ] {
            for rule in ALL {
                assert_eq!(rule.apply(path), Err(why), "{rule:?} {path}");
            }
        }
        for path in ["/%c0%ae%C0%AE/a", "/%e0%80%ae", "/%f0%80%80%ae"] {
            assert_eq!(Edge.apply(path), Err(RefusedPath::Overlong), "{path}");
        }
        for path in ["/..;/a", "/.;x/a", "/..%3b/a", "/%2e%2e%3B/a"] {
            assert_eq!(Edge.apply(path), Err(RefusedPath::DotParameter), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        for path in ["/", "*", "", "/a/b.c/d", "/a%20b", "/a;b=c"] {
            assert!(matches!(Edge.apply(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_a_fixed_point_without_dot_segments(
            path in "/([a-c./;%\\\\é{^]|%2[eEfF5]|%5[cC]|%3[bB0]|%[cC]0|\\.\\.|//){0,12}",
        ) {
            for rule in ALL {
                if let Ok(normal) = rule.apply(&path) {
                    prop_assert!(normal.starts_with('/'));
                    prop_assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{}", normal);
                    let alone = normal == "//" && rule != Edge;
                    prop_assert!(!rule.merges() || alone || !normal.contains("//"), "{}", normal);
                    prop_assert_eq!(rule.apply(&normal), Ok(Cow::Borrowed(&*normal)));
                }
            }
        }

        #[test]
        fn any_text_is_answered_and_the_quick_look_agrees(path in "\\PC{0,20}") {
            for rule in ALL {
                let slow = rule.spell(&path).and_then(|spelled| rule.resolve(&spelled));
                if rule.is_plain(&path) {
                    prop_assert_eq!(slow.as_deref(), Ok(&*path));
                }
                let _ = rule.apply(&path);
            }
        }
    }
}

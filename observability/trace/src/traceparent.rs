//! The `traceparent` header (W3C Trace Context Level 1, section 3.2).

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use towpath_gateway_core::{SpanId, TraceContext, TraceId};

/// Name of the header that carries trace id, caller's span and flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Name of the header that carries what tracing systems add for themselves (section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a version 00 value: `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;

/// What one `traceparent` value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of the side that sent the header.
    pub parent_id: SpanId,
    /// Whether the caller may have recorded its span. The other flags mean nothing in version 00.
    pub sampled: bool,
}

/// Why a text is not a `traceparent` value. The request then starts a trace of its own (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidTraceparent {
    /// Version `ff`, or not two lower-case hex digits.
    Version,
    /// Too short, too long for its version, or a dash is not where it belongs.
    Form,
    /// The trace id is all zero or not lower-case hex.
    TraceId,
    /// The parent id is all zero or not lower-case hex.
    ParentId,
    /// The flags are not lower-case hex.
    Flags,
    /// The header comes more than once.
    Repeated,
}

impl Traceparent {
    /// Reads a header value. Version 00 is held to its exact form; a higher version may have more fields behind
    /// those that are known here (section 3.2.4).
    pub fn parse(value: &[u8]) -> Result<Self, InvalidTraceparent> {
        let version = value.get(..2).ok_or(InvalidTraceparent::Form)?;
        let [version] = hex::<1>(version).ok_or(InvalidTraceparent::Version)?;
        check_form(version, value)?;
        let field = |from: usize, to: usize| value.get(from..to).unwrap_or_default();
        let trace_id = hex(field(3, 35)).filter(|id| *id != [0; 16]).ok_or(InvalidTraceparent::TraceId)?;
        let parent_id = hex(field(36, 52)).filter(|id| *id != [0; 8]).ok_or(InvalidTraceparent::ParentId)?;
        let [flags] = hex::<1>(field(53, LENGTH)).ok_or(InvalidTraceparent::Flags)?;
        Ok(Self {
            trace_id: TraceId(trace_id),
            parent_id: SpanId(parent_id),
            sampled: flags & SAMPLED == SAMPLED,
        })
    }

    /// Reads the header of a request; `None` if there is none.
    pub fn find(headers: &HeaderMap) -> Option<Result<Self, InvalidTraceparent>> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let first = values.next()?;
        Some(match values.next() {
            Some(_) => Err(InvalidTraceparent::Repeated),
            None => Self::parse(first.as_bytes()),
        })
    }

    /// The trace of a pass with `span_id`, called by the sender of this header.
    pub fn continued(self, span_id: SpanId) -> TraceContext {
        TraceContext { trace_id: self.trace_id, span_id, parent: Some(self.parent_id), sampled: self.sampled }
    }

    /// The value in version 00.
    pub fn to_header(self) -> HeaderValue {
        // Hex digits and dashes are always a valid value; an empty one is read by nobody.
        HeaderValue::from_bytes(&self.bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn bytes(self) -> [u8; LENGTH] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut put = |from: usize, text: &[u8]| {
            let places = out.get_mut(from..).unwrap_or_default();
            places.iter_mut().zip(text).for_each(|(place, digit)| *place = *digit);
        };
        put(3, &self.trace_id.to_hex());
        put(36, &self.parent_id.to_hex());
        put(LENGTH - 1, if self.sampled { b"1" } else { b"0" });
        out
    }
}

impl From<TraceContext> for Traceparent {
    /// What a side that stands at `trace` sends on: its own span is the parent of what it calls.
    fn from(trace: TraceContext) -> Self {
        Self { trace_id: trace.trace_id, parent_id: trace.span_id, sampled: trace.sampled }
    }
}

impl FromStr for Traceparent {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.parent_id, u8::from(self.sampled))
    }
}

impl fmt::Display for InvalidTraceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the version of a traceparent is two lower-case hex digits other than ff",
            Self::Form => "a traceparent has the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>",
            Self::TraceId => "a trace id is 32 lower-case hex digits, not all zero",
            Self::ParentId => "a parent id is 16 lower-case hex digits, not all zero",
            Self::Flags => "trace flags are two lower-case hex digits",
            Self::Repeated => "traceparent was sent more than once",
        })
    }
}

impl std::error::Error for InvalidTraceparent {}

fn check_form(version: u8, value: &[u8]) -> Result<(), InvalidTraceparent> {
    let dash = |at: usize| value.get(at) == Some(&b'-');
    let end = match version {
        0xff => return Err(InvalidTraceparent::Version),
        0 => value.len() == LENGTH,
        _ => value.len() == LENGTH || dash(LENGTH),
    };
    if end && dash(2) && dash(35) && dash(52) { Ok(()) } else { Err(InvalidTraceparent::Form) }
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().try_fold(0, |value, digit| Some(value << 4 | nibble(*digit)?))?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_the_example_of_the_specification() {
        let parsed: Traceparent = EXAMPLE.parse().unwrap();
        assert_eq!(parsed.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parsed.parent_id.to_string(), "00f067aa0ba902b7");
        assert!(parsed.sampled);
        assert_eq!(parsed.to_string(), EXAMPLE);
        assert_eq!(parsed.to_header(), EXAMPLE);
    }

    #[test]
    fn only_the_sampled_flag_counts() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true), ("fe", false)] {
            let text = format!("{}{flags}", &EXAMPLE[..53]);
            assert_eq!(text.parse::<Traceparent>().unwrap().sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn refuses_what_the_specification_refuses() {
        use InvalidTraceparent as I;
        let cases = [
            ("", I::Form),
            ("0", I::Form),
            ("00", I::Form),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", I::Version),
            ("0G-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", I::Version),
            ("0A-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", I::Version),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", I::TraceId),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", I::TraceId),
            ("00-4bf92f3577b34da6a3ce929d0e0e473.-00f067aa0ba902b7-01", I::TraceId),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", I::ParentId),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bx-01", I::ParentId),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g", I::Flags),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", I::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", I::Form),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", I::Form),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", I::Form),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more", I::Form),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", I::Form),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<Traceparent>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_higher_version_may_say_more() {
        for end in ["", "-", "-what-the-future-will-be-like"] {
            let text = format!("cc{}{end}", &EXAMPLE[2..]);
            assert_eq!(text.parse(), EXAMPLE.parse::<Traceparent>(), "{text}");
        }
    }

    #[test]
    fn a_header_sent_twice_is_not_believed() {
        let mut headers = HeaderMap::new();
        assert_eq!(Traceparent::find(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert!(Traceparent::find(&headers).unwrap().is_ok());
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert_eq!(Traceparent::find(&headers), Some(Err(InvalidTraceparent::Repeated)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Traceparent::parse(&bytes);
        }

        #[test]
        fn one_changed_byte_never_panics(at in 0_usize..55, byte: u8) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Traceparent::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_again(trace: [u8; 16], parent: [u8; 8], sampled: bool) {
            prop_assume!(trace != [0; 16] && parent != [0; 8]);
            let sent = Traceparent { trace_id: TraceId(trace), parent_id: SpanId(parent), sampled };
            prop_assert_eq!(Traceparent::parse(sent.to_header().as_bytes()), Ok(sent));
            prop_assert_eq!(sent.to_string().parse(), Ok(sent));
        }
    }
}

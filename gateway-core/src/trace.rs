//! The trace of a request as data. Reading and writing the `traceparent` header is `towpath-trace`'s duty.

use std::fmt;

/// A W3C trace id: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A W3C span id (`parent-id` in the header): 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// Where a request stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Shared by every span of the trace.
    pub trace_id: TraceId,
    /// The span of this pass.
    pub span_id: SpanId,
    /// The span of the caller, if it sent one.
    pub parent: Option<SpanId>,
    /// The caller's (or our) wish that the trace be kept.
    pub sampled: bool,
}

macro_rules! hex {
    ($name:ident, $digits:literal) => {
        impl $name {
            /// The id in lower-case hex, as headers and logs show it.
            pub fn to_hex(self) -> [u8; $digits] {
                let mut text = [0; $digits];
                for (place, bytes) in text.as_chunks_mut().0.iter_mut().zip(self.0.as_chunks().0) {
                    *place = hex_digits(u32::from_be_bytes(*bytes));
                }
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Digits are always text.
                f.write_str(std::str::from_utf8(&self.to_hex()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

hex!(TraceId, 32);
hex!(SpanId, 16);

/// The eight digits of a number, worked out side by side in the eight bytes of a word.
fn hex_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut word = u64::from(number);
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte that is above 9; between `9` and `a` there are 39 other characters.
    let letters = ((word + 6 * ONES) >> 4) & ONES;
    (word + u64::from(b'0') * ONES + letters * 39).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_shown_in_hex(id: [u8; 16]) {
            let expected = id.map(|byte| format!("{byte:02x}")).concat();
            prop_assert_eq!(TraceId(id).to_string(), expected.as_str());
            let half = id.first_chunk::<8>().copied().unwrap();
            prop_assert_eq!(SpanId(half).to_string(), &expected[..16]);
        }
    }
}

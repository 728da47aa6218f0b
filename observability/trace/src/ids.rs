//! New ids from a source of random numbers.

use towpath_gateway_core::{SpanId, TraceId};

/// The default source: a fast generator without cryptographic strength, which trace ids do not need
/// (Trace Context Level 1, section 6.2, asks for random, not for unguessable ids).
pub fn random() -> u64 {
    fastrand::u64(..)
}

/// A trace id from two numbers of `source`.
pub fn trace_id(source: impl Fn() -> u64) -> TraceId {
    let number = (u128::from(source()) << 64) | u128::from(source());
    // All zero is not an id (section 3.2.2.3).
    TraceId(number.max(1).to_be_bytes())
}

/// A span id from one number of `source`.
pub fn span_id(source: impl Fn() -> u64) -> SpanId {
    SpanId(source().max(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_zeros_still_makes_valid_ids() {
        assert_ne!(trace_id(|| 0), TraceId([0; 16]));
        assert_ne!(span_id(|| 0), SpanId([0; 8]));
    }

    #[test]
    fn all_bits_come_from_the_source() {
        assert_eq!(trace_id(|| u64::MAX), TraceId([255; 16]));
        assert_eq!(span_id(|| 0x0102_0304_0506_0708), SpanId([1, 2, 3, 4, 5, 6, 7, 8]));
    }
}

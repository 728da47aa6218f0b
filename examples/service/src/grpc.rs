//! gRPC's message framing: one byte that says whether the message is compressed, four bytes of length, the message
//! (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before each message.
const PREFIX: usize = 5;

/// The largest message that [`Decoder::default`] takes: 4 MiB, as in other implementations of gRPC.
pub const LARGEST: usize = 4 << 20;

/// One message with its prefix, uncompressed. A message longer than the format can tell (4 GiB) is cut.
pub fn encode(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(length);
    out.extend_from_slice(message.get(..length as usize).unwrap_or(message));
    out.freeze()
}

/// Finds messages in bytes that arrive in pieces of any size.
///
/// ```
/// use towpath_service::grpc::{Decoder, encode};
///
/// let mut decoder = Decoder::default();
/// let bytes = encode(b"hello");
/// decoder.push(bytes.slice(..3));
/// assert_eq!(decoder.next(), Ok(None));
/// decoder.push(bytes.slice(3..));
/// assert_eq!(decoder.next().unwrap().as_deref(), Some(&b"hello"[..]));
/// ```
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    largest: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(LARGEST)
    }
}

/// Why bytes are not gRPC messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// The first byte of a message is neither 0 nor 1.
    Flag(u8),
    /// The message is compressed, and no compression was agreed on.
    Compressed,
    /// The message is longer than the decoder takes.
    TooLarge(u32),
    /// The bytes ended inside a message.
    Truncated,
}

impl Decoder {
    /// Takes messages of at most `largest` bytes.
    pub fn new(largest: usize) -> Self {
        Self { buffer: BytesMut::new(), largest }
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: Bytes) {
        self.buffer.extend_from_slice(&bytes);
    }

    /// The next message that has arrived whole. An error stays: what follows cannot be told apart.
    #[allow(clippy::should_implement_trait)] // it fails, and `None` is not the end
    pub fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        let mut prefix = &*self.buffer;
        let (Ok(flag), Ok(length)) = (prefix.try_get_u8(), prefix.try_get_u32()) else {
            return self.buffer.first().map_or(Ok(None), |flag| check_flag(*flag).map(|()| None));
        };
        check_flag(flag)?;
        let size = usize::try_from(length).ok().filter(|size| *size <= self.largest);
        let size = size.ok_or(FramingError::TooLarge(length))?;
        if prefix.len() < size {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(size).freeze()))
    }

    /// Says whether the bytes ended where a message ended.
    pub fn finish(&self) -> Result<(), FramingError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FramingError::Truncated) }
    }
}

fn check_flag(flag: u8) -> Result<(), FramingError> {
    match flag {
        0 => Ok(()),
        1 => Err(FramingError::Compressed),
        other => Err(FramingError::Flag(other)),
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "a message begins with {flag}, not with 0 or 1"),
            Self::Compressed => f.write_str("a message is compressed, but no compression was agreed on"),
            Self::TooLarge(length) => write!(f, "a message of {length} bytes is too large"),
            Self::Truncated => f.write_str("the stream ended inside a message"),
        }
    }
}

impl std::error::Error for FramingError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], piece: usize) -> (Vec<Bytes>, Result<(), FramingError>) {
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.push(Bytes::copy_from_slice(piece));
            loop {
                match decoder.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Err(error)),
                }
            }
        }
        (messages, decoder.finish())
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_split() {
        let sent: Vec<Bytes> =
            ["", "a", "hello", &"x".repeat(1000)].iter().map(|m| (*m).to_owned().into()).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|message| encode(message)).collect();
        for piece in 1..=bytes.len() {
            assert_eq!(decode(&bytes, piece), (sent.clone(), Ok(())), "pieces of {piece}");
        }
    }

    #[test]
    fn every_cut_inside_a_message_is_noticed() {
        let bytes = encode(b"hello");
        for end in 1..bytes.len() {
            assert_eq!(decode(&bytes[..end], 3), (vec![], Err(FramingError::Truncated)), "{end}");
        }
    }

    #[test]
    fn bad_frames_are_refused_as_soon_as_they_show() {
        assert_eq!(decode(&[2], 1).1, Err(FramingError::Flag(2)));
        assert_eq!(decode(&[1, 0, 0, 0, 1, 0], 6).1, Err(FramingError::Compressed));
        assert_eq!(decode(&[0, 0xff, 0xff, 0xff, 0xff], 5).1, Err(FramingError::TooLarge(u32::MAX)));
        let mut small = Decoder::new(3);
        small.push(encode(b"1234"));
        assert_eq!(small.next(), Err(FramingError::TooLarge(4)));
    }
}

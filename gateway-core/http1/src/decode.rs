//! Bodies, taken apart (RFC 9112 sections 6 and 7). No socket: bytes come in a buffer.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use httparse::{EMPTY_HEADER, Status};

use crate::fields::field;
use crate::hop;
use crate::section::{Invalid, Section, line_feed};

/// Lines of trailers.
const MAX_HEADERS: usize = 100;

/// Bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
/// Bytes of all chunk extensions of one body.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Digits of a chunk's size.
const MAX_DIGITS: usize = 16;

/// Where a body ends.
#[derive(Debug)]
pub enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// What a buffer held.
#[derive(Debug)]
pub enum Decoded {
    /// Not enough.
    More,
    /// A part of the body.
    Data(Bytes),
    /// The last of it.
    Trailers(HeaderMap),
    /// Nothing more.
    End,
}

impl Framing {
    /// At the start of a chunked body.
    pub fn chunked() -> Self {
        Self::Chunked(Chunked { state: State::Size, seen: 0, extensions: 0, section: Section::default() })
    }

    /// Takes the next part from the start of `read`.
    pub fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Invalid> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            Self::Chunked(chunked) => chunked.decode(read),
            _ if read.is_empty() => Ok(Decoded::More),
            Self::Length(left) => Ok(Decoded::Data(take(read, left))),
            Self::Close => Ok(Decoded::Data(read.split().freeze())),
        }
    }
}

/// Up to `left` bytes of `read`, shared, not copied.
fn take(read: &mut BytesMut, left: &mut u64) -> Bytes {
    let n = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= n as u64;
    read.split_to(n).freeze()
}

/// A chunked body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    /// Bytes of the size line that were looked at.
    seen: usize,
    /// Bytes of extensions so far.
    extensions: usize,
    section: Section,
}

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

impl Chunked {
    fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Invalid> {
        loop {
            match &mut self.state {
                State::Size => match self.size(read)? {
                    None => return Ok(Decoded::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(0) => self.state = State::DataEnd,
                State::Data(_) if read.is_empty() => return Ok(Decoded::More),
                State::Data(left) => return Ok(Decoded::Data(take(read, left))),
                State::DataEnd if !b"\r\n".starts_with(read.get(..2).unwrap_or(read)) => {
                    return Err(Invalid("a chunk is longer than its size"));
                }
                State::DataEnd if read.len() < 2 => return Ok(Decoded::More),
                State::DataEnd => {
                    read.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => return self.trailers(read),
                State::End => return Ok(Decoded::End),
            }
        }
    }

    /// The size of the next chunk, once its line is there.
    fn size(&mut self, read: &mut BytesMut) -> Result<Option<u64>, Invalid> {
        let most = MAX_DIGITS + MAX_EXTENSIONS - self.extensions + 2;
        let Some(at) = line_feed(read, self.seen) else {
            self.seen = read.len();
            return if read.len() > most {
                Err(Invalid("a chunk's extensions are too long"))
            } else {
                Ok(None)
            };
        };
        self.seen = 0;
        let line = read.split_to(at + 1);
        let line = line.strip_suffix(b"\r\n").ok_or(Invalid("a chunk's size ends without CR"))?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at_checked(digits).unwrap_or((line, &[]));
        self.extensions += extension.len();
        if self.extensions > MAX_EXTENSIONS {
            return Err(Invalid("a chunk's extensions are too long"));
        }
        check_extension(extension)?;
        hexadecimal(size).map(Some)
    }

    fn trailers(&mut self, read: &mut BytesMut) -> Result<Decoded, Invalid> {
        let Some(end) = self.section.end(read, MAX_TRAILERS)? else { return Ok(Decoded::More) };
        self.state = State::End;
        let bytes = read.split_to(end).freeze();
        if end == 2 {
            return Ok(Decoded::End);
        }
        let mut space = [EMPTY_HEADER; MAX_HEADERS];
        let Ok(Status::Complete((length, fields))) = httparse::parse_headers(&bytes, &mut space) else {
            return Err(Invalid("the trailers are malformed"));
        };
        if length != bytes.len() {
            return Err(Invalid("the trailers are malformed"));
        }
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for header in fields {
            let (name, value) = field(&bytes, header)?;
            if hop::may_trail(&name) {
                trailers.append(name, value);
            }
        }
        Ok(Decoded::Trailers(trailers))
    }
}

/// Nothing, or what starts with a semicolon and has no control characters, which other readers may take for a line's
/// end (RFC 9112 section 7.1.1).
fn check_extension(extension: &[u8]) -> Result<(), Invalid> {
    let starts = extension.is_empty() || extension.trim_ascii_start().starts_with(b";");
    if starts && extension.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()) {
        Ok(())
    } else {
        Err(Invalid("a chunk's size is malformed"))
    }
}

fn hexadecimal(digits: &[u8]) -> Result<u64, Invalid> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.len() <= MAX_DIGITS);
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(Invalid("a chunk's size is malformed"))
}

//! Response heads, read strictly (RFC 9112 sections 4 to 6).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{ParserConfig, Status};

use crate::fields::{field, length, members};
use crate::hop::{self, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION};
use crate::{Framing, Invalid, Section};

/// Bytes of a response head.
const MAX_HEAD: usize = 64 * 1024;
/// Header lines of a response head.
const MAX_HEADERS: usize = 100;
/// What every response starts with.
const START: &[u8] = b"HTTP/1.";

/// A response head without what concerned its connection alone.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the server will take another request on the connection.
    pub keep: bool,
}

/// Takes a head from the start of `read`, or nothing if it has not come yet. `to_head`: it answers a `HEAD` request.
pub fn parse(
    read: &mut BytesMut,
    section: &mut Section,
    to_head: bool,
) -> Result<Option<ResponseHead>, Invalid> {
    if !read.iter().zip(START).all(|(byte, expected)| byte == expected) {
        return Err(Invalid("the answer is not HTTP/1"));
    }
    let Some(end) = section.end(read, MAX_HEAD)? else { return Ok(None) };
    build(&read.split_to(end).freeze(), to_head).map(Some)
}

fn build(bytes: &Bytes, to_head: bool) -> Result<ResponseHead, Invalid> {
    let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    match ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut space) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Invalid("too many headers")),
        _ => return Err(Invalid("the response head is malformed")),
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Invalid("the status is not a number from 100 on"))?;
    let mut facts = Facts { old: response.version == Some(0), ..Facts::default() };
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for header in &*response.headers {
        let (name, value) = field(bytes, header)?;
        if facts.note(&name, &value)? {
            headers.append(name, value);
        }
    }
    if facts.hop && status != StatusCode::SWITCHING_PROTOCOLS {
        hop::strip(&mut headers);
    }
    let framing = facts.framing(status, to_head)?;
    let keep = facts.keeps() && !matches!(framing, Framing::Close);
    Ok(ResponseHead { status, headers, framing, keep })
}

/// What the headers say about the connection and the body.
#[derive(Debug, Default)]
struct Facts {
    old: bool,
    length: Option<u64>,
    chunked: bool,
    /// What the server said about further requests.
    keep: Option<bool>,
    /// There are headers that must not go further.
    hop: bool,
}

impl Facts {
    /// Whether the header belongs into the map.
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, Invalid> {
        if *name == CONTENT_LENGTH {
            return self.note_length(value);
        }
        if *name == TRANSFER_ENCODING {
            // Any other coding, or two of them, would have to be guessed at (RFC 9112 section 6.1).
            if std::mem::replace(&mut self.chunked, true)
                || !value.as_bytes().eq_ignore_ascii_case(b"chunked")
            {
                return Err(Invalid("a transfer coding other than chunked"));
            }
            return Ok(false);
        }
        if *name == CONNECTION {
            return Ok(self.note_connection(value));
        }
        if *name == TE || *name == UPGRADE || *name == HTTP2_SETTINGS {
            self.hop = true;
        }
        Ok(*name != KEEP_ALIVE && *name != PROXY_CONNECTION)
    }

    fn note_length(&mut self, value: &HeaderValue) -> Result<bool, Invalid> {
        let length = length(value.as_bytes()).ok_or(Invalid("Content-Length is not a number"))?;
        match self.length.replace(length) {
            None => Ok(true),
            Some(other) if other == length => Ok(false),
            Some(_) => Err(Invalid("two lengths")),
        }
    }

    fn note_connection(&mut self, value: &HeaderValue) -> bool {
        let mut names = false;
        for token in members(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.keep = Some(false);
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep.get_or_insert(true);
            } else {
                names = true;
            }
        }
        self.hop |= names;
        names
    }

    fn keeps(&self) -> bool {
        self.keep.unwrap_or(!self.old)
    }

    /// Where the body ends (RFC 9112 section 6.3).
    fn framing(&self, status: StatusCode, to_head: bool) -> Result<Framing, Invalid> {
        if self.chunked && (self.length.is_some() || self.old) {
            return Err(Invalid("chunked, and a length or HTTP/1.0"));
        }
        let bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if to_head || bare || status.is_informational() {
            return Ok(Framing::Length(0));
        }
        Ok(match self.length {
            _ if self.chunked => Framing::chunked(),
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        })
    }
}

//! Request heads, read strictly (RFC 9112 sections 2 to 6).
//!
//! What two readers could take two ways is refused, whatever the RFC lets a recipient make of it: lines without CR, a
//! length beside a transfer coding, two lengths, codings other than `chunked`, folded lines, white space before colons.

use std::fmt;
use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use httparse::{ParserConfig, Status};

use crate::fields::{field, length, members};
use crate::{Framing, Invalid, Section, hop};

/// Header lines for which there is room without asking the heap.
const USUAL: usize = 100;
/// Headers that layers may add before the map has to grow, which costs as much as several headers.
const ADDED: usize = 6;

/// Bounds of a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub head_bytes: usize,
    /// Bytes of the target.
    pub target_bytes: usize,
    /// Header lines.
    pub header_count: usize,
}

impl Default for HeadLimits {
    /// 64 KiB, 16 KiB, 100 lines.
    fn default() -> Self {
        Self { head_bytes: 64 * 1024, target_bytes: 16 * 1024, header_count: USUAL }
    }
}

/// A request head, with all of its headers as they came.
#[allow(clippy::struct_excessive_bools)] // facts that do not depend on each other
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target in whichever of its forms (RFC 9112 section 3.2).
    pub target: Uri,
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    /// The headers.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client will send another request on the connection.
    pub keep: bool,
    /// Whether it waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether it takes trailers.
    pub accepts_trailers: bool,
    /// Whether it asks to go on in another protocol, or for a tunnel.
    pub upgrades: bool,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not HTTP/1.1, or could be taken two ways.
    Invalid(Invalid),
    /// The head, or the number of its lines, is over the limit.
    TooLarge,
    /// The target is over the limit.
    TargetTooLong,
    /// A transfer coding besides `chunked`.
    Coding,
    /// A version of HTTP that this is not.
    Version,
}

impl Refused {
    /// What to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid(Invalid(what)) => what,
            Self::TooLarge => "the request head is too large",
            Self::TargetTooLong => "the request target is too long",
            Self::Coding => "a transfer coding other than chunked",
            Self::Version => "not HTTP/1.1 or HTTP/1.0",
        })
    }
}

impl std::error::Error for Refused {}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// Takes a head from the start of `read`, with its bytes; nothing if it has not come yet.
pub fn parse(
    read: &mut BytesMut,
    section: &mut Section,
    limits: &HeadLimits,
) -> Result<Option<(RequestHead, Bytes)>, Refused> {
    // Some clients end a body with an empty line that is not part of it (RFC 9112 section 2.2).
    while read.starts_with(b"\r\n") {
        read.advance(2);
        *section = Section::default();
    }
    let Some(end) = section.end(read, limits.head_bytes).map_err(|invalid| over(read, invalid, limits))?
    else {
        return Ok(None);
    };
    let bytes = read.split_to(end).freeze();
    let head = if limits.header_count <= USUAL {
        let mut room = [const { MaybeUninit::uninit() }; USUAL];
        build(&bytes, room.get_mut(..limits.header_count).unwrap_or_default(), limits)
    } else {
        build(&bytes, &mut vec![MaybeUninit::uninit(); limits.header_count], limits)
    };
    head.map(|head| Some((head, bytes)))
}

/// A head of which more came than there may be is too large, or its target is.
fn over(read: &BytesMut, invalid: Invalid, limits: &HeadLimits) -> Refused {
    if read.len() <= limits.head_bytes {
        return Refused::Invalid(invalid);
    }
    let target = read[..].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if target.len() > limits.target_bytes { Refused::TargetTooLong } else { Refused::TooLarge }
}

fn build<'a>(
    bytes: &'a Bytes,
    room: &mut [MaybeUninit<httparse::Header<'a>>],
    limits: &HeadLimits,
) -> Result<RequestHead, Refused> {
    let mut request = httparse::Request::new(&mut []);
    match ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, room) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLarge),
        Err(httparse::Error::Version) => return Err(Refused::Version),
        _ => return Err(Invalid("the request head is malformed").into()),
    }
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let method = method.map_err(|_| Invalid("the method is not a token"))?;
    let target = target(bytes, request.path.unwrap_or_default(), &method, limits)?;
    let mut facts = Facts { old: request.version == Some(0), ..Facts::default() };
    let mut headers = HeaderMap::with_capacity(request.headers.len() + ADDED);
    for header in &*request.headers {
        let (name, value) = field(bytes, header)?;
        facts.note(&name, &value)?;
        headers.append(name, value);
    }
    Ok(RequestHead {
        version: if facts.old { Version::HTTP_10 } else { Version::HTTP_11 },
        framing: facts.framing()?,
        keep: facts.keep.unwrap_or(!facts.old),
        expects_continue: facts.expects && !facts.old,
        accepts_trailers: facts.te && hop::accepts_trailers(&headers),
        upgrades: method == Method::CONNECT || facts.upgrade && !facts.old && hop::asks_to_upgrade(&headers),
        method,
        target,
        headers,
    })
}

/// The target in the form that goes with the method.
fn target(bytes: &Bytes, text: &str, method: &Method, limits: &HeadLimits) -> Result<Uri, Refused> {
    if text.len() > limits.target_bytes {
        return Err(Refused::TargetTooLong);
    }
    // A fragment is no part of a target, and the URI type would drop it without a word.
    if memchr::memchr(b'#', text.as_bytes()).is_some() {
        return Err(Invalid("the target has a fragment").into());
    }
    let uri = Uri::from_maybe_shared(bytes.slice_ref(text.as_bytes()))
        .map_err(|_| Invalid("the target is not a URI"))?;
    let authority_form = uri.scheme().is_none() && uri.authority().is_some();
    if authority_form != (method == Method::CONNECT) {
        return Err(Invalid("the target's form does not go with the method").into());
    }
    Ok(uri)
}

/// What the headers say about the connection and the body.
#[allow(clippy::struct_excessive_bools)] // facts that do not depend on each other
#[derive(Debug, Default)]
struct Facts {
    old: bool,
    length: Option<u64>,
    chunked: bool,
    keep: Option<bool>,
    expects: bool,
    te: bool,
    upgrade: bool,
}

impl Facts {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Refused> {
        if *name == CONTENT_LENGTH {
            let length = length(value.as_bytes()).ok_or(Invalid("Content-Length is not a number"))?;
            if self.length.replace(length).is_some() {
                return Err(Invalid("two lengths").into());
            }
        } else if *name == TRANSFER_ENCODING {
            return self.note_coding(value);
        } else if *name == CONNECTION {
            for token in members(value) {
                if token.eq_ignore_ascii_case(b"close") {
                    self.keep = Some(false);
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep.get_or_insert(true);
                }
            }
        } else {
            self.expects |= *name == EXPECT && value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            self.te |= *name == TE;
            self.upgrade |= *name == UPGRADE;
        }
        Ok(())
    }

    fn note_coding(&mut self, value: &HeaderValue) -> Result<(), Refused> {
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Invalid("two lines of transfer codings").into());
        }
        if value.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        // Where chunked is not the last coding nobody knows where the body ends (RFC 9112 section 6.3).
        match members(value).last() {
            Some(last) if last.eq_ignore_ascii_case(b"chunked") => Err(Refused::Coding),
            _ => Err(Invalid("the last transfer coding is not chunked").into()),
        }
    }

    /// Where the body ends (RFC 9112 section 6.3).
    fn framing(&self) -> Result<Framing, Refused> {
        match self.length {
            _ if self.chunked && self.old => Err(Invalid("a transfer coding in HTTP/1.0").into()),
            Some(_) if self.chunked => Err(Invalid("a transfer coding and a length").into()),
            Some(length) => Ok(Framing::Length(length)),
            None if self.chunked => Ok(Framing::chunked()),
            None => Ok(Framing::Length(0)),
        }
    }
}

#[cfg(test)]
mod tests;

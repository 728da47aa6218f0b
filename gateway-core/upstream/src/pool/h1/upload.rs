//! A request on its way out: the head, and the body as fast as both sides allow.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use towpath_gateway_core::{Body, BodyError, BoxIo, Fault, Reason, Request};

use super::head::length;
use crate::pool::translate;

/// Bytes of the first write. They fit one TLS record, so a failed first write means that the server can read nothing of
/// the request.
const FIRST: usize = 16 * 1024;
/// Data up to this size is copied behind what goes out before it; more is written from where it is.
const SMALL: usize = 4 * 1024;

/// What is left of a request.
pub(super) struct Upload {
    out: Vec<u8>,
    /// Bytes of `out` that were written.
    written: usize,
    /// Data that goes out after `out`.
    data: Bytes,
    body: Body,
    framing: Framing,
    begun: bool,
}

/// How the body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// After so many more bytes.
    Length(u64),
    Chunked,
    /// There is no more of it.
    Ended,
}

/// Why a request did not get out.
pub(super) enum Broken {
    /// Its body broke off.
    Body(BodyError),
    Io(io::Error),
}

impl Upload {
    /// A request in HTTP/1.1's form, which [`translate::to_http1`] gives it. `out` is an empty buffer.
    pub(super) fn of(request: Request, mut out: Vec<u8>) -> Result<Self, Fault> {
        write_head(&mut out, &request);
        let framing = framing(request.headers())?;
        let body = request.into_body();
        let framing = if body.is_end_stream() { Framing::Ended } else { framing };
        Ok(Self { out, written: 0, data: Bytes::new(), body, framing, begun: false })
    }

    /// Whether a connection has taken a part of it, however small.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The buffer, for the next one.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.out
    }

    /// Sends on. Ready when all of it is sent.
    pub(super) fn poll(&mut self, io: &mut BoxIo, cx: &mut Task<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let filled = self.fill(cx)?;
            if self.is_drained() {
                ready!(Pin::new(io).poll_flush(cx)).map_err(Broken::Io)?;
                return filled.map(Ok);
            }
            ready!(self.poll_write(io, cx)).map_err(Broken::Io)?;
        }
    }

    /// Takes from the body what fits. Pending if the body is not ready.
    fn fill(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Broken>> {
        while self.framing != Framing::Ended && self.data.is_empty() && self.out.len() < SMALL {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.push(frame)?,
                Some(Err(error)) => return Poll::Ready(Err(Broken::Body(error))),
                None => self.end(None)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, frame: Frame<Bytes>) -> Result<(), Broken> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.push_data(data),
            Err(frame) => self.end(frame.into_trailers().ok()),
        }
    }

    fn push_data(&mut self, data: Bytes) -> Result<(), Broken> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| wrong("longer"))?;
                if *left == 0 {
                    self.framing = Framing::Ended;
                }
            }
            Framing::Chunked => write_size(&mut self.out, data.len()),
            Framing::Ended => return Ok(()),
        }
        if data.len() > SMALL {
            self.data = data;
        } else {
            self.out.extend_from_slice(&data);
            self.close_chunk();
        }
        Ok(())
    }

    fn close_chunk(&mut self) {
        if self.framing == Framing::Chunked {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        match self.framing {
            Framing::Length(0) | Framing::Ended => {}
            Framing::Length(_) => return Err(wrong("shorter")),
            Framing::Chunked => {
                self.out.extend_from_slice(b"0\r\n");
                let trailers = trailers.unwrap_or_default();
                for (name, value) in trailers.iter().filter(|(name, _)| translate::may_trail(name)) {
                    write_line(&mut self.out, name, value.as_bytes());
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.framing = Framing::Ended;
        Ok(())
    }

    fn is_drained(&self) -> bool {
        self.out.is_empty() && self.data.is_empty()
    }

    fn poll_write(&mut self, io: &mut BoxIo, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        let out = self.out.get(self.written..).unwrap_or_default();
        let io = Pin::new(io);
        let result = if !self.begun {
            io.poll_write(cx, out.get(..FIRST).unwrap_or(out))
        } else if self.data.is_empty() {
            io.poll_write(cx, out)
        } else {
            io.poll_write_vectored(cx, &[IoSlice::new(out), IoSlice::new(&self.data)])
        };
        match ready!(result)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => {
                self.begun = true;
                self.advance(n);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn advance(&mut self, n: usize) {
        let head = n.min(self.out.len() - self.written);
        self.written += head;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        if n > head {
            self.data.advance(n - head);
            if self.data.is_empty() {
                self.close_chunk();
            }
        }
    }
}

fn wrong(how: &str) -> Broken {
    let fault = Fault::new(Reason::BadRequest).with_detail(format!("the body is {how} than its length"));
    Broken::Body(BodyError::new(fault))
}

/// The framing that the headers announce.
fn framing(headers: &HeaderMap) -> Result<Framing, Fault> {
    if let Some(value) = headers.get(CONTENT_LENGTH) {
        let length = length(value.as_bytes()).map(Framing::Length);
        return length
            .ok_or_else(|| Fault::new(Reason::BadRequest).with_detail("Content-Length is not a number"));
    }
    Ok(if headers.contains_key(TRANSFER_ENCODING) { Framing::Chunked } else { Framing::Ended })
}

fn write_head(out: &mut Vec<u8>, request: &Request) {
    out.reserve(1024);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = request.uri().path_and_query().map_or("/", |path| path.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        write_line(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = u32::try_from(size >> (place * 4) & 0xf).unwrap_or_default();
        out.extend(char::from_digit(digit, 16).map(|digit| digit as u8));
    }
    out.extend_from_slice(b"\r\n");
}

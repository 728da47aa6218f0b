//! A message on its way out: the head, and the body as fast as both sides allow.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use towpath_gateway_core::{Body, BodyError};

use crate::{hop, write_line};

/// Bytes of a cautious first write. They fit one TLS record, so a failed first write means that the other side can read
/// nothing of the message.
const FIRST: usize = 16 * 1024;
/// Data up to this size is copied behind what goes out before it; more is written from where it is.
const SMALL: usize = 4 * 1024;

/// What is left of a message.
pub struct Sending {
    out: Vec<u8>,
    /// Bytes of `out` that were written.
    written: usize,
    /// Data that goes out after `out`.
    data: Bytes,
    body: Body,
    length: Length,
    begun: bool,
    cautious: bool,
}

/// How the other side learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After so many more bytes.
    Known(u64),
    /// In chunks. Trailers are sent if `trailers` says that they are welcome, and left out else.
    Chunked {
        /// Whether the other side takes trailers.
        trailers: bool,
    },
    /// With the connection.
    Close,
    /// There is no more of it, or never was.
    Ended,
}

/// Why a message did not get out.
#[derive(Debug)]
pub enum Broken {
    /// Its body broke off.
    Body(BodyError),
    /// Its body is `longer` or `shorter` than was announced.
    Length(&'static str),
    /// The other side takes no more.
    Io(io::Error),
}

impl Sending {
    /// A message whose head is written to `out` already.
    pub fn new(out: Vec<u8>, body: Body, length: Length) -> Self {
        Self { out, written: 0, data: Bytes::new(), body, length, begun: false, cautious: false }
    }

    /// The first write is small enough to be taken as one record or not at all, so that a connection that was closing
    /// can be told from one that took a part of the message.
    #[must_use]
    pub fn cautious(self) -> Self {
        Self { cautious: true, ..self }
    }

    /// Whether a connection has taken a part of it, however small.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The buffer, for the next one.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Sends on. Ready when all of it is sent.
    pub fn poll<T: AsyncWrite + Unpin>(&mut self, io: &mut T, cx: &mut Task<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let filled = self.fill(cx)?;
            if self.is_drained() {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(Broken::Io)?;
                return filled.map(Ok);
            }
            ready!(self.poll_write(io, cx)).map_err(Broken::Io)?;
        }
    }

    /// Takes from the body what fits. Pending if the body is not ready.
    fn fill(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Broken>> {
        while self.length != Length::Ended && self.data.is_empty() && self.out.len() < SMALL {
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
        match &mut self.length {
            Length::Known(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broken::Length("longer"))?;
                if *left == 0 {
                    self.length = Length::Ended;
                }
            }
            Length::Chunked { .. } => write_size(&mut self.out, data.len()),
            Length::Close => {}
            Length::Ended => return Ok(()),
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
        if matches!(self.length, Length::Chunked { .. }) {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        match self.length {
            Length::Known(0) | Length::Close | Length::Ended => {}
            Length::Known(_) => return Err(Broken::Length("shorter")),
            Length::Chunked { trailers: welcome } => {
                self.out.extend_from_slice(b"0\r\n");
                let trailers = trailers.filter(|_| welcome).unwrap_or_default();
                for (name, value) in trailers.iter().filter(|(name, _)| hop::may_trail(name)) {
                    write_line(&mut self.out, name, value.as_bytes());
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.length = Length::Ended;
        Ok(())
    }

    fn is_drained(&self) -> bool {
        self.out.is_empty() && self.data.is_empty()
    }

    fn poll_write<T: AsyncWrite + Unpin>(&mut self, io: &mut T, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        let out = self.out.get(self.written..).unwrap_or_default();
        let io = Pin::new(io);
        let result = if self.cautious && !self.begun {
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

fn write_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = u32::try_from(size >> (place * 4) & 0xf).unwrap_or_default();
        out.extend(char::from_digit(digit, 16).map(|digit| digit as u8));
    }
    out.extend_from_slice(b"\r\n");
}

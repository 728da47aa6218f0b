//! Answers as they go out: status line, headers, and how the body is framed (RFC 9112 sections 4 and 6).

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body as _;
use towpath_gateway_core::Body;
use towpath_http1::request::RequestHead;
use towpath_http1::{Length, Sending, hop, length, write_line};

use super::date::Dates;

/// What of a request bears on its answer.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // facts that do not depend on each other
pub(super) struct Asked {
    /// By `HEAD`: the answer has no body.
    head: bool,
    /// In HTTP/1.0.
    old: bool,
    /// The client takes trailers.
    trailers: bool,
    /// Both sides will have another request on the connection.
    pub(super) keep: bool,
}

impl Asked {
    pub(super) fn of(head: &RequestHead) -> Self {
        Self {
            head: head.method == Method::HEAD,
            old: head.version == Version::HTTP_10,
            trailers: head.accepts_trailers,
            keep: head.keep,
        }
    }

    /// Of a request that could not be read.
    pub(super) fn unknown() -> Self {
        Self { head: false, old: false, trailers: false, keep: false }
    }
}

/// Writes the head behind what `out` holds, and settles whether the connection stays.
pub(super) fn begin(response: Response<Body>, asked: &mut Asked, dates: &Dates, mut out: Vec<u8>) -> Sending {
    let (parts, body) = final_answer(response, asked).into_parts();
    let framing = Framing::of(parts.status, &parts.headers, &body, asked);
    asked.keep &= framing.length != Length::Close && !closes(&parts.headers);
    out.reserve(1024);
    write_status(&mut out, parts.status, asked.old);
    write_headers(&mut out, &parts.headers, asked, dates);
    framing.write(&mut out, &parts.headers);
    out.extend_from_slice(b"\r\n");
    Sending::new(out, body, framing.length)
}

/// A client waits for another answer after an interim one, and would take that of its next request for it. 101 is given
/// only by those who were asked for it, on connections that are no longer here.
fn final_answer(response: Response<Body>, asked: &mut Asked) -> Response<Body> {
    if !response.status().is_informational() {
        return response;
    }
    tracing::warn!(status = %response.status(), "a service gave an interim response for its answer");
    asked.keep = false;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// How the body's end is told, and which length is said.
struct Framing {
    length: Length,
    /// The length that is said where the service said none.
    said: Option<u64>,
    /// The service's own statement is passed on.
    declared: bool,
}

impl Framing {
    fn of(status: StatusCode, headers: &HeaderMap, body: &Body, asked: &Asked) -> Self {
        let declared = declared(headers);
        let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        // RFC 9110 sections 6.4.1 and 8.6.
        let lengthless = status == StatusCode::NO_CONTENT;
        if lengthless || status == StatusCode::NOT_MODIFIED || asked.head {
            // An empty body says nothing about the one that a GET would have had.
            let said = known.filter(|length| *length > 0 && asked.head && declared.is_none() && !lengthless);
            return Self { length: Length::Ended, said, declared: declared.is_some() && !lengthless };
        }
        let length = match declared.or(known) {
            Some(0) if known == Some(0) => Length::Ended,
            Some(length) => Length::Known(length),
            None if asked.old => Length::Close,
            None => Length::Chunked { trailers: asked.trailers || headers.contains_key(TRAILER) },
        };
        Self { length, said: known.filter(|_| declared.is_none()), declared: declared.is_some() }
    }

    fn write(&self, out: &mut Vec<u8>, headers: &HeaderMap) {
        if let Some(value) = headers.get(CONTENT_LENGTH).filter(|_| self.declared) {
            write_line(out, &CONTENT_LENGTH, value.as_bytes());
        } else if let Some(length) = self.said {
            write_line(out, &CONTENT_LENGTH, HeaderValue::from(length).as_bytes());
        } else if matches!(self.length, Length::Chunked { .. }) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
    }
}

/// The one length that the service stated; several, or one that is no number, are as good as none.
fn declared(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let declared = length(lines.next()?.as_bytes());
    declared.filter(|_| lines.next().is_none())
}

fn closes(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION)
        && hop::tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("close"))
}

fn write_status(out: &mut Vec<u8>, status: StatusCode, old: bool) {
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_headers(out: &mut Vec<u8>, headers: &HeaderMap, asked: &Asked, dates: &Dates) {
    let mut dated = false;
    for (name, value) in headers {
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
            continue;
        }
        // Whether the connection stays is said below, by who knows it.
        if *name == CONNECTION && is_about_keeping(value) {
            continue;
        }
        dated |= *name == DATE;
        write_line(out, name, value.as_bytes());
    }
    if !dated {
        dates.write(out);
    }
    match (asked.keep, asked.old) {
        (true, false) => {}
        (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, _) => out.extend_from_slice(b"connection: close\r\n"),
    }
}

fn is_about_keeping(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    value.eq_ignore_ascii_case(b"close") || value.eq_ignore_ascii_case(b"keep-alive")
}

#[cfg(test)]
mod tests;

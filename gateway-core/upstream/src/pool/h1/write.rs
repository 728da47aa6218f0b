//! Request heads as they go out (RFC 9112 section 3).

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body as _;
use towpath_gateway_core::{Fault, Reason, Request};
use towpath_http1::{Length, Sending, length, write_line};

/// A request in HTTP/1.1's form, which `translate::to_http1` gives it. `out` is an empty buffer.
pub(super) fn begin(request: Request, mut out: Vec<u8>) -> Result<Sending, Fault> {
    write_head(&mut out, &request);
    let length = announced(request.headers())?;
    let body = request.into_body();
    let length = if body.is_end_stream() { Length::Ended } else { length };
    Ok(Sending::new(out, body, length).cautious())
}

/// The framing that the headers announce.
fn announced(headers: &HeaderMap) -> Result<Length, Fault> {
    if let Some(value) = headers.get(CONTENT_LENGTH) {
        let length = length(value.as_bytes()).map(Length::Known);
        return length
            .ok_or_else(|| Fault::new(Reason::BadRequest).with_detail("Content-Length is not a number"));
    }
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    Ok(if chunked { Length::Chunked { trailers: true } } else { Length::Ended })
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

//! Request heads as they go out (RFC 9112 section 3).

use towpath_gateway_core::Request;
use towpath_http1::{Length, Sending, write_line};

/// A request in HTTP/1.1's form, which `translate::to_http1` gives it with its length. `out` is an empty buffer.
pub(super) fn begin(request: Request, length: Length, mut out: Vec<u8>) -> Sending {
    write_head(&mut out, &request);
    Sending::new(out, request.into_body(), length).cautious()
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

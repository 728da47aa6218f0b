//! Which head and which framing an answer gets.

use bytes::Bytes;
use http_body_util::StreamBody;

use super::*;

fn stream() -> Body {
    let frames = futures_util::stream::empty::<Result<http_body::Frame<Bytes>, std::io::Error>>();
    Body::new(StreamBody::new(frames))
}

const PLAIN: Asked = Asked { head: false, old: false, trailers: false, keep: true };

fn written(status: u16, headers: &[(&'static str, &str)], body: Body, mut asked: Asked) -> (String, bool) {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert(DATE, HeaderValue::from_static("now"));
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    let mut sending = begin(response, &mut asked, &Dates::default(), Vec::new());
    let text = String::from_utf8(sending.take_buffer()).unwrap();
    (text.replace("date: now\r\n", ""), asked.keep)
}

#[test]
fn each_answer_says_its_length_once() {
    const OLD: Asked = Asked { old: true, ..PLAIN };
    const HEAD: Asked = Asked { head: true, ..PLAIN };
    let table: [(u16, &[(&'static str, &str)], Body, Asked, &str); 14] = [
        (200, &[], Body::from("abc"), PLAIN, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"),
        (200, &[], Body::empty(), PLAIN, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (200, &[("content-length", "5")], stream(), PLAIN, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        (200, &[], stream(), PLAIN, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (200, &[], stream(), OLD, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n"),
        (
            200,
            &[],
            Body::from("a"),
            OLD,
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n",
        ),
        (204, &[("content-length", "0")], Body::empty(), PLAIN, "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            304,
            &[("content-length", "9")],
            Body::empty(),
            PLAIN,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        ),
        (304, &[], Body::from("x"), PLAIN, "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (
            200,
            &[("content-length", "9")],
            Body::empty(),
            HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        ),
        (200, &[], Body::from("abc"), HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"),
        (200, &[], stream(), HEAD, "HTTP/1.1 200 OK\r\n\r\n"),
        (
            200,
            &[("content-length", "x")],
            Body::from("ab"),
            PLAIN,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
        ),
        (
            299,
            &[("transfer-encoding", "gzip")],
            Body::from("ab"),
            PLAIN,
            "HTTP/1.1 299 \r\ncontent-length: 2\r\n\r\n",
        ),
    ];
    for (status, headers, body, asked, expected) in table {
        assert_eq!(written(status, headers, body, asked).0, expected, "{status} {headers:?}");
    }
}

#[test]
fn the_connection_header_says_what_is_so() {
    let close = |text: &str| text.matches("connection: close\r\n").count();
    let (text, keep) = written(200, &[("connection", "Close")], Body::empty(), PLAIN);
    assert!(!keep && close(&text) == 1 && !text.contains("Close"), "{text}");
    let (text, keep) = written(200, &[("connection", "keep-alive")], Body::empty(), Asked::unknown());
    assert!(!keep && close(&text) == 1 && !text.contains("keep-alive"), "{text}");
    let (text, keep) = written(426, &[("connection", "upgrade"), ("upgrade", "echo")], Body::empty(), PLAIN);
    assert!(keep && text.contains("connection: upgrade\r\n"), "{text}");
}

#[test]
fn a_date_is_added_where_there_is_none() {
    let mut asked = PLAIN;
    let mut sending = begin(Response::new(Body::empty()), &mut asked, &Dates::default(), Vec::new());
    assert!(String::from_utf8(sending.take_buffer()).unwrap().contains("\r\ndate: "));
}

#[test]
fn an_interim_status_is_no_answer() {
    for status in [100, 101, 103] {
        let (text, keep) = written(status, &[("link", "</a>")], Body::empty(), PLAIN);
        assert!(!keep && text.starts_with("HTTP/1.1 500") && text.contains("connection: close"), "{text}");
    }
}

//! Request heads: what is read, what is refused, and that pieces do not matter.

use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<RequestHead>, Refused> {
    let limits = HeadLimits { head_bytes: 400, target_bytes: 60, header_count: 8 };
    let parsed = parse(&mut BytesMut::from(bytes), &mut Section::default(), &limits);
    parsed.map(|found| found.map(|(head, _)| head))
}

fn head(lines: &str) -> RequestHead {
    let text = format!("POST /a?b HTTP/1.1\r\nhost: h\r\n{lines}\r\n");
    read(text.as_bytes()).unwrap().unwrap()
}

#[test]
fn a_head_is_read_with_all_its_headers() {
    let bytes = b"\r\nGET /a/%2e?b=c HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a:2 \r\n\r\n";
    let head = read(bytes).unwrap().unwrap();
    assert_eq!((head.method, head.target.to_string().as_str()), (Method::GET, "/a/%2e?b=c"));
    assert_eq!(head.headers["host"], "h");
    assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(head.keep && !head.expects_continue && !head.upgrades);
    assert!(matches!(head.framing, Framing::Length(0)));
}

#[test]
fn the_headers_say_where_the_body_ends_and_what_follows() {
    assert!(matches!(head("content-length: 12\r\n").framing, Framing::Length(12)));
    assert!(matches!(head("transfer-encoding: Chunked\r\n").framing, Framing::Chunked(_)));
    assert!(!head("connection: keep-alive, close\r\n").keep);
    assert!(head("expect: 100-Continue\r\n").expects_continue);
    assert!(head("te: trailers\r\n").accepts_trailers);
    assert!(head("connection: upgrade\r\nupgrade: websocket\r\n").upgrades);
    let old = |lines: &str| read(format!("GET / HTTP/1.0\r\n{lines}\r\n").as_bytes()).unwrap().unwrap();
    assert!(!old("").keep && old("connection: keep-alive\r\n").keep);
    assert!(!old("expect: 100-continue\r\n").expects_continue);
    assert!(!old("connection: upgrade\r\nupgrade: websocket\r\n").upgrades);
}

#[test]
fn targets_have_the_form_that_goes_with_the_method() {
    for (line, good) in [
        ("GET / HTTP/1.1", true),
        ("OPTIONS * HTTP/1.1", true),
        ("GET http://a.example/b HTTP/1.1", true),
        ("GET http://a.example HTTP/1.1", true),
        ("CONNECT a.example:443 HTTP/1.1", true),
        ("CONNECT /a HTTP/1.1", false),
        ("CONNECT http://a.example/ HTTP/1.1", false),
        ("GET a.example:80 HTTP/1.1", false),
        ("GET a HTTP/1.1", false),
        ("GET /a#b HTTP/1.1", false),
        ("GET /a b HTTP/1.1", false),
        ("GET  /a HTTP/1.1", false),
        ("GET /a\tHTTP/1.1", false),
    ] {
        assert_eq!(read(format!("{line}\r\n\r\n").as_bytes()).is_ok(), good, "{line}");
    }
}

#[test]
fn what_could_be_taken_two_ways_is_refused() {
    let table: [(&str, &str); 22] = [
        ("content-length: 1\r\ncontent-length: 1\r\n", "400"),
        ("content-length: 1\r\ncontent-length: 2\r\n", "400"),
        ("content-length: 1, 1\r\n", "400"),
        ("content-length: +1\r\n", "400"),
        ("content-length: 0x1\r\n", "400"),
        ("content-length:\r\n", "400"),
        ("content-length: 99999999999999999999\r\n", "400"),
        ("content-length: 1\r\ntransfer-encoding: chunked\r\n", "400"),
        ("transfer-encoding: chunked\r\ncontent-length: 1\r\n", "400"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "400"),
        ("transfer-encoding: chunked, identity\r\n", "400"),
        ("transfer-encoding: gzip\r\n", "400"),
        ("transfer-encoding: xchunked\r\n", "400"),
        ("transfer-encoding: \x0bchunked\r\n", "400"),
        ("transfer-encoding: gzip, chunked\r\n", "501"),
        ("transfer-encoding : chunked\r\n", "400"),
        ("x: a\r\n b\r\n", "400"),
        (" x: a\r\n", "400"),
        ("x: a\0b\r\n", "400"),
        ("x: a\rb\r\n", "400"),
        ("x: a\n", "400"),
        ("x\r\n", "400"),
    ];
    for (lines, status) in table {
        let text = format!("POST / HTTP/1.1\r\nhost: h\r\n{lines}\r\n");
        let refused = read(text.as_bytes()).expect_err(lines);
        assert_eq!(refused.status().as_str(), status, "{lines:?}: {refused}");
    }
    let old = read(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(old.unwrap_err().status(), StatusCode::BAD_REQUEST);
}

#[test]
fn limits_and_versions_have_a_status_each() {
    let long = "t".repeat(61);
    for (text, status) in [
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (format!("GET /{}", "t".repeat(500)), 414),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "v".repeat(400)), 431),
        (format!("GET / HTTP/1.1\r\nx: {}", "v".repeat(400)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9)), 431),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.2\r\n\r\n".to_owned(), 505),
    ] {
        let refused = read(text.as_bytes()).expect_err(&text);
        assert_eq!(refused.status().as_u16(), status, "{text}: {refused}");
    }
    assert!(read(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(8)).as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic_and_pieces_do_not_matter(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"host: a\r\n".to_vec()), Just(b"\r\n".to_vec()),
            Just(b"content-length: 3\r\n".to_vec()), Just(b"transfer-encoding: chunked\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..12),
        ], 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = bytes.concat();
        let whole = read(&bytes).map(|head| head.map(|head| (head.method, head.target, head.headers)));
        let (mut buffer, mut section) = (BytesMut::new(), Section::default());
        let limits = HeadLimits { head_bytes: 400, target_bytes: 60, header_count: 8 };
        let cut = cut.index(bytes.len() + 1);
        buffer.extend_from_slice(&bytes[..cut]);
        let first = parse(&mut buffer, &mut section, &limits);
        let second = match first {
            Ok(None) => {
                buffer.extend_from_slice(&bytes[cut..]);
                parse(&mut buffer, &mut section, &limits)
            }
            other => other,
        };
        let second = second.map(|head| head.map(|(head, _)| (head.method, head.target, head.headers)));
        prop_assert_eq!(whole.map_err(Refused::status), second.map_err(Refused::status));
    }
}

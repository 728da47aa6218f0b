//! Answers that are no good HTTP/1.1, whole and in pieces: none of them passes for another, and how the bytes are cut
//! never matters.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll};

use http::Method;
use http_body_util::BodyExt;
use proptest::prelude::*;
use support::{get, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towpath_gateway_core::{Body, Connected, Connection, Destination, Endpoint, Fault, Reason, Request};
use towpath_upstream::{Pool, PoolSettings};

/// A server that says the same whatever it hears, piece by piece.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    heard: Arc<Mutex<Vec<u8>>>,
    /// The next read waits once, so that every piece is met on its own.
    ready: bool,
    open: bool,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ready = !self.ready;
        // A server that stays has said all that it will before it is heard.
        if !self.ready && !self.open {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.open { Poll::Pending } else { Poll::Ready(Ok(())) };
        };
        let n = piece.len().min(buf.remaining());
        let rest = piece.split_off(n);
        buf.put_slice(&piece);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
            self.ready = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What became of a response.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Answer { status: u16, headers: Vec<(String, Vec<u8>)>, body: Vec<u8>, trailers: usize },
    NoAnswer(Reason),
    BrokenBody(Reason),
}

fn answer(status: u16, body: &str) -> Got {
    Got::Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), trailers: 0 }
}

impl Got {
    fn without_headers(mut self) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.clear();
        }
        self
    }
}

fn pieces(answer: &[u8], cuts: &[usize]) -> VecDeque<Vec<u8>> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (answer.len() + 1)).collect();
    cuts.extend([0, answer.len()]);
    cuts.sort_unstable();
    let pieces = cuts.windows(2).map(|ends| answer[ends[0]..ends[1]].to_vec());
    pieces.filter(|piece| !piece.is_empty()).collect()
}

struct Run {
    got: Got,
    heard: Vec<u8>,
    connections: usize,
}

/// Sends `request`, and after it another if `twice`; the fate of the first.
fn run_with(request: Request, answer: &[u8], cuts: &[usize], open: bool, twice: bool) -> Run {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let connections = Arc::new(AtomicUsize::new(0));
    let (log, count) = (Arc::clone(&heard), Arc::clone(&connections));
    let answer = answer.to_vec();
    let cuts = cuts.to_vec();
    let connector = tower::service_fn(move |_: Destination| {
        count.fetch_add(1, Ordering::SeqCst);
        let script = Script { pieces: pieces(&answer, &cuts), heard: Arc::clone(&log), ready: false, open };
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let connection = Arc::new(Connection::plaintext(nowhere, nowhere));
        std::future::ready(Ok::<_, Fault>(Connected { io: Box::new(script), connection }))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let got = runtime.block_on(async {
        let pool = Pool::new(connector, PoolSettings::default());
        let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:1".parse().unwrap()));
        let got = fate(send(pool.clone(), &endpoint, request).await).await;
        if twice {
            let again = tokio::time::timeout(std::time::Duration::from_millis(20), async {
                fate(send(pool, &endpoint, get("/again")).await).await
            });
            let _ = again.await;
        }
        got
    });
    let heard = heard.lock().unwrap().clone();
    Run { got, heard, connections: connections.load(Ordering::SeqCst) }
}

async fn fate(result: Result<towpath_gateway_core::Response, Fault>) -> Got {
    let response = match result {
        Ok(response) => response,
        Err(fault) => return Got::NoAnswer(fault.reason()),
    };
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    match response.into_body().collect().await {
        Ok(body) => {
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            Got::Answer { status, headers, body: body.to_bytes().to_vec(), trailers }
        }
        Err(error) => {
            let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Fault>());
            Got::BrokenBody(source.map_or(Reason::Internal, Fault::reason))
        }
    }
}

fn run(answer: &[u8], cuts: &[usize]) -> Got {
    run_with(get("/"), answer, cuts, false, false).got
}

/// The same in one piece, and byte by byte.
fn both_ways(answer: &[u8]) -> Got {
    let whole = run(answer, &[]);
    let every: Vec<_> = (0..answer.len().min(4096)).collect();
    assert_eq!(run(answer, &every), whole, "{}", answer.escape_ascii());
    whole
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn heads_that_could_be_read_two_ways_are_refused() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(65 * 1024));
    let table = [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
        "HTTP/1.1 200 OK\na: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n\n",
        "HTTP/1.1 200 OK\r\na: b\rc: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: nameless\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 20 Short\r\n\r\n",
        "HTTP/1.1 2000 Long\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "<html>no head at all</html>",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        &many,
        &long,
    ];
    for answer in table {
        let got = both_ways(answer.as_bytes());
        assert_eq!(got, Got::NoAnswer(Reason::UpstreamInvalid), "{}", answer.get(..120).unwrap_or(answer));
    }
}

#[test]
fn chunks_that_could_be_read_two_ways_break_the_body() {
    let extended = format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(17 * 1024));
    let dribbled = format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(17));
    let trailing = format!("0\r\na: {}\r\n\r\n", "x".repeat(17 * 1024));
    let table = [
        "2\nok\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\n\n",
        "2\r\nok\r\n0\n\r\n",
        "2\r\nok\r\n0\r\na: b\n\r\n",
        "2\r\nok\r\n0\r\na b\r\n\r\n",
        "2\r\nok\r\n0\r\na: b\r\n c\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "2 2\r\nok\r\n0\r\n\r\n",
        "2 \r\nok\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
        "2;a\rb\r\nok\r\n0\r\n\r\n",
        "2;a\0\r\nok\r\n0\r\n\r\n",
        "\r\n2\r\nok\r\n0\r\n\r\n",
        "g\r\nok\r\n0\r\n\r\n",
        "10000000000000000\r\nok\r\n0\r\n\r\n",
        "00000000000000002\r\nok\r\n0\r\n\r\n",
        &extended,
        &dribbled,
        &trailing,
    ];
    for chunks in table {
        let got = both_ways(format!("{CHUNKED}{chunks}").as_bytes());
        assert_eq!(got, Got::BrokenBody(Reason::UpstreamInvalid), "{}", chunks.get(..80).unwrap_or(chunks));
    }
}

#[test]
fn what_ends_too_early_is_broken() {
    for answer in ["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r", "HTTP/1.1 100 Continue\r\n\r\n"] {
        assert_eq!(both_ways(answer.as_bytes()), Got::NoAnswer(Reason::UpstreamReset), "{answer}");
    }
    for chunks in
        ["", "2", "2\r\n", "2\r\no", "2\r\nok", "2\r\nok\r", "2\r\nok\r\n0\r\n", "2\r\nok\r\n0\r\na: b\r\n"]
    {
        let got = both_ways(format!("{CHUNKED}{chunks}").as_bytes());
        assert_eq!(got, Got::BrokenBody(Reason::UpstreamReset), "{chunks}");
    }
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok";
    assert_eq!(both_ways(short), Got::BrokenBody(Reason::UpstreamReset));
}

#[test]
fn what_is_unusual_and_clear_is_read() {
    let table = [
        ("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", answer(200, "ok")),
        ("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", answer(200, "ok")),
        ("HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", answer(999, "")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok", answer(200, "ok")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", answer(200, "ok")),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n02 ;a=\"b\"\r\nok\r\n000\r\n\r\n",
            answer(200, "ok"),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", answer(200, "to the end")),
        ("HTTP/1.0 200 OK\r\n\r\nto the end", answer(200, "to the end")),
        ("HTTP/1.1 204 No Content\r\n\r\nsurplus", answer(204, "")),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\nsurplus", answer(304, "")),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            answer(200, "ok"),
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", answer(200, "ok")),
    ];
    for (bytes, expected) in table {
        assert_eq!(both_ways(bytes.as_bytes()).without_headers(), expected, "{bytes}");
    }
}

#[test]
fn what_concerns_the_connection_alone_goes_no_further() {
    let bytes = b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                  upgrade: h2c\r\nx-end: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\ncontent-length: 9\r\nhost: a\r\n\r\n";
    let Got::Answer { headers, trailers, .. } = both_ways(bytes) else { panic!("it is a response") };
    assert_eq!((headers, trailers), (vec![("x-end".into(), b"2".to_vec())], 1));
}

#[test]
fn the_answer_to_head_has_no_body() {
    let head = || {
        let mut request = get("/");
        *request.method_mut() = Method::HEAD;
        request
    };
    for framing in ["content-length: 1000", "transfer-encoding: chunked", "x: y"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        let run = run_with(head(), bytes.as_bytes(), &[], true, true);
        assert_eq!(run.got.without_headers(), answer(200, ""), "{framing}");
        assert_eq!(run.connections, 1, "{framing}: it is kept");
    }
}

#[test]
fn only_a_connection_in_a_known_state_is_used_again() {
    let table = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 1),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok", 1),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 2),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: Close\r\n\r\nok", 2),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\nconnection: x, close\r\n\r\nok",
            2,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok\r\n", 2),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
            2,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", 2),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200", 2),
    ];
    for (bytes, connections) in table {
        // A piece for the response and one for what comes after it, and all at once.
        let after = bytes.find("poison").map_or(bytes.len(), |_| bytes.rfind("HTTP/1.1").unwrap());
        for cuts in [&[][..], &[after], &[10, 30, 50]] {
            let run = run_with(get("/"), bytes.as_bytes(), cuts, true, true);
            assert_eq!(run.connections, connections, "{bytes} cut at {cuts:?}");
        }
    }
}

#[test]
fn a_request_in_hand_is_sent_as_it_is() {
    let request = http::Request::post("/a?b=c").header("host", "a").header("x-one", "1");
    let request = request.body(Body::from("order")).unwrap();
    let run = run_with(request, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", &[], true, false);
    let expected = "POST /a?b=c HTTP/1.1\r\nhost: a\r\nx-one: 1\r\ncontent-length: 5\r\n\r\norder";
    assert_eq!(String::from_utf8(run.heard).unwrap(), expected);
}

fn corpus() -> impl Strategy<Value = Vec<u8>> {
    let good = proptest::sample::select(vec![
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\nyou\r\n0\r\nx-sum: 1\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\nnothing here",
        "HTTP/1.0 200 OK\r\nset-cookie: a\r\nset-cookie: b\r\n\r\nold",
    ]);
    let bytes = proptest::sample::select(b"\r\n\0 :;,0123456789abcdefgHTTP/.\x7f\xff\t".to_vec());
    let edits = proptest::collection::vec((any::<u8>(), any::<prop::sample::Index>(), bytes), 0..6);
    (good, edits).prop_map(|(good, edits)| {
        let mut bytes = good.as_bytes().to_vec();
        for (kind, place, byte) in edits {
            let at = place.index(bytes.len());
            match kind % 4 {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.extend_from_within(at..(at + 12).min(bytes.len())),
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn how_an_answer_is_cut_never_matters(bytes in corpus(), cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
        prop_assert_eq!(run(&bytes, &cuts), run(&bytes, &[]));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300), chunked: bool) {
        let mut answer = if chunked { CHUNKED.as_bytes().to_vec() } else { b"HTTP/1.1 ".to_vec() };
        answer.extend(bytes);
        let every: Vec<_> = (0..answer.len()).collect();
        prop_assert_eq!(run(&answer, &every), run(&answer, &[]));
    }
}

//! gRPC over HTTP/2, the client's side: one message is sent, and messages come until the server ends the call. Each call
//! has a connection of its own, which ends with the call.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// The flag of a message that is not compressed, and the four bytes of its length.
const PREFIX: usize = 5;

/// The longest head or trailer that is taken, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;

/// The most characters of a server's message that are shown.
const MAX_MESSAGE: usize = 300;

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(u16);

impl Code {
    /// The request is at fault.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The caller is known, and may not.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// The server does not know the method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The server is not ready, or too busy.
    pub const UNAVAILABLE: Self = Self(14);
    /// The caller did not prove who it is.
    pub const UNAUTHENTICATED: Self = Self(16);

    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "status {}", self.0),
        }
    }
}

/// Why a call gave no message.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection broke, or what came over it is not HTTP/2.
    #[error("the connection broke: {0}")]
    Http2(#[from] h2::Error),
    /// Something answered that does not speak gRPC.
    #[error("what answers there does not speak gRPC (HTTP status {0})")]
    NotGrpc(StatusCode),
    /// The server ended the call with an error.
    #[error("{code}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
    Status {
        /// What kind of error.
        code: Code,
        /// The server's own words, cut and made printable.
        message: String,
    },
    /// The server ended the call without saying how it went.
    #[error("the answer has no grpc-status")]
    NoStatus,
    /// A message passes the limit.
    #[error("the answer has a message of {length} bytes, at most {limit} are taken")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The message is compressed, which nobody asked for.
    #[error("the answer is compressed")]
    Compressed,
    /// The bytes are not the message.
    #[error("the answer cannot be read: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// There is not one message, or the last one is not whole.
    #[error("the answer is not one whole message")]
    Incomplete,
}

/// Sends `question` to `uri` on a connection that is open already.
pub(crate) async fn call<A: Message + Default>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: Uri,
    metadata: HeaderMap,
    question: &impl Message,
    limit: usize,
) -> Result<Answer<A>, CallError> {
    let mut client = h2::client::Builder::new();
    client.enable_push(false).max_header_list_size(MAX_HEADERS);
    let (sender, connection) = client.handshake::<_, Bytes>(io).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What breaks it is told by the stream.
        let _ = connection.await;
    });
    let (answer, mut body) = sender.ready().await?.send_request(head(uri, metadata), false)?;
    body.send_data(framed(question), true)?;
    let (head, body) = answer.await?.into_parts();
    if head.headers.contains_key("grpc-status") {
        status(&head.headers)?;
    }
    let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if head.status != StatusCode::OK || !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Err(CallError::NotGrpc(head.status));
    }
    Ok(Answer { body, buffered: BytesMut::new(), limit, _driver: driver, kind: PhantomData })
}

fn head(uri: Uri, metadata: HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = metadata;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request
}

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// The messages that come.
pub(crate) struct Answer<A> {
    body: RecvStream,
    buffered: BytesMut,
    limit: usize,
    // Ends the connection when it is dropped.
    _driver: JoinSet<()>,
    kind: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Answer<A> {
    /// The next message; nothing once the server has ended the call well. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = unframed(&mut self.buffered, self.limit)? {
                return Ok(Some(A::decode(message)?));
            }
            let Some(chunk) = self.body.data().await else { break };
            let chunk = chunk?;
            self.body.flow_control().release_capacity(chunk.len())?;
            self.buffered.extend_from_slice(&chunk);
        }
        status(&self.body.trailers().await?.ok_or(CallError::NoStatus)?)?;
        if self.buffered.is_empty() { Ok(None) } else { Err(CallError::Incomplete) }
    }

    /// The one message of a unary call.
    #[cfg(feature = "istio-ca")]
    pub(crate) async fn only(mut self) -> Result<A, CallError> {
        let message = self.next().await?.ok_or(CallError::Incomplete)?;
        if self.next().await?.is_some() { Err(CallError::Incomplete) } else { Ok(message) }
    }
}

/// Takes a whole message out of `buffered`, if one is there.
fn unframed(buffered: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, CallError> {
    let Some((prefix, _)) = buffered.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [flag, length @ ..] = *prefix;
    if flag != 0 {
        return Err(CallError::Compressed);
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(CallError::TooLong { length, limit });
    }
    if buffered.len() - PREFIX < length {
        return Ok(None);
    }
    buffered.advance(PREFIX);
    Ok(Some(buffered.split_to(length).freeze()))
}

fn status(trailers: &HeaderMap) -> Result<(), CallError> {
    let value = trailers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
    match value {
        Some(0) => Ok(()),
        Some(code) => {
            let message = trailers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
            Err(CallError::Status { code: Code(code), message: printable(message) })
        }
        None => Err(CallError::NoStatus),
    }
}

/// The text of a `grpc-message`, which is percent-encoded UTF-8; cut, and without control characters.
fn printable(message: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.first_chunk::<2>().filter(|two| *first == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_a_server_are_decoded_cut_and_made_printable() {
        for (sent, shown) in [
            ("plain", "plain"),
            ("50%25 of it%0anext", "50% of it next"),
            ("%E2%82%AC", "\u{20ac}"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%+1", "%zz%+1"),
            ("%FF", "\u{fffd}"),
        ] {
            assert_eq!(printable(sent.as_bytes()), shown, "{sent}");
        }
        assert_eq!(printable(&[b'a'; 1000]).len(), MAX_MESSAGE);
    }

    #[test]
    fn statuses_have_their_names() {
        let trailers = |status: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            trailers
        };
        assert!(status(&trailers("0")).is_ok());
        for (sent, shown) in [
            ("16", "UNAUTHENTICATED"),
            ("99", "status 99"),
            ("x", "no grpc-status"),
            ("-1", "no grpc-status"),
        ] {
            assert!(status(&trailers(sent)).unwrap_err().to_string().contains(shown), "{sent}");
        }
        assert!(matches!(status(&HeaderMap::new()), Err(CallError::NoStatus)));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
            cut in 1_usize..20,
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                bytes.push(0);
                bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
                bytes.extend(message);
            }
            let (mut buffered, mut seen) = (BytesMut::new(), Vec::new());
            for chunk in bytes.chunks(cut) {
                buffered.extend_from_slice(chunk);
                while let Some(message) = unframed(&mut buffered, 40).unwrap() {
                    seen.push(message.to_vec());
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(buffered.is_empty());
        }

        #[test]
        fn what_passes_the_limit_or_is_compressed_is_refused_by_its_prefix(flag in any::<u8>(), length in any::<u32>()) {
            let mut buffered = BytesMut::new();
            buffered.put_u8(flag);
            buffered.put_u32(length);
            match unframed(&mut buffered, 100) {
                Ok(_) => prop_assert!(flag == 0 && length <= 100),
                Err(CallError::Compressed) => prop_assert!(flag != 0),
                Err(CallError::TooLong { .. }) => prop_assert!(length > 100),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }

        #[test]
        fn no_message_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = printable(&bytes);
        }
    }
}

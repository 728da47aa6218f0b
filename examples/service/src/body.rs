//! Response bodies and the query.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

/// What a body may fail with.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A response body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Failure>;

/// A body in hand.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A response of this type.
pub(crate) fn typed(content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub(crate) fn json(value: &Value) -> Response<Body> {
    typed("application/json", format!("{value:#}\n"))
}

/// A response that says what the client did wrong.
pub(crate) fn refusal(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = typed("text/plain; charset=utf-8", text.into() + "\n");
    *response.status_mut() = status;
    response
}

/// The number that the query gives for `name`.
pub(crate) fn number(uri: &Uri, name: &str) -> Option<u64> {
    let mut pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// The answer to a request whose query gives no number for `name`.
pub(crate) fn needs_number(name: &str) -> Response<Body> {
    refusal(StatusCode::BAD_REQUEST, format!("the query needs a number: ?{name}=1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_gives_numbers() {
        let uri: Uri = "/download?x=1&bytes=20".parse().unwrap();
        assert_eq!(number(&uri, "bytes"), Some(20));
        for text in ["/download", "/download?bytes", "/download?bytes=-1", "/download?bytes=x"] {
            assert_eq!(number(&text.parse().unwrap(), "bytes"), None, "{text}");
        }
    }
}

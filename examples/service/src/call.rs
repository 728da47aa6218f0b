//! Calls another service: one HTTP/1.1 connection per call, as small as it can be.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::body::Failure;

/// Headers that an application passes on, so that its calls belong to the request that caused them.
const PASSED_ON: [HeaderName; 4] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("end-user"),
    HeaderName::from_static("x-canary"),
];

/// Time for a whole call.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is taken in, in bytes.
const LARGEST: usize = 1 << 20;

/// On whose behalf calls are made.
pub(crate) struct Caller {
    via: Option<SocketAddr>,
    headers: HeaderMap,
}

impl Caller {
    /// Calls for a request with these headers, through the address `via` if there is one.
    pub(crate) fn new(via: Option<SocketAddr>, headers: &HeaderMap) -> Self {
        let mut kept = HeaderMap::new();
        for name in PASSED_ON {
            for value in headers.get_all(&name) {
                kept.append(name.clone(), value.clone());
            }
        }
        Self { via, headers: kept }
    }

    fn request(&self, url: &Uri) -> Result<Request<Empty<Bytes>>, Failure> {
        let authority = url.authority().ok_or("the URL has no host")?;
        let target = url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(target).body(Empty::new())?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
        Ok(request)
    }

    async fn connect(&self, url: &Uri) -> Result<TcpStream, Failure> {
        let stream = match self.via {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((url.host().unwrap_or_default(), url.port_u16().unwrap_or(80))).await,
        };
        stream.map_err(|error| format!("cannot connect: {error}").into())
    }

    async fn send(&self, url: &Uri) -> Result<Value, Failure> {
        let request = self.request(url)?;
        let stream = self.connect(url).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        driver.abort();
        let bytes = body?.to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&bytes).into_owned());
        Ok(json!({ "status": status, "body": serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) }))
    }
}

/// The answer of the service at `url` as status and body, or the error that there was instead.
pub(crate) async fn call(caller: &Caller, url: &Uri) -> Value {
    match tokio::time::timeout(PATIENCE, caller.send(url)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(_) => json!({ "error": format!("no answer within {} s", PATIENCE.as_secs()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_headers_are_passed_on() {
        let mut headers = HeaderMap::new();
        for name in ["traceparent", "tracestate", "end-user", "x-canary", "authorization", "x-api-key"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        let request = Caller::new(None, &headers).request(&"http://a:1/b?c".parse().unwrap()).unwrap();
        assert_eq!(request.headers().len(), 5);
        assert!(
            !request.headers().contains_key("authorization") && !request.headers().contains_key("x-api-key")
        );
        assert_eq!(request.headers()[HOST], "a:1");
        assert_eq!(request.uri(), "/b?c");
    }
}

//! One request and its answer over a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::timeout;
use towpath_gateway_core::BoxIo;

use crate::PlaneError;

/// The longest answer that is read, in bytes: the longest configuration (64 MiB) with room for its escapes.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// The detail that a refusal carries (RFC 9457).
#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem {
    detail: String,
}

/// Sends `request` on `io` and reads the whole answer, within `limit`.
pub(crate) async fn exchange(
    address: &str,
    io: BoxIo,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Response<Bytes>, PlaneError> {
    match timeout(limit, converse(io, with_host(address, request))).await {
        Ok(Ok(response)) => accept(address, response),
        Ok(Err(why)) => Err(PlaneError::Broken { address: address.to_owned(), cause: why.to_string() }),
        Err(_) => Err(PlaneError::Timeout { address: address.to_owned(), after: limit }),
    }
}

fn with_host(address: &str, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    if let Ok(host) = HeaderValue::from_str(address) {
        request.headers_mut().insert(HOST, host);
    }
    request
}

async fn converse(
    io: BoxIo,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // Polled here rather than spawned: dropping this future closes the connection.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(why) => Err(why.into()),
        },
    }
}

fn accept(address: &str, response: Response<Bytes>) -> Result<Response<Bytes>, PlaneError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let problem: Problem = serde_json::from_slice(response.body()).unwrap_or_default();
    let detail = if problem.detail.is_empty() {
        "it did not say why; is it a control plane?".to_owned()
    } else {
        problem.detail
    };
    Err(PlaneError::Refused { address: address.to_owned(), status, detail })
}

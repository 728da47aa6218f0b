//! `POST /v1/certificates`: a certificate for the caller's own id.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use towpath_ca::{IssueError, SigningAnswer, SigningRequest};
use towpath_gateway_core::{Body, Response, SpiffeId};

use crate::plane::Parts;
use crate::plane_id;
use crate::refusal::Refusal;

/// The longest body, in bytes: a request of an RSA 4096 key has about 2 KiB.
const MAX_BODY: usize = 32 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn sign(plane: &Parts, caller: &SpiffeId, body: Body) -> Result<Response, Refusal> {
    // Who could have this id could hand out configuration and roots to everybody.
    if plane_id(plane.authority.domain()).is_ok_and(|own| own == *caller) {
        let detail = format!("{caller} is the control plane's own identity and is not handed out");
        return Err(Refusal::new(StatusCode::FORBIDDEN, detail));
    }
    let request: SigningRequest = serde_json::from_slice(&read(body).await?).map_err(|why| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("send a JSON object with the field `csr` (PEM): {why}"))
    })?;
    let chain = plane.authority.issue(request.csr.as_bytes(), caller, plane.ttl).map_err(refuse)?;
    let bundle = plane.authority.bundle().map_err(internal)?;
    json(&SigningAnswer::new(&chain, &bundle))
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(why)) if why.is::<LengthLimitError>() => {
            let detail = format!("a signing request has at most {MAX_BODY} bytes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(why)) => Err(Refusal::new(StatusCode::BAD_REQUEST, why.to_string())),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("no body within {BODY_TIMEOUT:?}"))),
    }
}

fn refuse(why: IssueError) -> Refusal {
    match why {
        IssueError::Csr(_) => Refusal::new(StatusCode::BAD_REQUEST, why.to_string()),
        IssueError::OtherDomain { .. } => Refusal::new(StatusCode::FORBIDDEN, why.to_string()),
        IssueError::Lifetime | IssueError::RootExpired | IssueError::Crypto(_) => internal(why),
    }
}

fn internal(why: impl std::fmt::Display) -> Refusal {
    tracing::error!(%why, "the control plane cannot sign");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane cannot sign; see its log")
}

fn json(answer: &impl Serialize) -> Result<Response, Refusal> {
    let text = serde_json::to_vec(answer).map_err(internal)?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

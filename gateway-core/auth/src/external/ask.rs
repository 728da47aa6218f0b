//! The asking: one call to the service, within its time.

use std::future::poll_fn;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tower_service::Service;
use towpath_gateway_core::{Body, Connection, Context, Fault, GrpcStatus, Request, Response, is_grpc};

use super::answer::ExternalVerdict;
use super::{ExternalAuth, ExternalAuthProtocol, grpc, http as plain};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// Asks the service of `auth` about a request: its head, whose extensions hold its [`Context`], and as much of its body as
/// the service may see. An error, named [`ExternalAuthFailed`](towpath_gateway_core::Reason::ExternalAuthFailed), means
/// that it could not be asked.
///
/// The call has a record of its own, below the request's, with the service as its backend: `service` is what every other
/// backend is reached by.
pub async fn ask_external<A>(
    service: A,
    auth: &ExternalAuth,
    head: &Parts,
    body: &Bytes,
) -> Result<ExternalVerdict, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let question = question(auth, head, body).ok_or_else(|| auth.failed("the path makes no target"))?;
    Ok(match in_time(service, auth, question).await? {
        ExternalVerdict::Deny(response) if is_grpc(&head.headers) => {
            ExternalVerdict::Deny(trailers_only(&response))
        }
        verdict => verdict,
    })
}

/// Asks the service of `auth`, which speaks [`Grpc`](ExternalAuthProtocol::Grpc), whether a connection may go on that
/// carries no HTTP. It is told addresses, identities and the server name. An error, named
/// [`ExternalAuthFailed`](towpath_gateway_core::Reason::ExternalAuthFailed), means that it could not be asked.
pub async fn ask_external_connection<A>(
    service: A,
    auth: &ExternalAuth,
    connection: &Connection,
) -> Result<bool, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    if !matches!(auth.protocol, ExternalAuthProtocol::Grpc { .. }) {
        return Err(auth.failed("a service that speaks HTTP is asked about requests alone"));
    }
    let mut question = grpc::connection_question(connection, authority(auth));
    question.extensions_mut().insert(record(None, auth));
    Ok(matches!(in_time(service, auth, question).await?, ExternalVerdict::Allow(_)))
}

async fn in_time<A>(service: A, auth: &ExternalAuth, question: Request) -> Result<ExternalVerdict, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    match timeout(auth.timeout, answered(service, auth, question)).await {
        Ok(verdict) => verdict,
        Err(_) => Err(auth.failed(format!("no answer within {:?}", auth.timeout))),
    }
}

fn question(auth: &ExternalAuth, head: &Parts, body: &Bytes) -> Option<Request> {
    let context = Context::find(&head.extensions);
    let mut question = match &auth.protocol {
        ExternalAuthProtocol::Http { path_prefix, allowed_headers, .. } => {
            plain::question(head, body, path_prefix, allowed_headers)?
        }
        ExternalAuthProtocol::Grpc { allowed_headers } => {
            let connection = context.and_then(Context::connection).map(|connection| &**connection);
            grpc::question(head, body, connection, allowed_headers, authority(auth), SystemTime::now())
        }
    };
    question.extensions_mut().insert(record(context, auth));
    Some(question)
}

/// The service's name with its port, without the namespace that backends have in front.
fn authority(auth: &ExternalAuth) -> &str {
    auth.backend.name.rsplit('/').next().unwrap_or_default()
}

fn record(context: Option<&Context>, auth: &ExternalAuth) -> Context {
    let record = context.map_or_else(Context::new, Context::child);
    // Fresh slots take what is written first.
    if let Some(trace) = context.and_then(Context::trace) {
        let _ = record.set_trace(*trace);
    }
    let _ = record.set_backend(auth.backend.clone());
    record
}

async fn answered<A>(mut service: A, auth: &ExternalAuth, question: Request) -> Result<ExternalVerdict, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let failed = |error: A::Error| auth.failed("the service could not be reached").with_source(error.into());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let answer = service.call(question).await.map_err(failed)?;
    match &auth.protocol {
        ExternalAuthProtocol::Http { allowed_response_headers, .. } => match answer.status() {
            StatusCode::OK => {
                let (head, body) = answer.into_parts();
                // Read to its end, so that the connection can be used again; what it says is nobody's.
                let _ = Limited::new(body, MAX_ANSWER).collect().await;
                Ok(ExternalVerdict::Allow(plain::changes(&head.headers, allowed_response_headers)))
            }
            status if status.is_server_error() => Err(auth.failed(format!("the service answered {status}"))),
            _ => Ok(ExternalVerdict::Deny(plain::refusal(answer))),
        },
        ExternalAuthProtocol::Grpc { .. } => grpc_verdict(auth, answer).await,
    }
}

async fn grpc_verdict(auth: &ExternalAuth, answer: Response) -> Result<ExternalVerdict, Fault> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK || !is_grpc(&head.headers) {
        return Err(auth.failed(format!("the service answered {}, and not as gRPC", head.status)));
    }
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| auth.failed("the service's answer broke off").with_source(error))?;
    let trailers = body.trailers().cloned();
    let trailers = trailers.unwrap_or(head.headers);
    grpc::verdict(&body.to_bytes(), &trailers)
        .map_err(|error| auth.failed(format!("the service's answer: {error}")))
}

/// A refusal for a gRPC client. What has a meaning to it besides the status stays.
fn trailers_only(refusal: &Response) -> Response {
    let mut response = Response::new(Body::empty());
    let headers: &mut HeaderMap = response.headers_mut();
    for name in [WWW_AUTHENTICATE, LOCATION, SET_COOKIE] {
        for value in refusal.headers().get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", GrpcStatus::of_http(refusal.status()).code().into());
    response
}

//! The asking: one call to the service, within its time.

use std::future::{Future, poll_fn};
use std::time::SystemTime;

use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;
use towpath_gateway_core::{Body, Connection, Context, Fault, GrpcStatus, Request, Response, is_grpc};

use super::answer::{ExternalChanges, ExternalVerdict};
use super::grpc::Shown;
use super::proto::CheckResponse;
use super::{
    ExternalAuth, ExternalAuthProtocol, ExternalBody, ExternalHttp, grpc, grpc_answer, http as plain,
};

/// Bytes of a 200 by HTTP that are read: they are nobody's.
const MAX_ANSWER: usize = 64 << 10;

/// Bytes of a refusal that are read, and of an answer by gRPC, which may be one.
const MAX_REFUSAL: usize = 1 << 20;

/// Asks the service of `auth` about a request: its head, whose extensions hold its [`Context`], and as much of its body as
/// the service may see. An error, named [`ExternalAuthFailed`](towpath_gateway_core::Reason::ExternalAuthFailed), means
/// that it could not be asked, which with [`fail_open`](ExternalAuth::fail_open) lets pass, or that what it asks for cannot
/// be done.
///
/// The call has a record of its own, below the request's, with the service as its backend: `service` is what every other
/// backend is reached by.
pub async fn ask_external<A>(
    service: A,
    auth: &ExternalAuth,
    head: &Parts,
    body: &ExternalBody,
) -> Result<ExternalVerdict, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let answer = match question(auth, head, body) {
        Some(question) => answered(service, auth, head, question).await,
        None => Err(auth.failed("the path makes no target")),
    };
    let verdict = match answer {
        Ok(Answer::Http(verdict)) => verdict,
        Ok(Answer::Grpc(response)) => grpc_answer::verdict(response, head, connection(head))
            .map_err(|why| auth.failed(format!("the service's answer: {why}")))?,
        Ok(Answer::TooLong) => return Err(auth.failed("the service's answer has more than 1 MiB")),
        Err(_) if auth.fail_open => ExternalVerdict::Allow(unasked(auth, head)),
        Err(fault) => return Err(fault),
    };
    Ok(match verdict {
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
    let until = Instant::now() + auth.timeout;
    let answer = in_time(auth, until, called(service, auth, question)).await??;
    Ok(in_time(auth, until, grpc_message(auth, answer))
        .await??
        .is_some_and(|answer| grpc_answer::allows(&answer)))
}

async fn in_time<T>(auth: &ExternalAuth, until: Instant, work: impl Future<Output = T>) -> Result<T, Fault> {
    let late = |_| auth.failed(format!("no answer within {:?}", auth.timeout));
    timeout_at(until, work).await.map_err(late)
}

fn connection(head: &Parts) -> Option<&Connection> {
    Context::find(&head.extensions).and_then(Context::connection).map(|connection| &**connection)
}

fn question(auth: &ExternalAuth, head: &Parts, body: &ExternalBody) -> Option<Request> {
    let partial = (auth.partial_body && !body.bytes.is_empty()).then_some(body.partial);
    let mut question = match &auth.protocol {
        ExternalAuthProtocol::Http(http) => plain::question(head, &body.bytes, partial, http)?,
        ExternalAuthProtocol::Grpc { allowed_headers } => {
            let shown = Shown { bytes: &body.bytes, partial, raw: auth.raw_body };
            grpc::question(head, shown, connection(head), allowed_headers, authority(auth), SystemTime::now())
        }
    };
    question.extensions_mut().insert(record(Context::find(&head.extensions), auth));
    Some(question)
}

/// What changes about a request that passes unasked.
fn unasked(auth: &ExternalAuth, head: &Parts) -> ExternalChanges {
    let withheld = match &auth.protocol {
        ExternalAuthProtocol::Http(http) => plain::reserved(http, &head.headers),
        ExternalAuthProtocol::Grpc { .. } => Vec::new(),
    };
    ExternalChanges { withheld, ..ExternalChanges::default() }
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

/// What the service said, by its protocol.
enum Answer {
    Http(ExternalVerdict),
    Grpc(CheckResponse),
    TooLong,
}

async fn answered<A>(
    service: A,
    auth: &ExternalAuth,
    head: &Parts,
    question: Request,
) -> Result<Answer, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let until = Instant::now() + auth.timeout;
    let answer = in_time(auth, until, called(service, auth, question)).await??;
    Ok(match &auth.protocol {
        ExternalAuthProtocol::Http(http) => {
            Answer::Http(http_verdict(auth, http, head, until, answer).await?)
        }
        ExternalAuthProtocol::Grpc { .. } => {
            let message = in_time(auth, until, grpc_message(auth, answer)).await??;
            message.map_or(Answer::TooLong, Answer::Grpc)
        }
    })
}

async fn called<A>(mut service: A, auth: &ExternalAuth, question: Request) -> Result<Response, Fault>
where
    A: Service<Request, Response = Response, Error: Into<Fault>>,
{
    let failed = |error: A::Error| auth.failed("the service could not be reached").with_source(error.into());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    service.call(question).await.map_err(failed)
}

async fn http_verdict(
    auth: &ExternalAuth,
    http: &ExternalHttp,
    asked: &Parts,
    until: Instant,
    answer: Response,
) -> Result<ExternalVerdict, Fault> {
    let (head, body) = answer.into_parts();
    if head.status == StatusCode::OK {
        // Read to its end, so that the connection can be used again; what it says is nobody's.
        let _ = in_time(auth, until, Limited::new(body, MAX_ANSWER).collect()).await?;
        return Ok(ExternalVerdict::Allow(plain::changes(&head.headers, http, &asked.headers)));
    }
    if head.status.is_server_error() {
        return Err(auth.failed(format!("the service answered {}", head.status)));
    }
    // A refusal stays one, even if its body does not come.
    let body = in_time(auth, until, Limited::new(body, MAX_REFUSAL).collect()).await;
    let body = body.ok().and_then(Result::ok).map(Collected::to_bytes);
    Ok(ExternalVerdict::Deny(plain::refusal(head, body, &http.of_refusal)))
}

/// `None`: it is longer than what is read. It may be a refusal, and does not let pass, whatever else is said.
async fn grpc_message(auth: &ExternalAuth, answer: Response) -> Result<Option<CheckResponse>, Fault> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK || !is_grpc(&head.headers) {
        return Err(auth.failed(format!("the service answered {}, and not as gRPC", head.status)));
    }
    let body = match Limited::new(body, MAX_REFUSAL).collect().await {
        Ok(body) => body,
        Err(error) if error.is::<LengthLimitError>() => return Ok(None),
        Err(error) => return Err(auth.failed("the service's answer broke off").with_source(error)),
    };
    let trailers = body.trailers().cloned();
    let trailers = trailers.unwrap_or(head.headers);
    grpc_answer::message(&body.to_bytes(), &trailers)
        .map(Some)
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

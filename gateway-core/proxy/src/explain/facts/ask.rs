//! Sends one request through a sidecar in memory, and tells what became of it.

use std::collections::BTreeMap;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::header::HOST;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::{Layer, Service, ServiceExt, service_fn};
use towpath_auth::{Action, ConnectionAuthorizeLayer, Facts, Http, HttpFacts};
use towpath_gateway_core::{
    Accepted, Body, Connection, Context, Fault, Flow, HttpService, Live, Reason, Request, Response, TlsFacts,
    TlsVersion,
};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_server::{Drain, Limits, Serve};
use towpath_stacks::{Parts, Side, explain, gateway, sidecar_inbound};

use super::read::{Fact, Provider};
use super::{Sidecar, Status};
use crate::listener::{entry, inbound_routes};

/// What became of a request.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) decision: &'static str,
    pub(super) status: Status,
    /// The policy that decided.
    pub(super) policy: Option<String>,
    /// The rule of that policy, counted from 0.
    pub(super) rule: Option<usize>,
    pub(super) reason: String,
    effective_mode: &'static str,
    /// What arrives at the application.
    upstream_headers: Option<BTreeMap<String, String>>,
    /// The target in the form that policies see and the application gets.
    upstream_path: Option<String>,
    /// The AUDIT policy that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<String>,
    /// What policies in dry-run would decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<DryRun>,
}

#[derive(Debug, Serialize)]
struct DryRun {
    decision: &'static str,
    policy: Option<String>,
}

pub(super) async fn ask(sidecar: &Sidecar, fact: &Fact) -> Answer {
    let connection = match connection(fact, sidecar) {
        Ok(connection) => connection,
        Err(reason) => return Answer::reset(sidecar, reason),
    };
    if fact.is_http() {
        request(sidecar, fact, connection).await
    } else {
        flow(sidecar, fact, connection).await
    }
}

/// The connection, as the sidecar's mTLS hands it on; an error if it does not.
fn connection(fact: &Fact, sidecar: &Sidecar) -> Result<Connection, &'static str> {
    let identity = fact.principal().ok().flatten();
    if identity.is_none() && !sidecar.mode.takes_plaintext() {
        return Err("the mode is STRICT, and the peer speaks plaintext");
    }
    if identity.is_some() && !sidecar.mode.takes_mtls() {
        return Err("the mode is DISABLE, and the peer speaks mTLS");
    }
    let peer = SocketAddr::new(fact.ip(), 0);
    let local = SocketAddr::new(fact.destination_ip(), fact.port());
    let mut connection = Connection::plaintext(peer, local);
    let server_name = fact.server_name();
    if identity.is_some() || server_name.is_some() {
        let server_name = server_name.map(Into::into);
        connection.tls = Some(TlsFacts {
            version: TlsVersion::Tls13,
            server_name,
            alpn: None,
            identity,
            forwarded_cert: None,
        });
    }
    Ok(connection)
}

/// What is learned on the way.
#[derive(Default)]
struct Seen {
    context: Option<Context>,
    /// Target and headers at the application.
    arrived: Option<(String, BTreeMap<String, String>)>,
}

type Learned = Arc<Mutex<Seen>>;

fn note(learned: &Learned, note: impl FnOnce(&mut Seen)) {
    note(&mut learned.lock().unwrap_or_else(PoisonError::into_inner));
}

async fn request(sidecar: &Sidecar, fact: &Fact, connection: Connection) -> Answer {
    let learned = Learned::default();
    let entry = entry(inbound_routes(&sidecar.listener), &sidecar.guard, fact.port());
    let parts = Parts {
        recorder: Recorder::new(ProcessFacts::default(), Metrics::new().shard(), AccessLog::off()),
        limits: Arc::new(Store::new()),
        upstream: upstream(fact.provider(), Arc::clone(&sidecar.listener.name), Arc::clone(&learned)),
    };
    let stack = match fact.trusted_proxies() {
        Some(_) => HttpService::new(gateway(parts, entry)),
        None => HttpService::new(sidecar_inbound(parts, entry)),
    };
    let watch = Arc::clone(&learned);
    let watched = stack.map_request(move |mut request: Request| {
        let context = Context::of(request.extensions_mut());
        note(&watch, |seen| seen.context = Some(context));
        request
    });
    let mut serve = Serve::new(watched, Limits::mesh(), Drain::new(Duration::ZERO));
    let (mut client, server) = duplex(64 << 10);
    let served = serve.call(Accepted { io: Box::new(server), connection });
    let bytes = fact.bytes();
    let talk = async {
        let mut answer = Vec::new();
        // A head that is refused early closes the connection under what is still being written.
        let _ = client.write_all(&bytes).await;
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    let (_, answer) = tokio::join!(served, talk);
    let seen = std::mem::take(&mut *learned.lock().unwrap_or_else(PoisonError::into_inner));
    let target = match &seen.arrived {
        Some((target, _)) => Some(target.clone()),
        None => judged(sidecar, fact),
    };
    Answer { upstream_path: target, ..Answer::to_request(sidecar, seen, status(&answer)) }
}

/// The form in which policies judge a request that does not arrive.
fn judged(sidecar: &Sidecar, fact: &Fact) -> Option<String> {
    let side = if fact.trusted_proxies().is_some() { Side::Edge } else { Side::Mesh };
    let routes = inbound_routes(&sidecar.listener);
    let explained = explain(side, sidecar.guard.normalization, &routes, fact.head()?);
    explained.ok().map(|explained| explained.target)
}

/// What one policy has to say.
#[derive(Debug, Serialize)]
pub(super) struct Match {
    pub(super) action: String,
    pub(super) policy: String,
    /// The rule that matches, counted from 0.
    pub(super) rule: Option<usize>,
}

/// What every policy in force has to say about a request; `None` where it does not come to that, for the connection is
/// refused.
pub(super) fn matches(sidecar: &Sidecar, fact: &Fact) -> Option<Vec<Match>> {
    let (connection, request) = (connection(fact, sidecar).ok()?, fact.head()?);
    let target = judged(sidecar, fact).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let (mut parts, ()) = request.into_parts();
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(ToOwned::to_owned);
    let method = parts.method.to_string();
    let (headers, query) = (parts.headers.clone(), parts.uri.query().map(ToOwned::to_owned));
    let token = sidecar.guard.authentication.authenticate(&mut parts, SystemTime::now()).ok().flatten();
    let with = |http| Facts {
        principal: connection.identity(),
        source_ip: Some(connection.peer.ip()),
        remote_ip: Some(connection.peer.ip()),
        destination_ip: Some(connection.local.ip()),
        port: Some(fact.port()),
        server_name: connection.server_name(),
        http: Http::Request(http),
    };
    let (method, host, path) = (&*method, host.as_deref(), &*path);
    // CUSTOM policies are asked before the token is looked for.
    let first = HttpFacts { method, host, path, query: query.as_deref(), headers: &headers, token: None };
    let (query, headers) = (parts.uri.query(), &parts.headers);
    let then = HttpFacts { method, host, path, query, headers, token: token.as_ref() };
    let (first, then) = (with(first), with(then));
    let policies = &sidecar.guard.authorization;
    let told =
        policies.matches(&first).zip(policies.matches(&then)).map(|((policy, first), (_, then))| Match {
            action: policy.action.to_string(),
            policy: policy.name.to_string(),
            rule: if policy.action == Action::Custom { first } else { then },
        });
    Some(told.collect())
}

/// The status of an answer of HTTP/1.1.
fn status(answer: &[u8]) -> Option<StatusCode> {
    StatusCode::from_bytes(answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()
}

/// Stands for the application, and for authorizers that are asked.
fn upstream(provider: Option<Provider>, app: Arc<str>, learned: Learned) -> HttpService {
    HttpService::new(service_fn(move |request: Request| {
        let backend = Context::find(request.extensions())
            .and_then(Context::backend)
            .map(|backend| Arc::clone(&backend.name));
        let answer = if backend.as_deref() == Some(&*app) {
            note(&learned, |seen| seen.arrived = Some(arrived(&request)));
            Ok(Response::new(Body::empty()))
        } else {
            decided(provider, &request)
        };
        ready(answer)
    }))
}

fn arrived(request: &Request) -> (String, BTreeMap<String, String>) {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let joined = headers.entry(name.to_string()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(&value);
    }
    (target, headers)
}

/// What an authorizer says, in the protocol that it was asked in.
fn decided(provider: Option<Provider>, question: &Request) -> Result<Response, Fault> {
    let allowed = match provider {
        Some(Provider::Allow) => true,
        Some(Provider::Deny) => false,
        None => {
            return Err(Fault::new(Reason::ConnectFailed).with_detail("the facts do not say what it answers"));
        }
    };
    if towpath_gateway_core::is_grpc(question.headers()) {
        // A `CheckResponse` in its frame, with the status OK or PERMISSION_DENIED (gRPC over HTTP/2).
        let message: &'static [u8] =
            if allowed { &[0, 0, 0, 0, 2, 10, 0] } else { &[0, 0, 0, 0, 4, 10, 2, 8, 7] };
        let mut answer = Response::new(Body::from(Bytes::from_static(message)));
        let headers = answer.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", http::HeaderValue::from_static("0"));
        return Ok(answer);
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
    Ok(answer)
}

async fn flow(sidecar: &Sidecar, fact: &Fact, connection: Connection) -> Answer {
    let context = Context::on(Arc::new(connection));
    let authorizers = upstream(fact.provider(), Arc::clone(&sidecar.listener.name), Learned::default());
    let policies = Live::new(sidecar.guard.authorization.clone());
    let layer = ConnectionAuthorizeLayer::tcp(policies).port(fact.port()).asking(authorizers);
    let passed = layer.layer(service_fn(|_: Flow<()>| ready(Ok::<_, Fault>(()))));
    let ended = passed.oneshot(Flow { context: context.clone(), io: () }).await;
    let (decision, status) = match ended {
        Ok(()) => ("allow", "open"),
        Err(fault) => {
            let _ = context.set_fault(fault);
            ("deny", "reset")
        }
    };
    Answer { decision, status: Status::Connection(status), ..Answer::of(sidecar, Some(&context)) }
}

impl Answer {
    /// With what the record of the request says.
    fn of(sidecar: &Sidecar, context: Option<&Context>) -> Self {
        let decision = context.and_then(Context::decision);
        let fault = context.and_then(Context::fault);
        let by_fault = fault.and_then(Fault::policy).map(ToString::to_string);
        let decided = || decision.and_then(|decision| decision.policy.as_ref()).map(ToString::to_string);
        let detail = fault.map(|fault| match fault.detail() {
            "" => fault.reason().label().to_owned(),
            detail => detail.to_owned(),
        });
        let dry_run = decision.and_then(|decision| decision.dry_run.as_ref());
        Self {
            decision: "deny",
            status: Status::Connection("reset"),
            policy: by_fault.or_else(decided),
            rule: decision.and_then(|decision| decision.rule),
            reason: detail.or_else(|| Some(decision?.why.to_owned())).unwrap_or_default(),
            effective_mode: sidecar.mode.as_str(),
            upstream_headers: None,
            upstream_path: None,
            audit: decision.and_then(|decision| decision.audit.as_ref()).map(ToString::to_string),
            dry_run: dry_run.map(|told| DryRun {
                decision: if told.allowed { "allow" } else { "deny" },
                policy: told.policy.as_ref().map(ToString::to_string),
            }),
        }
    }

    fn reset(sidecar: &Sidecar, reason: &str) -> Self {
        Self { reason: reason.to_owned(), ..Self::of(sidecar, None) }
    }

    fn to_request(sidecar: &Sidecar, seen: Seen, status: Option<StatusCode>) -> Self {
        let told = Self::of(sidecar, seen.context.as_ref());
        let Some(status) = status else { return told };
        let decision = match (&seen.arrived, status) {
            (Some(_), _) => "allow",
            (None, StatusCode::UNAUTHORIZED) => "401",
            (None, _) => "deny",
        };
        let reason = match told.reason {
            reason if reason.is_empty() && seen.arrived.is_none() => {
                "the request is not one of HTTP".to_owned()
            }
            reason => reason,
        };
        let upstream_headers = seen.arrived.map(|(_, headers)| headers);
        Self { decision, status: Status::Http(status.as_u16()), reason, upstream_headers, ..told }
    }
}

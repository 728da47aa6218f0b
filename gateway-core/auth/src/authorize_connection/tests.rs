use std::convert::Infallible;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::{ServiceExt, service_fn};

use bytes::Bytes;
use towpath_gateway_core::{Backend, Body, Request, Response};

use super::*;
use crate::{Action, AuthorizationRule, ExternalAuthProtocol, ExternalHttp, Operation, Pattern, Values};

fn allow(operation: Operation) -> Live<AuthorizationPolicies> {
    let rule = AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() };
    let policy = AuthorizationPolicy::new("shop/p", Action::Allow, vec![rule]);
    Live::new(AuthorizationPolicies::new(vec![policy]))
}

fn gets() -> Operation {
    Operation { methods: Values::is(vec![Pattern::new("GET")]), ..Operation::default() }
}

fn port(port: u16) -> Operation {
    Operation { ports: Values::is(vec![port]), ..Operation::default() }
}

/// What the client of a connection to port 8080 reads.
async fn greeting(layer: &ConnectionAuthorizeLayer) -> String {
    let service = layer.layer(service_fn(|mut accepted: Accepted| async move {
        accepted.io.write_all(b"hello").await.unwrap();
        Ok::<_, Infallible>(())
    }));
    let (mut client, server) = duplex(64);
    let (peer, local) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
    let connection = Connection::plaintext(peer, local);
    service.oneshot(Accepted { io: Box::new(server), connection }).await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn tcp_knows_no_methods_and_http_may_still_pass() {
    assert_eq!(greeting(&ConnectionAuthorizeLayer::tcp(allow(gets()))).await, "");
    assert_eq!(greeting(&ConnectionAuthorizeLayer::before_http(allow(gets()))).await, "hello");
}

#[tokio::test]
async fn the_port_is_the_listeners_unless_given() {
    for layer in [ConnectionAuthorizeLayer::tcp, ConnectionAuthorizeLayer::before_http] {
        assert_eq!(greeting(&layer(allow(port(8080)))).await, "hello");
        assert_eq!(greeting(&layer(allow(port(9090)))).await, "");
        assert_eq!(greeting(&layer(allow(port(9090))).port(9090)).await, "hello");
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_its_verdict() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let layer = ConnectionAuthorizeLayer::tcp(allow(port(9090)))
        .on_refusal(move |peer, verdict| log.lock().unwrap().push((peer.peer.port(), verdict.ground)));
    greeting(&layer).await;
    greeting(&layer.clone().port(9090)).await;
    assert_eq!(*told.lock().unwrap(), [(4000, crate::Ground::NothingAllows)]);
}

/// A CUSTOM policy for connections to port 8080.
fn custom(name: &str, auth: Option<ExternalAuth>) -> AuthorizationPolicy {
    let rule = AuthorizationRule { to: vec![port(8080)], ..AuthorizationRule::default() };
    let mut policy = AuthorizationPolicy::new(name, Action::Custom, vec![rule]);
    policy.provider = auth.map(Arc::new);
    policy
}

fn asks(name: &str, backend: &str) -> ExternalAuth {
    let protocol = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
    ExternalAuth::new(name, Arc::new(Backend::unresolved(backend)), protocol)
}

/// Allows as the backend `yes`, refuses as `no`, is silent as `mute`, and cannot be reached otherwise.
fn authorizers(log: &Arc<Mutex<Vec<String>>>) -> HttpService {
    let log = Arc::clone(log);
    HttpService::new(service_fn(move |question: Request| {
        let context = Context::find(question.extensions()).unwrap();
        let backend = context.backend().unwrap().name.to_string();
        log.lock().unwrap().push(backend.clone());
        async move {
            let message: &'static [u8] = match &*backend {
                "yes" => &[0, 0, 0, 0, 2, 10, 0],
                "no" => &[0, 0, 0, 0, 4, 10, 2, 8, 7],
                "mute" => std::future::pending().await,
                _ => return Err(Fault::new(Reason::ConnectFailed)),
            };
            let mut answer = Response::new(Body::from(Bytes::from_static(message)));
            for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
                answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
            }
            Ok(answer)
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn whom_custom_policies_name_is_asked_about_connections_without_http() {
    let open = |backend: &str| ExternalAuth { fail_open: true, ..asks("p", backend) };
    let deny = || {
        let rule = AuthorizationRule { to: vec![port(8080)], ..AuthorizationRule::default() };
        AuthorizationPolicy::new("d", Action::Deny, vec![rule])
    };
    let by_http = ExternalAuthProtocol::Http(ExternalHttp::default());
    let http = ExternalAuth::new("p", Arc::new(Backend::unresolved("no")), by_http);
    for (policies, to, refused, asked) in [
        (vec![custom("p", Some(asks("p", "yes")))], 8080, None, vec!["yes"]),
        (vec![custom("p", Some(asks("p", "no")))], 8080, Some((Reason::ExternalDenied, "p")), vec!["no"]),
        (vec![custom("p", Some(asks("p", "no")))], 9090, None, vec![]),
        (
            vec![custom("p", Some(asks("p", "mute")))],
            8080,
            Some((Reason::ExternalAuthFailed, "p")),
            vec!["mute"],
        ),
        (
            vec![custom("p", Some(asks("p", "gone")))],
            8080,
            Some((Reason::ExternalAuthFailed, "p")),
            vec!["gone"],
        ),
        (vec![custom("p", Some(open("mute")))], 8080, None, vec!["mute"]),
        (vec![custom("p", Some(open("no")))], 8080, Some((Reason::ExternalDenied, "p")), vec!["no"]),
        (vec![custom("p", None)], 8080, Some((Reason::Denied, "p")), vec![]),
        (vec![custom("p", Some(http))], 8080, None, vec![]),
        (vec![custom("p", Some(asks("p", "yes"))), deny()], 8080, Some((Reason::Denied, "d")), vec!["yes"]),
        (
            vec![custom("p", Some(asks("p", "yes"))), custom("q", Some(asks("q", "no")))],
            8080,
            Some((Reason::ExternalDenied, "q")),
            vec!["yes", "no"],
        ),
    ] {
        let log = Arc::default();
        let live = Live::new(AuthorizationPolicies::new(policies.clone()));
        let layer = ConnectionAuthorizeLayer::tcp(live).asking(authorizers(&log)).port(to);
        let inner = service_fn(|_: Flow<()>| async { Ok::<_, Fault>(()) });
        let at = "127.0.0.1:1".parse().unwrap();
        let context = Context::on(Arc::new(Connection::plaintext(at, at)));
        let ended = layer.layer(inner).oneshot(Flow { context, io: () }).await.err();
        let fault = ended.as_ref().map(|fault| (fault.reason(), &**fault.policy().unwrap()));
        assert_eq!(fault, refused, "{policies:?}");
        assert_eq!(*log.lock().unwrap(), asked);
        let greeted = greeting(&layer).await;
        assert_eq!(greeted.is_empty(), refused.is_some(), "{policies:?}");
    }
}

#[tokio::test]
async fn without_a_way_to_ask_a_matching_policy_refuses() {
    let policies = || Live::new(AuthorizationPolicies::new(vec![custom("p", Some(asks("p", "yes")))]));
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let layer = ConnectionAuthorizeLayer::tcp(policies())
        .on_refusal(move |_, verdict| log.lock().unwrap().push((verdict.policy.clone(), verdict.ground)));
    assert_eq!(greeting(&layer).await, "");
    assert_eq!(*told.lock().unwrap(), [(Some("p".into()), Ground::AuthorizerFailed)]);
    assert_eq!(greeting(&ConnectionAuthorizeLayer::before_http(policies())).await, "hello");
}

#[tokio::test]
async fn a_flow_is_refused_with_the_name_of_the_policy() {
    let at = "127.0.0.1:8080".parse().unwrap();
    for (allowed, wanted) in [(8080, None), (9090, Some("shop/p"))] {
        let context = Context::on(Arc::new(Connection::plaintext(at, at)));
        let inner = service_fn(|_: Flow<()>| async { Ok::<_, Fault>(()) });
        let flow = Flow { context: context.clone(), io: () };
        let ended = ConnectionAuthorizeLayer::tcp(allow(port(allowed))).layer(inner).oneshot(flow).await;
        let fault = ended.err();
        assert_eq!(fault.as_ref().and_then(Fault::policy).map(|name| &**name), wanted);
        assert_eq!(fault.map(|fault| fault.reason()), wanted.map(|_| Reason::Denied));
        assert_eq!(context.decision().unwrap().allowed, wanted.is_none());
    }
}

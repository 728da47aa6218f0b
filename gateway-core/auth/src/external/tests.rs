//! Questions and answers of both protocols, without a connection.

use std::time::SystemTime;

use ::http::request::Parts;
use ::http::{HeaderMap, Request, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use proptest::prelude::*;
use prost::Message;
use towpath_gateway_core::{Body, Connection, TlsFacts, TlsVersion};

use super::grpc::Shown;
use super::proto::{
    BoolValue, CheckRequest, CheckResponse, DeniedResponse, HeaderLine, HeaderOption, HttpResponse,
    HttpStatus, OkResponse, QueryParameter, RpcStatus,
};
use super::*;

fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::post(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn names(names: &[&str]) -> Vec<HeaderName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(name)).collect()
}

/// A service of which these headers go on to the backend.
fn taking(names: &[&str]) -> ExternalHttp {
    ExternalHttp { to_backend: HeaderNames::Listed(patterns(names)), ..ExternalHttp::default() }
}

/// What becomes of a client's headers by a 200.
fn passed(answer: &[(&str, &str)], http: &ExternalHttp, client: &[(&str, &str)]) -> Vec<String> {
    let mut head = head("/", client);
    super::http::changes(&map(answer), http, &head.headers).to_request(&mut head);
    let mut seen = lines(&head.headers);
    seen.sort();
    seen
}

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    lines.iter().map(line).collect()
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn an_http_question_holds_what_is_listed_and_no_more() {
    let head = head(
        "/books?page=2",
        &[
            ("host", "a.example"),
            ("authorization", "Bearer x"),
            ("content-length", "99"),
            ("cookie", "a=1"),
            ("x-user", "me"),
            ("connection", "x-user"),
            ("transfer-encoding", "chunked"),
        ],
    );
    let allowed_headers = patterns(&["x-user", "connection", "transfer-encoding", "authorization"]);
    for (prefix, target) in
        [("", "/books?page=2"), ("/check", "/check/books?page=2"), ("/check/", "/check/books?page=2")]
    {
        let http = ExternalHttp {
            path_prefix: prefix.into(),
            allowed_headers: allowed_headers.clone(),
            ..ExternalHttp::default()
        };
        let question = super::http::question(&head, &Bytes::from("abc"), None, &http).unwrap();
        assert_eq!((question.method(), question.uri().to_string().as_str()), (&::http::Method::POST, target));
        let mut seen = lines(question.headers());
        seen.sort();
        let expected = ["authorization: Bearer x", "content-length: 3", "host: a.example", "x-user: me"];
        assert_eq!(seen, expected);
        assert_eq!(question.body().bytes().unwrap(), "abc");
    }
    let http = ExternalHttp { path_prefix: "a b".into(), ..ExternalHttp::default() };
    assert!(super::http::question(&head, &Bytes::new(), None, &http).is_none());
}

#[test]
fn an_http_question_holds_what_patterns_mean_and_what_is_added() {
    let head = head(
        "/",
        &[("x-a", "1"), ("x-key", "forged"), ("cookie", "a"), ("x-envoy-auth-partial-body", "false")],
    );
    for (allowed, partial, expected) in [
        (&["X-*"][..], None, &["x-a: 1", "x-key: own"][..]),
        (&["*A"], None, &["x-a: 1", "x-key: own"]),
        (&["*"], None, &["cookie: a", "x-a: 1", "x-key: own"]),
        (&[], Some(true), &["x-envoy-auth-partial-body: true", "x-key: own"]),
    ] {
        let http = ExternalHttp {
            allowed_headers: patterns(allowed),
            added_headers: map(&[("x-key", "own")]),
            ..ExternalHttp::default()
        };
        let question = super::http::question(&head, &Bytes::new(), partial, &http).unwrap();
        let mut seen = lines(question.headers());
        seen.sort();
        seen.retain(|line| line != "content-length: 0");
        assert_eq!(seen, expected, "{allowed:?}");
    }
}

#[test]
fn what_the_service_may_set_a_client_cannot_forge() {
    let answer = &[("x-user", "alice"), ("x-role", "a"), ("x-role", "b"), ("x-other", "1"), ("host", "evil")];
    let forged = &[("x-user", "root"), ("x-group", "wheel"), ("x-other", "2"), ("host", "a")];
    assert_eq!(
        passed(answer, &taking(&["x-user", "x-role", "x-group", "host"]), forged),
        ["host: a", "x-other: 2", "x-role: a", "x-role: b", "x-user: alice"]
    );
}

#[test]
fn credentials_that_are_checked_behind_it_go_on() {
    let sent = &[("authorization", "Bearer a"), ("cookie", "t=a"), ("x-token", "a"), ("x-user", "root")];
    let checked_later = vec!["x-token".parse().unwrap()];
    let http = ExternalHttp { checked_later, ..taking(&["authorization", "cookie", "x-*"]) };
    assert_eq!(passed(&[], &http, sent), ["authorization: Bearer a", "cookie: t=a", "x-token: a"]);
    assert_eq!(
        passed(&[("authorization", "Bearer b"), ("x-token", "b")], &http, sent),
        ["authorization: Bearer b", "cookie: t=a", "x-token: b"]
    );
}

#[test]
fn names_of_the_service_may_end_or_begin_in_anything() {
    for (listed, answer, client, expected) in [
        (
            &["x-auth-*"][..],
            &[("x-auth-user", "bob")][..],
            &[("x-auth-user", "spoof")][..],
            &["x-auth-user: bob"][..],
        ),
        (&["X-Auth-*"], &[], &[("x-auth-user", "spoof"), ("x-author", "1")], &["x-author: 1"]),
        (&["*-USER"], &[("x-user", "bob")], &[("x-user", "spoof"), ("y-user", "spoof")], &["x-user: bob"]),
        (
            &["*"],
            &[("x-user", "bob")],
            &[("x-user", "spoof"), ("cookie", "a")],
            &["cookie: a", "x-user: bob"],
        ),
        (
            &["*"],
            &[("content-type", "text/html"), ("date", "now")],
            &[("content-type", "a/b")],
            &["content-type: a/b"],
        ),
        (&["content-type"], &[("content-type", "c/d")], &[("content-type", "a/b")], &["content-type: c/d"]),
        (&[], &[("authorization", "evil"), ("cookie", "z")], &[("cookie", "a")], &["cookie: a"]),
    ] {
        assert_eq!(passed(answer, &taking(listed), client), expected, "{listed:?}");
    }
}

#[test]
fn what_proxies_say_is_replaced_by_name_alone() {
    let answer =
        &[("x-forwarded-client-cert", "evil"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-user", "bob")];
    let sent = &[("x-forwarded-client-cert", "By=a"), ("x-forwarded-for", "10.0.0.1")];
    let all = ExternalHttp { to_backend: HeaderNames::All, ..ExternalHttp::default() };
    for http in [&taking(&["*"]), &taking(&["x-forwarded-*"]), &all] {
        assert_eq!(
            passed(answer, http, sent),
            ["x-forwarded-client-cert: By=a", "x-forwarded-for: 10.0.0.1", "x-forwarded-user: bob"]
        );
    }
    assert_eq!(
        passed(answer, &taking(&["x-forwarded-client-cert"]), sent),
        ["x-forwarded-client-cert: evil", "x-forwarded-for: 10.0.0.1"]
    );
}

#[test]
fn without_a_list_all_but_what_is_the_answers_own_goes_on() {
    let answer = &[
        ("x-user", "alice"),
        ("content-type", "text/html"),
        ("content-length", "7"),
        ("date", "now"),
        ("host", "evil"),
        ("set-cookie", "s=1"),
        ("x-envoy-auth-headers-to-remove", "authorization, Cookie, host"),
    ];
    let sent =
        &[("authorization", "secret"), ("cookie", "a=1"), ("content-type", "text/plain"), ("host", "a")];
    let all = ExternalHttp { to_backend: HeaderNames::All, ..ExternalHttp::default() };
    assert_eq!(
        passed(answer, &all, sent),
        ["content-type: text/plain", "host: a", "set-cookie: s=1", "x-user: alice"]
    );
}

#[test]
fn what_is_removed_is_removed_last() {
    let answer = &[("x-user", "bob"), ("x-envoy-auth-headers-to-remove", "X-User")];
    assert!(passed(answer, &taking(&["x-user"]), &[("x-user", "spoof")]).is_empty());
}

#[test]
fn listed_headers_of_a_200_are_added_for_the_client() {
    let to_client = HeaderNames::Listed(patterns(&["set-cookie", "x-*"]));
    let http = ExternalHttp { to_client, ..ExternalHttp::default() };
    let answer = map(&[("set-cookie", "s=1"), ("set-cookie", "t=1"), ("x-a", "1"), ("connection", "x-a")]);
    let mut response = map(&[("set-cookie", "app=1"), ("x-a", "0")]);
    super::http::changes(&answer, &http, &HeaderMap::new()).to_response(&mut response);
    let mut seen = lines(&response);
    seen.sort();
    assert_eq!(seen, ["set-cookie: app=1", "set-cookie: s=1", "set-cookie: t=1", "x-a: 0", "x-a: 1"]);
}

fn refused(answer: Response<Body>, body: Option<&'static str>, names: &HeaderNames) -> Response<Body> {
    super::http::refusal(answer.into_parts().0, body.map(Bytes::from), names)
}

#[test]
fn a_client_sees_the_listed_headers_of_a_refusal_and_those_it_cannot_do_without() {
    let answer = || {
        let answer = Response::builder().status(401).header("x-why", "no").header("x-other", "1");
        let answer = answer.header("www-authenticate", "Basic").header("location", "/x");
        let answer = answer.header("connection", "x-why").header("content-length", "3");
        answer.header("content-type", "text/html").body(Body::empty()).unwrap()
    };
    let listed = HeaderNames::Listed(patterns(&["x-w*"]));
    let (all, none, any) = (HeaderNames::All, HeaderNames::NONE, HeaderNames::Listed(patterns(&["*"])));
    for (names, expected) in [
        (&listed, &["content-length", "content-type", "location", "www-authenticate", "x-why"][..]),
        (&none, &["content-length", "content-type", "location", "www-authenticate"]),
        (&all, &["content-length", "content-type", "location", "www-authenticate", "x-other", "x-why"]),
    ] {
        let response = refused(answer(), Some("<p>"), names);
        let mut seen: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected, "{names:?}");
    }
    assert_eq!(refused(answer(), Some("<p>"), &listed).headers()["content-type"], "text/plain");
    for names in [&all, &any] {
        assert_eq!(refused(answer(), Some("<p>"), names).headers()["content-type"], "text/html");
    }
    let cut = refused(answer(), None, &all);
    assert_eq!(cut.status(), 401);
    assert!(!cut.headers().contains_key("content-length") && !cut.headers().contains_key("content-type"));
}

#[test]
fn no_refusal_looks_like_a_success() {
    for (status, seen) in [(204, 403), (206, 403), (302, 302), (401, 401), (403, 403), (429, 429)] {
        let answer = Response::builder().status(status).body(Body::empty()).unwrap();
        assert_eq!(refused(answer, Some(""), &HeaderNames::All).status(), seen);
    }
}

fn asked(
    head: &Parts,
    shown: Shown<'_>,
    allowed: &[HeaderName],
    connection: Option<&Connection>,
) -> super::proto::Attributes {
    let question = grpc::question(head, shown, connection, allowed, "auth:9000", SystemTime::UNIX_EPOCH);
    assert_eq!(question.uri(), "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(question.headers()["content-type"], "application/grpc");
    let framed = question.body().bytes().unwrap();
    let length = u32::from_be_bytes(framed[1..5].try_into().unwrap());
    assert_eq!((framed[0], length as usize), (0, framed.len() - 5));
    CheckRequest::decode(&framed[5..]).unwrap().attributes.unwrap()
}

#[test]
fn a_grpc_question_says_who_asks_for_what() {
    let tls = TlsFacts {
        version: TlsVersion::Tls13,
        server_name: None,
        alpn: None,
        identity: Some("spiffe://td/ns/shop/sa/web".parse().unwrap()),
        forwarded_cert: Some("By=spiffe://td/ns/shop/sa/books;Hash=00".into()),
    };
    let (peer, local) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:443".parse().unwrap());
    let connection = Connection { tls: Some(tls), ..Connection::plaintext(peer, local) };
    let head = head(
        "/a?b=c",
        &[("host", "a.example"), ("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("cookie", "b=2")],
    );
    let text = Shown { bytes: b"text", ..Shown::default() };
    let attributes = asked(&head, text, &[], Some(&connection));
    assert_eq!(attributes.destination.unwrap().principal, "spiffe://td/ns/shop/sa/books");
    let source = attributes.source.unwrap();
    assert_eq!(source.principal, "spiffe://td/ns/shop/sa/web");
    let address = source.address.unwrap().socket.unwrap();
    assert_eq!((address.address.as_str(), address.port), ("10.0.0.1", 4000));
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str(), http.scheme.as_str()),
        ("POST", "/a?b=c", "a.example", "https")
    );
    assert_eq!((http.body.as_str(), http.raw_body.len(), http.size), ("text", 0, -1));
    for (name, value) in [
        ("x-a", "1,2"),
        ("cookie", "a=1; b=2"),
        (":path", "/a?b=c"),
        (":authority", "a.example"),
        (":method", "POST"),
    ] {
        assert_eq!(http.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    let attributes = asked(&head, Shown { bytes: b"\xff", ..text }, &names(&["x-a"]), None);
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(http.headers.into_iter().collect::<Vec<_>>(), [("x-a".to_owned(), "1,2".to_owned())]);
    assert_eq!((http.body.as_str(), &http.raw_body[..]), ("", &b"\xff"[..]));
    let partly = Shown { partial: Some(true), raw: true, ..text };
    let http = asked(&head, partly, &[], None).request.unwrap().http.unwrap();
    assert_eq!((http.body.as_str(), &http.raw_body[..]), ("", &b"text"[..]));
    assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
}

#[test]
fn a_question_about_a_connection_holds_nothing_of_http() {
    let tls = |server_name: Option<&str>| TlsFacts {
        version: TlsVersion::Tls13,
        server_name: server_name.map(Into::into),
        alpn: None,
        identity: Some("spiffe://td/ns/shop/sa/web".parse().unwrap()),
        forwarded_cert: Some(
            "By=spiffe://td/ns/shop/sa/db;Hash=00;Subject=\"\";URI=spiffe://td/ns/shop/sa/web".into(),
        ),
    };
    let (peer, local) = ("[::ffff:10.0.0.1]:4000".parse().unwrap(), "10.0.0.2:5432".parse().unwrap());
    let (web, db) = ("spiffe://td/ns/shop/sa/web", "spiffe://td/ns/shop/sa/db");
    for (tls, principals, sni) in [
        (Some(tls(Some("db.shop"))), (web, db), Some("db.shop")),
        (Some(tls(None)), (web, db), None),
        (None, ("", ""), None),
    ] {
        let connection = Connection { tls, ..Connection::plaintext(peer, local) };
        let question = grpc::connection_question(&connection, "auth:9000");
        assert_eq!(question.uri(), "/envoy.service.auth.v3.Authorization/Check");
        let framed = question.body().bytes().unwrap();
        let attributes = CheckRequest::decode(&framed[5..]).unwrap().attributes.unwrap();
        assert_eq!(attributes.request, None);
        assert_eq!(attributes.tls_session.map(|session| session.sni).as_deref(), sni);
        let (source, destination) = (attributes.source.unwrap(), attributes.destination.unwrap());
        assert_eq!((&*source.principal, &*destination.principal), principals);
        for (peer, address, port) in [(source, "10.0.0.1", 4000), (destination, "10.0.0.2", 5432)] {
            let socket = peer.address.unwrap().socket.unwrap();
            assert_eq!((socket.address.as_str(), socket.port), (address, port));
        }
    }
}

fn framed(response: &CheckResponse) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(response.encoded_len()).unwrap());
    bytes.extend_from_slice(&response.encode_to_vec());
    bytes.freeze()
}

fn verdict(message: &Bytes, trailers: &[(&str, &str)]) -> Result<ExternalVerdict, String> {
    let response = grpc_answer::message(message, &map(trailers))?;
    grpc_answer::verdict(response, &head("/a?b=c&token=t", &[("host", "a.example")]), None)
}

fn says(code: i32, http: Option<HttpResponse>) -> Result<ExternalVerdict, String> {
    let response = CheckResponse { status: Some(RpcStatus { code }), http };
    verdict(&framed(&response), &[("grpc-status", "0")])
}

fn allowed(ok: OkResponse) -> Result<ExternalChanges, String> {
    match says(0, Some(HttpResponse::Ok(ok)))? {
        ExternalVerdict::Allow(changes) => Ok(changes),
        ExternalVerdict::Deny(response) => panic!("{response:?}"),
    }
}

fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderOption {
    let header = Some(HeaderLine { key: key.into(), value: value.into(), raw_value: Bytes::new() });
    HeaderOption { header, append: append.map(|value| BoolValue { value }), append_action }
}

#[test]
fn a_grpc_answer_changes_a_request_as_envoy_does() {
    let headers = vec![
        option("x-extended", "2", Some(true), 0),
        option("x-extended", "3", Some(true), 1),
        option("x-absent", "new", Some(true), 0),
        option("x-made", "2", Some(true), 0),
        option("x-made", "1", None, 0),
        option("x-set", "new", None, 0),
        option("x-one", "new", None, 1),
        option("x-three", "new", None, 3),
        option("x-gone", "new", None, 0),
        option("host", "a.example", None, 0),
        option(":path", "/a?b=c&token=t", None, 0),
        option("content-length", "0", None, 0),
    ];
    let headers_to_remove = ["authorization", "Host", ":method", "X-Gone"].map(Into::into).to_vec();
    let changes = allowed(OkResponse { headers, headers_to_remove, ..OkResponse::default() }).unwrap();
    let old = ["x-set", "x-extended", "x-one", "x-gone", "authorization", "host"].map(|name| (name, "1"));
    let mut head = head("/", &old);
    changes.to_request(&mut head);
    let mut seen = lines(&head.headers);
    seen.sort();
    let expected =
        ["host: 1", "x-extended: 1,2,3", "x-made: 1,2", "x-one: new", "x-set: new", "x-three: new"];
    assert_eq!(seen, expected);
}

#[test]
fn a_grpc_answer_changes_the_backends_answer_as_envoy_does() {
    for (added, expected) in [
        (vec![option("set-cookie", "a", None, 0), option("set-cookie", "b", None, 0)], "app,a,b"),
        (vec![option("set-cookie", "a", Some(true), 2)], "app,a"),
        (vec![option("set-cookie", "a", Some(false), 0)], "a"),
        (vec![option("set-cookie", "a", None, 1)], "app"),
        (vec![option("set-cookie", "a", None, 2)], "a"),
        (vec![option("set-cookie", "a", None, 3)], "a"),
        (vec![option("x-new", "a", None, 3)], "app"),
        (vec![option("set-cookie", "a", None, 2), option("set-cookie", "b", None, 0)], "a"),
        (vec![option("content-length", "9", None, 0)], "app"),
    ] {
        let ok = OkResponse { response_headers_to_add: added.clone(), ..OkResponse::default() };
        let mut answer = map(&[("set-cookie", "app")]);
        allowed(ok).unwrap().to_response(&mut answer);
        let seen: Vec<_> = answer.values().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(seen.join(","), expected, "{added:?}");
    }
}

#[test]
fn a_grpc_answer_changes_the_query() {
    let parameter = QueryParameter { key: "b".into(), value: "d".into() };
    let ok = OkResponse {
        query_parameters_to_set: vec![parameter],
        query_parameters_to_remove: vec!["token".into()],
        ..OkResponse::default()
    };
    let mut head = head("/a?b=c&token=t", &[]);
    allowed(ok).unwrap().to_request(&mut head);
    assert_eq!(head.uri, "/a?b=d");
}

#[test]
fn what_cannot_be_carried_out_allows_nothing() {
    let on_request = |key, value| OkResponse {
        headers: vec![option("x-user", "bob", None, 0), option(key, value, None, 0)],
        ..OkResponse::default()
    };
    let on_response = |key, value| OkResponse {
        response_headers_to_add: vec![option(key, value, None, 0)],
        ..OkResponse::default()
    };
    let parameter = |value: &str| OkResponse {
        query_parameters_to_set: vec![QueryParameter { key: "q".into(), value: value.into() }],
        ..OkResponse::default()
    };
    for (ok, message) in [
        (on_request("x-user", "bob\n"), "the value of `x-user` cannot be written"),
        (on_request("x-user", "b\0b"), "the value of `x-user` cannot be written"),
        (on_request("bad name", "1"), "`bad name` is not a header name"),
        (on_request("", "1"), "`` is not a header name"),
        (on_request(":path", "/admin"), "it sets `:path`"),
        (on_request(":method", "DELETE"), "it sets `:method`"),
        (on_request(":authority", "b.example"), "it sets `:authority`"),
        (on_request("Host", "b.example"), "it sets `Host`"),
        (on_request(":scheme", "https"), "it sets `:scheme`"),
        (on_response("x-a", "a\nb"), "the value of `x-a` cannot be written"),
        (on_response(":status", "500"), "`:status` is not a header name"),
        (parameter("a b"), "the query parameters make no target"),
    ] {
        let refused = allowed(ok.clone()).unwrap_err();
        assert!(refused.contains(message), "{ok:?}: {refused}");
    }
}

#[tokio::test]
async fn a_grpc_refusal_is_the_services_own() {
    let denied = DeniedResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![
            option("www-authenticate", "Bearer", None, 0),
            option("set-cookie", "a=1", None, 0),
            option("set-cookie", "b=2", Some(false), 2),
            option("x-broken", "a\nb", None, 0),
        ],
        body: "log in".into(),
    };
    let Ok(ExternalVerdict::Deny(response)) = says(16, Some(HttpResponse::Denied(denied))) else {
        panic!("denied")
    };
    assert_eq!(response.status(), 401);
    assert_eq!(
        lines(response.headers()),
        ["www-authenticate: Bearer", "set-cookie: a=1", "set-cookie: b=2", "content-type: text/plain"]
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "log in");
}

#[test]
fn nothing_but_a_plain_yes_allows() {
    let ok = || Some(HttpResponse::Ok(OkResponse::default()));
    let denied = |code| {
        Some(HttpResponse::Denied(DeniedResponse {
            status: Some(HttpStatus { code }),
            ..DeniedResponse::default()
        }))
    };
    for (code, http, status) in [
        (7, None, 403),
        (7, ok(), 403),
        (0, denied(403), 403),
        (7, denied(0), 403),
        (7, denied(200), 403),
        (7, denied(99_999), 403),
        (16, denied(302), 302),
    ] {
        let Ok(ExternalVerdict::Deny(response)) = says(code, http.clone()) else { panic!("{code} {http:?}") };
        assert_eq!(response.status().as_u16(), status, "{code} {http:?}");
    }
    let yes = framed(&CheckResponse { status: Some(RpcStatus { code: 0 }), http: None });
    // A status that is not there is `OK`, to protobuf and to Envoy.
    for response in
        [&yes, &framed(&CheckResponse { status: None, http: ok() }), &framed(&CheckResponse::default())]
    {
        assert!(matches!(verdict(response, &[("grpc-status", "0")]), Ok(ExternalVerdict::Allow(_))));
    }
    let silent = framed(&CheckResponse { status: None, http: denied(401) });
    assert!(matches!(verdict(&silent, &[("grpc-status", "0")]), Ok(ExternalVerdict::Deny(_))));
    for trailers in [&[][..], &[("grpc-status", "14")], &[("grpc-status", "00")], &[("grpc-status", "")]] {
        assert!(verdict(&yes, trailers).is_err(), "{trailers:?}");
    }
    let mut compressed = yes.to_vec();
    compressed[0] = 1;
    assert!(verdict(&compressed.into(), &[("grpc-status", "0")]).is_err());
}

proptest! {
    #[test]
    fn an_answer_that_was_cut_never_allows(cut in 0usize..20) {
        let headers = vec![option("x-user", "alice", None, 0)];
        let http = Some(HttpResponse::Ok(OkResponse { headers, ..OkResponse::default() }));
        let whole = framed(&CheckResponse { status: Some(RpcStatus { code: 0 }), http });
        prop_assume!(cut < whole.len());
        prop_assert!(verdict(&whole.slice(..cut), &[("grpc-status", "0")]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut whole = vec![0];
        whole.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        whole.extend(bytes);
        let _ = verdict(&whole.into(), &[("grpc-status", "0")]);
    }
}

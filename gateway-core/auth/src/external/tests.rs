//! Questions and answers of both protocols, without a connection.

use std::time::SystemTime;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use proptest::prelude::*;
use prost::Message;
use towpath_gateway_core::{Body, Connection, TlsFacts, TlsVersion};

use super::proto::{
    BoolValue, CheckRequest, CheckResponse, DeniedResponse, HeaderLine, HeaderOption, HttpResponse,
    HttpStatus, OkResponse, RpcStatus,
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
    let allowed = names(&["x-user", "connection", "transfer-encoding", "authorization"]);
    for (prefix, target) in
        [("", "/books?page=2"), ("/check", "/check/books?page=2"), ("/check/", "/check/books?page=2")]
    {
        let question = super::http::question(&head, &Bytes::from("abc"), prefix, &allowed).unwrap();
        assert_eq!((question.method(), question.uri().to_string().as_str()), (&::http::Method::POST, target));
        let mut seen = lines(question.headers());
        seen.sort();
        let expected = ["authorization: Bearer x", "content-length: 3", "host: a.example", "x-user: me"];
        assert_eq!(seen, expected);
        assert_eq!(question.body().bytes().unwrap(), "abc");
    }
    assert!(super::http::question(&head, &Bytes::new(), "a b", &[]).is_none());
}

#[test]
fn what_the_service_may_set_a_client_cannot_forge() {
    let answer =
        map(&[("x-user", "alice"), ("x-role", "a"), ("x-role", "b"), ("x-other", "1"), ("host", "evil")]);
    let forged = &[("x-user", "root"), ("x-group", "wheel"), ("x-other", "2"), ("host", "a")];
    let mut request = map(forged);
    super::http::changes(&answer, &names(&["x-user", "x-role", "x-group", "host"])).to_request(&mut request);
    let mut seen = lines(&request);
    seen.sort();
    assert_eq!(seen, ["host: a", "x-other: 2", "x-role: a", "x-role: b", "x-user: alice"]);
}

#[test]
fn without_a_list_all_but_what_is_the_answers_own_goes_on() {
    let answer = map(&[
        ("x-user", "alice"),
        ("content-type", "text/html"),
        ("content-length", "7"),
        ("date", "now"),
        ("host", "evil"),
        ("set-cookie", "s=1"),
        ("x-envoy-auth-headers-to-remove", "authorization, Cookie, host"),
    ]);
    let mut request =
        map(&[("authorization", "secret"), ("cookie", "a=1"), ("content-type", "text/plain"), ("host", "a")]);
    super::http::changes(&answer, &[]).to_request(&mut request);
    let mut seen = lines(&request);
    seen.sort();
    assert_eq!(seen, ["content-type: text/plain", "host: a", "set-cookie: s=1", "x-user: alice"]);
}

#[test]
fn no_refusal_looks_like_a_success() {
    for (status, seen) in [(204, 403), (206, 403), (302, 302), (401, 401), (403, 403), (429, 429)] {
        let answer = Response::builder().status(status).body(Body::empty()).unwrap();
        assert_eq!(super::http::refusal(answer).status(), seen);
    }
}

fn asked(
    head: &Parts,
    body: &[u8],
    allowed: &[HeaderName],
    connection: Option<&Connection>,
) -> super::proto::Attributes {
    let body = Bytes::copy_from_slice(body);
    let question = grpc::question(head, &body, connection, allowed, "auth:9000", SystemTime::UNIX_EPOCH);
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
        forwarded_cert: None,
    };
    let (peer, local) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:443".parse().unwrap());
    let connection = Connection { tls: Some(tls), ..Connection::plaintext(peer, local) };
    let head = head(
        "/a?b=c",
        &[("host", "a.example"), ("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("cookie", "b=2")],
    );
    let attributes = asked(&head, b"text", &[], Some(&connection));
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
    let attributes = asked(&head, b"\xff", &names(&["x-a"]), None);
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(http.headers.into_iter().collect::<Vec<_>>(), [("x-a".to_owned(), "1,2".to_owned())]);
    assert_eq!((http.body.as_str(), &http.raw_body[..]), ("", &b"\xff"[..]));
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

fn says(code: i32, http: Option<HttpResponse>) -> Result<ExternalVerdict, String> {
    let response = CheckResponse { status: Some(RpcStatus { code }), http };
    grpc::verdict(&framed(&response), &map(&[("grpc-status", "0")]))
}

fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderOption {
    let header = Some(HeaderLine { key: key.into(), value: value.into(), raw_value: Bytes::new() });
    HeaderOption { header, append: append.map(|value| BoolValue { value }), append_action }
}

#[test]
fn a_grpc_answer_changes_headers_as_envoy_does() {
    let ok = OkResponse {
        headers: vec![
            option("x-set", "new", None, 0),
            option("x-append", "new", Some(true), 0),
            option("x-absent", "new", None, 1),
            option("x-there", "new", None, 1),
            option("x-only-if", "new", None, 3),
            option(":path", "/evil", None, 0),
            option("host", "evil", None, 0),
            option("content-length", "0", None, 0),
            option("x-broken", "a\nb", None, 0),
        ],
        headers_to_remove: vec!["authorization".into(), "Host".into(), ":method".into()],
        response_headers_to_add: vec![option("x-answer", "1", None, 0)],
    };
    let Ok(ExternalVerdict::Allow(changes)) = says(0, Some(HttpResponse::Ok(ok))) else { panic!("allowed") };
    let mut request = map(&[
        ("host", "a"),
        ("authorization", "secret"),
        ("x-set", "old"),
        ("x-append", "old"),
        ("x-there", "old"),
    ]);
    changes.to_request(&mut request);
    let mut seen = lines(&request);
    seen.sort();
    assert_eq!(
        seen,
        ["host: a", "x-absent: new", "x-append: new", "x-append: old", "x-set: new", "x-there: old"]
    );
    let mut answer = HeaderMap::new();
    changes.to_response(&mut answer);
    assert_eq!(lines(&answer), ["x-answer: 1"]);
}

#[tokio::test]
async fn a_grpc_refusal_is_the_services_own() {
    let denied = DeniedResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![option("www-authenticate", "Bearer", None, 0)],
        body: "log in".into(),
    };
    let Ok(ExternalVerdict::Deny(response)) = says(16, Some(HttpResponse::Denied(denied))) else {
        panic!("denied")
    };
    assert_eq!(
        (response.status().as_u16(), &response.headers()["www-authenticate"]),
        (401, &HeaderValue::from_static("Bearer"))
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
    // To protobuf a status that is not there is `OK`.
    let silent = framed(&CheckResponse { status: None, http: ok() });
    assert!(matches!(grpc::verdict(&silent, &map(&[("grpc-status", "0")])), Ok(ExternalVerdict::Deny(_))));
    let yes = framed(&CheckResponse { status: Some(RpcStatus { code: 0 }), http: None });
    assert!(matches!(grpc::verdict(&yes, &map(&[("grpc-status", "0")])), Ok(ExternalVerdict::Allow(_))));
    for trailers in [&[][..], &[("grpc-status", "14")], &[("grpc-status", "00")], &[("grpc-status", "")]] {
        assert!(grpc::verdict(&yes, &map(trailers)).is_err(), "{trailers:?}");
    }
    let mut compressed = yes.to_vec();
    compressed[0] = 1;
    assert!(grpc::verdict(&compressed.into(), &map(&[("grpc-status", "0")])).is_err());
}

proptest! {
    #[test]
    fn an_answer_that_was_cut_never_allows(cut in 0usize..20) {
        let headers = vec![option("x-user", "alice", None, 0)];
        let http = Some(HttpResponse::Ok(OkResponse { headers, ..OkResponse::default() }));
        let whole = framed(&CheckResponse { status: Some(RpcStatus { code: 0 }), http });
        prop_assume!(cut < whole.len());
        let verdict = grpc::verdict(&whole.slice(..cut), &map(&[("grpc-status", "0")]));
        prop_assert!(verdict.is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut whole = vec![0];
        whole.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        whole.extend(bytes);
        let _ = grpc::verdict(&whole.into(), &map(&[("grpc-status", "0")]));
    }
}

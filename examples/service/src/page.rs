//! The pages: what this service is, and what the services that it calls answered.

use std::time::Duration;

use futures_util::future::join_all;
use http::header::ACCEPT;
use http::{HeaderMap, Request, Response};
use serde_json::{Map, Value, json};

use crate::body::{Body, json, needs_number, number, typed};
use crate::call::{self, Caller};
use crate::{Args, html};

/// The page with everything that this service calls; HTML for browsers.
pub(crate) async fn whole<B>(args: &Args, request: &Request<B>) -> Response<Body> {
    let page = compose(args, request.headers()).await;
    if wants_html(request.headers()) {
        typed("text/html; charset=utf-8", html::render(&page))
    } else {
        json(&page)
    }
}

/// The page, and what arrived: tests see here which headers a proxy added and took away.
pub(crate) async fn seen<B>(args: &Args, request: &Request<B>) -> Response<Body> {
    let mut page = compose(args, request.headers()).await;
    if let Some(fields) = page.as_object_mut() {
        fields.insert("method".into(), request.method().as_str().into());
        fields.insert("path".into(), request.uri().path().into());
        fields.insert("query".into(), request.uri().query().into());
        fields.insert("headers".into(), headers(request.headers()));
    }
    json(&page)
}

/// This service alone, after as many milliseconds as the query says.
pub(crate) async fn slow<B>(args: &Args, request: &Request<B>) -> Response<Body> {
    let Some(millis) = number(request.uri(), "ms") else { return needs_number("ms") };
    tokio::time::sleep(Duration::from_millis(millis)).await;
    json(&alone(args))
}

async fn compose(args: &Args, headers: &HeaderMap) -> Value {
    let caller = Caller::new(args.via, headers);
    let answers = join_all(args.calls.iter().map(|target| call::call(&caller, &target.url))).await;
    let calls: Map<_, _> = args.calls.iter().map(|target| target.name.clone()).zip(answers).collect();
    let mut page = alone(args);
    if let Some(fields) = page.as_object_mut() {
        fields.insert("calls".into(), calls.into());
    }
    page
}

fn alone(args: &Args) -> Value {
    json!({
        "service": args.name,
        "version": args.version,
        "cluster": args.cluster,
        "pid": std::process::id(),
    })
}

/// Headers by name; values of a repeated one are joined (RFC 9110 section 5.3).
fn headers(headers: &HeaderMap) -> Value {
    let joined = headers.keys().map(|name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        (name.to_string(), Value::from(values.collect::<Vec<_>>().join(", ")))
    });
    Value::Object(joined.collect())
}

fn wants_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_are_joined() {
        let mut map = HeaderMap::new();
        map.append("x-a", "1".parse().unwrap());
        map.append("x-a", "2".parse().unwrap());
        assert_eq!(headers(&map), json!({"x-a": "1, 2"}));
    }
}

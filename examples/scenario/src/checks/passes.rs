//! Traffic that must pass: pages, API calls, rewrites, redirects, the canary, big bodies.

use http::Request;
use serde_json::Value;

use super::{Check, World, equal, holds};
use crate::client::{Answer, Connection, Failure, HOST, full, get};
use crate::logs::Line;

const BIG: usize = 20 * 1024 * 1024;

/// Carries the checks out; returns the lines of one traced page.
pub(super) async fn run(world: &World, done: &mut impl FnMut(Check)) -> Vec<Line> {
    done(equal("a page made of four services", "200 details=200 reviews=200 ratings=200", page(world).await));
    done(equal(
        "plaintext clients are sent to HTTPS",
        format!("301 https://{HOST}/page"),
        redirect(world).await,
    ));
    done(equal("a path is rewritten, a header set", "200 /page/new x-shop=bookshop", rewrite(world).await));
    let seen = api(world).await;
    done(equal("an API call with a key", "200 key-seen-by-app=false consumer=bookshop/alice", seen));
    let (check, version3) = canary(world).await;
    done(check);
    done(equal("a header picks the preview", "v3 v3 v3 v3 v3", version3));
    done(equal("a 20 MiB upload", format!("200 {BIG}"), upload(world).await));
    done(equal("a 20 MiB download", format!("200 {BIG}"), download(world).await));
    let (check, trace) = traced(world).await;
    done(check);
    trace
}

async fn page(world: &World) -> Result<String, Failure> {
    let answer = world.client.get("/page", &[("x-secret", world.marker.as_str())]).await?;
    let body = answer.json();
    let status = |path: &str| body.pointer(path).cloned().unwrap_or(Value::Null);
    Ok(format!(
        "{} details={} reviews={} ratings={}",
        answer.status.as_u16(),
        status("/calls/details/status"),
        status("/calls/reviews/status"),
        status("/calls/reviews/body/calls/ratings/status"),
    ))
}

async fn redirect(world: &World) -> Result<String, Failure> {
    let answer = world.client.get_plain("/page").await?;
    Ok(format!("{} {}", answer.status.as_u16(), answer.header("location")))
}

async fn rewrite(world: &World) -> Result<String, Failure> {
    let answer = world.client.get("/catalogue/new", &[]).await?;
    let body = answer.json();
    let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or("?").to_owned();
    Ok(format!("{} {} x-shop={}", answer.status.as_u16(), text("/path"), text("/headers/x-shop")))
}

async fn api(world: &World) -> Result<String, Failure> {
    let trace = Trace::new();
    let headers = [("x-api-key", "alice-demo-key"), ("traceparent", trace.header.as_str())];
    let answer = world.client.get("/api/books", &headers).await?;
    let key_seen = answer.json().pointer("/headers/x-api-key").is_some();
    let lines = world.logs.trace_when(&trace.id, |lines| lines.iter().any(|l| l.consumer.is_some())).await;
    let consumer = lines.iter().find_map(|line| line.consumer.clone()).unwrap_or_else(|| "?".into());
    Ok(format!("{} key-seen-by-app={key_seen} consumer={consumer}", answer.status.as_u16()))
}

async fn canary(world: &World) -> (Check, Result<String, Failure>) {
    let requests = if world.short { 100 } else { 400 };
    let name = "the 90/10 canary split";
    let expected = format!("v2 gets about 10% of {requests}, v3 none");
    let check = match split(world, requests).await {
        Ok((v1, v2, other)) => {
            // Four standard deviations around the mean of a binomial share of one in ten.
            let mean = f64::from(requests) / 10.0;
            let spread = 4.0 * (mean * 0.9).sqrt();
            let ok = other == 0 && v1 + v2 == requests && (f64::from(v2) - mean).abs() <= spread;
            holds(name, expected, format!("v1 {v1}, v2 {v2}, other {other}"), ok)
        }
        Err(failure) => holds(name, expected, format!("error: {failure}"), false),
    };
    let preview = async {
        let mut connection = world.client.connection().await?;
        let mut seen = Vec::new();
        for _ in 0..5 {
            let answer = connection.send(get("/page", HOST, &[("x-canary", "v3")])?).await?;
            seen.push(version(&answer));
        }
        Ok(seen.join(" "))
    };
    (check, preview.await)
}

async fn split(world: &World, requests: u32) -> Result<(u32, u32, u32), Failure> {
    let mut connection = world.client.connection().await?;
    let mut counts = (0, 0, 0);
    for _ in 0..requests {
        let answer = connection.send(get("/page", HOST, &[])?).await?;
        match version(&answer).as_str() {
            "v1" => counts.0 += 1,
            "v2" => counts.1 += 1,
            _ => counts.2 += 1,
        }
    }
    Ok(counts)
}

fn version(answer: &Answer) -> String {
    let body = answer.json();
    body.pointer("/calls/reviews/body/version").and_then(Value::as_str).unwrap_or("?").to_owned()
}

async fn upload(world: &World) -> Result<String, Failure> {
    let mut body = world.marker.as_str().as_bytes().to_vec();
    body.resize(BIG, b'u');
    let request = Request::post("/upload").header("host", HOST).body(full(body))?;
    let answer = world.client.connection().await?.send(request).await?;
    Ok(format!("{} {}", answer.status.as_u16(), answer.json().pointer("/bytes").cloned().unwrap_or_default()))
}

async fn download(world: &World) -> Result<String, Failure> {
    let mut connection: Connection = world.client.connection().await?;
    let answer = connection.send(get(&format!("/download?bytes={BIG}"), HOST, &[])?).await?;
    Ok(format!("{} {}", answer.status.as_u16(), answer.body.len()))
}

/// A trace that begins at the client.
pub(super) struct Trace {
    pub(super) id: String,
    pub(super) header: String,
}

impl Trace {
    pub(super) fn new() -> Self {
        let id = format!("{:032x}", fastrand::u128(1..));
        let header = format!("00-{id}-{:016x}-01", fastrand::u64(1..));
        Self { id, header }
    }
}

async fn traced(world: &World) -> (Check, Vec<Line>) {
    let trace = Trace::new();
    // The edge, its ingress or sidecar if it has one; the sidecars of the page on both sides of its two calls, and
    // those of reviews and ratings.
    let extra = usize::from(world.plan.has_ingress() || world.plan.has_attached_sidecar());
    let expected = 1 + extra + 1 + 2 * 2 + 2;
    let name = "one trace holds every hop of a page";
    let answer = world.client.get("/page", &[("traceparent", &trace.header)]).await;
    let lines = world.logs.trace_when(&trace.id, |lines| lines.len() >= expected).await;
    let seen = match answer {
        Ok(answer) => format!("{} {} records", answer.status.as_u16(), lines.len()),
        Err(failure) => format!("error: {failure}"),
    };
    (equal(name, format!("200 {expected} records"), Ok(seen)), lines)
}

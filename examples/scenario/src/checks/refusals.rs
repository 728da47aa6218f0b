//! Traffic that must not pass, and who says no.

use super::passes::Trace;
use super::{Check, World, equal};
use crate::client::{Failure, HOST, get};
use crate::plan::Workload;

/// Carries the checks out.
pub(super) async fn run(world: &World, done: &mut impl FnMut(Check)) {
    let status =
        |answer: Result<crate::client::Answer, Failure>| answer.map(|a| a.status.as_u16().to_string());
    done(equal("no API key", "401", status(world.client.get("/api/books", &[]).await)));
    let wrong = world.client.get("/api/books", &[("x-api-key", "nobodys-key")]).await;
    done(equal("a wrong API key", "401", status(wrong)));
    done(equal("an unknown host", "404", status(world.client.get_host("other.example.com", "/page").await)));
    done(equal("a consumer over its limit", "20 pass, 5 get 429 with Retry-After", limit(world).await));
    done(equal("a denied path", "403 by bookshop/no-admin", denied(world).await));
    mesh(world, done).await;
}

/// What the sidecars refuse when one comes to them without going through the edge.
async fn mesh(world: &World, done: &mut impl FnMut(Check)) {
    let Some(details) = world.plan.workload("details-0") else { return };
    let at = details.inbound();
    done(equal("plaintext to a STRICT service", "closed without an answer", world.probe.plaintext(at).await));
    done(equal(
        "TLS without an identity",
        "closed without an answer",
        world.probe.without_identity(at).await,
    ));
    let seen = stranger(world, details).await;
    done(equal("a wrong identity", "403 by bookshop/details-callers, in log and metric", seen));
}

async fn limit(world: &World) -> Result<String, Failure> {
    let mut connection = world.client.connection().await?;
    let (mut passed, mut limited) = (0, 0);
    for _ in 0..25 {
        let answer = connection.send(get("/api/books", HOST, &[("x-api-key", "bob-demo-key")])?).await?;
        match answer.status.as_u16() {
            200 => passed += 1,
            429 if !answer.header("retry-after").is_empty() => limited += 1,
            other => return Ok(format!("an answer of {other}")),
        }
    }
    Ok(format!("{passed} pass, {limited} get 429 with Retry-After"))
}

async fn denied(world: &World) -> Result<String, Failure> {
    let trace = Trace::new();
    let answer = world.client.get("/admin", &[("traceparent", &trace.header)]).await?;
    let policy = refusing_policy(world, &trace.id).await;
    Ok(format!("{} by {policy}", answer.status.as_u16()))
}

async fn stranger(world: &World, details: &Workload) -> Result<String, Failure> {
    let trace = Trace::new();
    let status = world.probe.as_stranger(details, &trace.header).await?;
    let policy = refusing_policy(world, &trace.id).await;
    let metrics = world.probe.metrics(details.admin()).await?;
    let counted = metrics.lines().any(|line| {
        line.starts_with("towpath_requests_refused_total") && line.contains(&format!("policy=\"{policy}\""))
    });
    Ok(format!(
        "{status} by {policy}, in log{}",
        if counted { " and metric" } else { " but not in a metric" }
    ))
}

async fn refusing_policy(world: &World, trace: &str) -> String {
    let names_one = |line: &crate::logs::Line| line.status == 403 && line.policy.is_some();
    let lines = world.logs.trace_when(trace, |lines| lines.iter().any(names_one)).await;
    lines
        .into_iter()
        .find(names_one)
        .and_then(|line| line.policy)
        .unwrap_or_else(|| "no policy in the log".into())
}

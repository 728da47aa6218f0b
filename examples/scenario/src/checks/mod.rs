//! What must pass, what must not, and what the system itself shows.

mod passes;
mod refusals;
pub(crate) mod sockets;
mod streams;
mod wire;

use serde::Serialize;
pub(crate) use sockets::Socket;

use crate::client::{Client, Failure};
use crate::logs::{Line, Logs};
use crate::mesh::Probe;
use crate::plan::Plan;
use crate::recorder::{Marker, Recorder};

/// What the checks work with.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) client: Client,
    pub(crate) probe: Probe,
    pub(crate) logs: Logs,
    pub(crate) recorder: Recorder,
    pub(crate) marker: Marker,
    pub(crate) pids: Vec<(String, u32)>,
    pub(crate) short: bool,
}

/// One check, as the report shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) expected: String,
    pub(crate) seen: String,
    pub(crate) ok: bool,
}

/// What the checks found: themselves, and the trace that the report draws.
pub(crate) struct Findings {
    pub(crate) checks: Vec<Check>,
    pub(crate) trace: Vec<Line>,
    pub(crate) sockets: Vec<sockets::Socket>,
}

/// Carries out every check, telling of each as it ends.
pub(crate) async fn all(world: &World, mut told: impl FnMut(&Check)) -> Findings {
    let mut checks = Vec::new();
    let mut done = |check: Check| {
        told(&check);
        checks.push(check);
    };
    let trace = passes::run(world, &mut done).await;
    streams::run(world, &mut done).await;
    refusals::run(world, &mut done).await;
    let sockets = sockets::run(world, &mut done).await;
    wire::run(world, &mut done);
    Findings { checks, trace, sockets }
}

/// A check whose expectation and finding are texts that must be equal.
fn equal(name: &str, expected: impl Into<String>, seen: Result<String, Failure>) -> Check {
    let expected = expected.into();
    let seen = seen.unwrap_or_else(|failure| format!("error: {failure}"));
    Check { name: name.into(), ok: seen == expected, expected, seen }
}

/// A check that holds or not, whatever the words.
fn holds(name: &str, expected: impl Into<String>, seen: impl Into<String>, ok: bool) -> Check {
    Check { name: name.into(), expected: expected.into(), seen: seen.into(), ok }
}

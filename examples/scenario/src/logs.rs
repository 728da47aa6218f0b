//! What the processes logged of their requests: the only source of hops, identities and TLS facts in the report.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// One line of an access log, as far as the report needs it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Line {
    #[serde(skip_deserializing, default)]
    pub(crate) process: String,
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) workload: String,
    #[serde(default)]
    pub(crate) cluster: String,
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) listener: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_id: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) protocol: String,
    pub(crate) status: u16,
    pub(crate) duration_us: u64,
    pub(crate) reason: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) consumer: Option<String>,
    pub(crate) route: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) downstream: Option<Side>,
    #[serde(default)]
    pub(crate) attempts: Vec<Attempt>,
}

/// The side that the request came from.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Side {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) tls: Option<String>,
    pub(crate) identity: Option<String>,
}

/// A try at the side that the request went to.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Attempt {
    pub(crate) endpoint: SocketAddr,
    #[serde(default)]
    pub(crate) workload: String,
    pub(crate) tls: Option<String>,
    pub(crate) identity: Option<String>,
    pub(crate) span_id: Option<String>,
}

/// The logs of a run.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    dir: PathBuf,
}

impl Logs {
    /// The logs in a directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Every line written so far. Lines that are not (or not yet) whole records are passed over.
    pub(crate) fn all(&self) -> Vec<Line> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .flat_map(|path| read(&path))
            .collect()
    }

    /// The lines of one trace.
    pub(crate) fn trace(&self, trace_id: &str) -> Vec<Line> {
        self.all().into_iter().filter(|line| line.trace_id == trace_id).collect()
    }

    /// The lines of one trace once `enough` says so. Logs are written a moment after the answer: this waits for the
    /// event, for five seconds at most, and then returns what there is.
    pub(crate) async fn trace_when(&self, trace_id: &str, enough: impl Fn(&[Line]) -> bool) -> Vec<Line> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let lines = self.trace(trace_id);
            if enough(&lines) || Instant::now() > deadline {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn read(path: &Path) -> Vec<Line> {
    let process = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let parse = |line: &str| {
        let mut line: Line = serde_json::from_str(line).ok()?;
        line.process.clone_from(&process);
        Some(line)
    };
    text.lines().filter_map(parse).collect()
}

/// The lines of one trace as a tree, callers before callees, each with its depth.
pub(crate) fn in_order(lines: &[Line]) -> Vec<(usize, &Line)> {
    let by_attempt: HashMap<&str, usize> = lines
        .iter()
        .enumerate()
        .flat_map(|(at, line)| line.attempts.iter().filter_map(move |a| Some((a.span_id.as_deref()?, at))))
        .collect();
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let caller = line.parent_id.as_deref().and_then(|parent| by_attempt.get(parent)).copied();
        children.entry(caller).or_default().push(at);
    }
    let mut order = Vec::new();
    walk(None, 0, &children, lines, &mut order);
    order
}

fn walk<'a>(
    at: Option<usize>,
    depth: usize,
    children: &BTreeMap<Option<usize>, Vec<usize>>,
    lines: &'a [Line],
    order: &mut Vec<(usize, &'a Line)>,
) {
    let mut below: Vec<usize> = children.get(&at).cloned().unwrap_or_default();
    below.sort_by_key(|child| lines.get(*child).map(|line| (line.listener.clone(), line.process.clone())));
    for child in below {
        if let Some(line) = lines.get(child) {
            order.push((depth, line));
            walk(Some(child), depth + 1, children, lines, order);
        }
    }
}

/// The counts of one process.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Hop {
    pub(crate) process: String,
    pub(crate) role: String,
    pub(crate) cluster: String,
    pub(crate) requests: usize,
    /// Answers of 500 and above.
    pub(crate) errors: usize,
    /// Answers of 400 to 499.
    pub(crate) refused: usize,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// Requests, errors and latency by process.
pub(crate) fn per_hop(lines: &[Line]) -> Vec<Hop> {
    let mut groups: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        groups.entry(&line.process).or_default().push(line);
    }
    groups.into_iter().map(|(process, lines)| hop(process, &lines)).collect()
}

fn hop(process: &str, lines: &[&Line]) -> Hop {
    let mut took: Vec<u64> = lines.iter().map(|line| line.duration_us).collect();
    took.sort_unstable();
    let rank = |share: usize| {
        took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    let text = |of: fn(&Line) -> &str| lines.first().map(|line| of(line).to_owned()).unwrap_or_default();
    Hop {
        process: process.to_owned(),
        role: text(|line| &line.role),
        cluster: text(|line| &line.cluster),
        requests: lines.len(),
        errors: lines.iter().filter(|line| line.status >= 500).count(),
        refused: lines.iter().filter(|line| (400..500).contains(&line.status)).count(),
        p50_us: rank(50),
        p99_us: rank(99),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(process: &str, span: &str, parent: Option<&str>, calls: &[&str]) -> Line {
        let attempts: Vec<_> =
            calls.iter().map(|c| json!({"endpoint": "127.0.0.1:1", "span_id": c})).collect();
        let mut line: Line = serde_json::from_value(json!({
            "role": "sidecar", "pid": 1, "trace_id": "t", "span_id": span, "parent_id": parent, "method": "GET",
            "path": "/", "protocol": "HTTP/1.1", "status": 200, "duration_us": 10, "attempts": attempts,
        }))
        .unwrap();
        line.process = process.into();
        line
    }

    #[test]
    fn callers_come_before_callees() {
        let lines = [
            line("c", "3", Some("b1"), &[]),
            line("a", "1", Some("client"), &["a1"]),
            line("b", "2", Some("a1"), &["b1"]),
        ];
        let order: Vec<_> =
            in_order(&lines).into_iter().map(|(depth, l)| (depth, l.process.as_str())).collect();
        assert_eq!(order, [(0, "a"), (1, "b"), (2, "c")]);
    }

    #[test]
    fn percentiles_are_those_of_the_process() {
        let lines: Vec<_> = (0..100)
            .map(|n| Line {
                duration_us: n,
                status: if n == 0 { 503 } else { 200 },
                ..line("a", "1", None, &[])
            })
            .collect();
        let hops = per_hop(&lines);
        assert_eq!(hops.len(), 1);
        assert_eq!((hops[0].requests, hops[0].errors, hops[0].p50_us, hops[0].p99_us), (100, 1, 50, 99));
    }
}

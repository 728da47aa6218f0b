//! `explain --facts`: what a policy set decides about requests that are given with the workload they are for. Each is
//! sent over a connection in memory through the stack of a sidecar that serves it.

mod ask;
mod read;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use towpath_config::{Duty, Guard, Listener, MeshSettings, Options, Role, Snapshot, Source, compile};
use towpath_mesh_mtls::MtlsMode;

use self::ask::{Answer, Match, ask, matches};
use self::read::Fact;
use crate::args::{ExplainArgs, Output, Peer};
use crate::check::{options, print, read};
use crate::explain::Line;
use crate::{Failure, Program, log};

/// Facts of more bytes than this are a mistake.
const MAX_BYTES: u64 = 64 << 20;

/// Prints what is decided about every fact of the file, in order.
pub(crate) fn explain(program: Program, args: &ExplainArgs, file: &Path) -> Result<ExitCode, Failure> {
    let facts = facts(file)?;
    let base = options(program, &args.compile, SystemTime::now());
    let answers = answers(&read(&args.compile)?, &base, &facts)?;
    match args.output {
        Output::Json => print(&format_args!("{}\n", serde_json::to_string_pretty(&answers)?)),
        Output::Text => print(&text(&facts, &answers)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what the policies of the workload decide about one request, and what each of them has to say.
pub(crate) fn explain_from(
    program: Program,
    args: &ExplainArgs,
    line: &Line,
    Peer(peer): &Peer,
) -> Result<ExitCode, Failure> {
    if program != Program::Sidecar || args.compile.workload.is_none() {
        return Err("`--from` is for a sidecar, with --workload NAMESPACE/NAME".into());
    }
    let fact = Fact::asked(line, &args.header, peer.as_ref());
    let address = ([127, 0, 0, 1], line.port).into();
    let inbound = towpath_config::InboundPort { port: line.port, listen: address, app: address };
    let options = Options {
        role: Role::Sidecar { inbound: vec![inbound] },
        has_identity: true,
        ..options(program, &args.compile, SystemTime::now())
    };
    let snapshot = compile(&read(&args.compile)?, &options, None);
    let sidecar = sidecar(&snapshot, &fact)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(&sidecar, &fact));
    let policies = matches(&sidecar, &fact);
    match args.output {
        Output::Json => {
            let mut value = serde_json::to_value(&answer)?;
            if let Some(fields) = value.as_object_mut() {
                fields.insert("policies".into(), serde_json::to_value(&policies)?);
            }
            print(&format_args!("{value:#}\n"));
        }
        Output::Text => {
            let mut text = text(&[fact], &[answer]);
            for Match { action, policy, rule } in policies.iter().flatten() {
                let says = rule.map_or("no rule matches".to_owned(), |rule| format!("rule {rule} matches"));
                let _ = writeln!(text, "  {action:6} {policy}: {says}");
            }
            match &policies {
                None => text.push_str("  no policy is asked: the connection is refused\n"),
                Some(policies) if policies.is_empty() => text.push_str("  no policy is in force\n"),
                Some(_) => {}
            }
            print(&text);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answers(source: &Source, base: &Options, facts: &[Fact]) -> Result<Vec<Answer>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sidecars = Sidecars::new(source, base);
    facts.iter().map(|fact| Ok(runtime.block_on(ask(sidecars.of(fact)?, fact)))).collect()
}

/// The answers to facts that are in hand, as JSON.
#[cfg(test)]
pub(crate) fn decide(source: &Source, base: &Options, facts: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let read = |value| Fact::read(value, &mut BTreeSet::new());
    let facts: Vec<Fact> = facts.into_iter().map(read).collect::<Result<_, _>>()?;
    let answers = answers(source, base, &facts)?;
    Ok(answers.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

fn facts(file: &Path) -> Result<Vec<Fact>, Failure> {
    let name = file.display();
    let length = fs::metadata(file).map_err(|error| format!("cannot read {name}: {error}"))?.len();
    if length > MAX_BYTES {
        return Err(format!("{name} has {length} bytes: is it the wrong file?").into());
    }
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let list: Vec<Value> = serde_json::from_str(&text).map_err(|error| {
        format!("{name}: {error}; it holds a list of {{\"workload\": …, \"request\": …}}")
    })?;
    let mut unread = BTreeSet::new();
    let fact = |(place, value): (usize, Value)| {
        Fact::read(value, &mut unread).map_err(|error| format!("{name}: entry {place}: {error}"))
    };
    let facts = list.into_iter().enumerate().map(fact).collect::<Result<_, _>>()?;
    if !unread.is_empty() {
        let fields: Vec<String> = unread.into_iter().collect();
        let fields = fields.join(", ");
        log::say(format_args!("note: {name}: fields that say nothing here, and were not read: {fields}"));
    }
    Ok(facts)
}

/// The port of a workload, as the sidecar that serves it takes it in.
struct Sidecar {
    listener: Listener,
    mode: MtlsMode,
    guard: Guard,
}

/// Sidecars by the workload and port that they serve, each compiled once.
struct Sidecars<'a> {
    source: &'a Source,
    base: &'a Options,
    before: Option<Snapshot>,
    made: HashMap<String, Sidecar>,
}

impl<'a> Sidecars<'a> {
    fn new(source: &'a Source, base: &'a Options) -> Self {
        Self { source, base, before: None, made: HashMap::new() }
    }

    fn of(&mut self, fact: &Fact) -> Result<&Sidecar, Failure> {
        let key = fact.sidecar();
        if !self.made.contains_key(&key) {
            let snapshot = compile(self.source, &self.options(fact)?, self.before.as_ref());
            let sidecar = sidecar(&snapshot, fact)?;
            self.before = Some(snapshot);
            self.made.insert(key.clone(), sidecar);
        }
        self.made.get(&key).ok_or_else(|| "a sidecar that was made is gone".into())
    }

    fn options(&self, fact: &Fact) -> Result<Options, Failure> {
        let address = ([127, 0, 0, 1], fact.port()).into();
        let inbound = towpath_config::InboundPort { port: fact.port(), listen: address, app: address };
        // What the file says nothing of is as the resources say.
        let named = compile(self.source, self.base, self.before.as_ref()).mesh;
        Ok(Options {
            role: Role::Sidecar { inbound: vec![inbound] },
            given: Some(fact.workload()),
            mesh: Some(fact.mesh(named)?),
            assume_providers: fact.answers_for_providers(),
            has_identity: true,
            ..self.base.clone()
        })
    }
}

fn sidecar(snapshot: &Snapshot, fact: &Fact) -> Result<Sidecar, Failure> {
    let inbound = snapshot.listeners.iter().find_map(|listener| match &listener.duty {
        Duty::Inbound { mode, guard, .. } => Some((listener.clone(), *mode, guard.clone())),
        _ => None,
    });
    let Some((listener, mode, mut guard)) = inbound else {
        let why = snapshot.problems.first().map(|problem| format!(": {problem}")).unwrap_or_default();
        return Err(format!("nothing would be taken in for this workload{why}").into());
    };
    if let Some(trusted_proxies) = fact.trusted_proxies() {
        let edge = MeshSettings { trusted_proxies, ..snapshot.mesh.clone() }.edge_normalization();
        guard.normalization = edge;
    }
    Ok(Sidecar { listener, mode, guard })
}

/// A status of HTTP, or how a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Status {
    Http(u16),
    Connection(&'static str),
}

fn text(facts: &[Fact], answers: &[Answer]) -> String {
    let mut text = String::new();
    for (fact, answer) in facts.iter().zip(answers) {
        let status = match answer.status {
            Status::Http(status) => status.to_string(),
            Status::Connection(end) => end.to_owned(),
        };
        let by = answer.policy.as_deref().map(|policy| match answer.rule {
            Some(rule) => format!(" ({policy}, rule {rule})"),
            None => format!(" ({policy})"),
        });
        let _ = writeln!(
            text,
            "{:5} {status:5} {}: {}{}",
            answer.decision,
            fact.line(),
            answer.reason,
            by.unwrap_or_default()
        );
    }
    text
}

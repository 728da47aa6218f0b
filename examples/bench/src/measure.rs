//! A run: which proxies there are, and how each scenario is measured round after round.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use serde::Serialize;
use tempfile::TempDir;

use crate::args::Args;
use crate::backend::{Backend, LARGE};
use crate::certificates::Certificates;
use crate::idle::{self, Idle};
use crate::load::{Done, Load, Target};
use crate::process::{Pin, Process};
use crate::proxy::{Ground, Kind, Proxy, Role, prefix};
use crate::scenario::{Scenario, Variant};
use crate::statistics::float;
use crate::{Failure, client, interrupt, tools, usage};

/// Everything that stays for all scenarios.
pub(crate) struct Bench {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) rounds: u32,
    pub(crate) secs: u32,
    pub(crate) pinned: bool,
    // Dropped in this order: processes end before their directory goes.
    pub(crate) backend: Backend,
    load_pin: Pin,
    ground: Ground,
    _dir: TempDir,
}

/// What a scenario brought.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    pub(crate) rows: Vec<Row>,
    pub(crate) idle: Vec<Idle>,
    /// What was left out, and why.
    pub(crate) left_out: Vec<String>,
}

/// The rounds of one proxy.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) proxy: Kind,
    pub(crate) variant: Variant,
    pub(crate) rounds: Vec<Round>,
}

/// One proxy in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// CPU time of the proxy's processes for each request, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) rss_mib: f64,
}

/// A proxy, or a pair of them, that load can be sent to.
struct Candidate {
    kind: Kind,
    variant: Variant,
    processes: Vec<Process>,
    target: Target,
}

impl Bench {
    /// Finds the proxies and starts the backend.
    pub(crate) fn start(args: &Args) -> Result<Self, Failure> {
        let dir = TempDir::with_prefix("towpath-bench-")?;
        let certificates = Certificates::create(&dir.path().join("certificates"))?;
        let (proxy_pin, load_pin, pinned) = pins(args);
        let backend = Backend::start(dir.path(), &load_pin)?;
        eprintln!("backend: {} at {}", backend.name, backend.address);
        let ground = Ground {
            dir: dir.path().to_owned(),
            certificates,
            backend: backend.address,
            pin: proxy_pin,
            bin_dir: args.bin_dir.clone(),
            started: AtomicUsize::new(0),
        };
        let (rounds, secs) = (args.rounds(), args.secs());
        Ok(Self { kinds: found(args), rounds, secs, pinned, backend, load_pin, ground, _dir: dir })
    }

    /// Where the measured programs are, if not in this one.
    pub(crate) fn bin_dir(&self) -> Option<&Path> {
        self.ground.bin_dir.as_deref()
    }

    /// Measures a scenario.
    pub(crate) fn measure(&self, scenario: Scenario) -> Result<Outcome, Failure> {
        eprintln!("{}", scenario.title());
        let mut outcome = Outcome { scenario, rows: Vec::new(), idle: Vec::new(), left_out: Vec::new() };
        if scenario == Scenario::Memory {
            self.hold(&mut outcome)?;
            return Ok(outcome);
        }
        if let Some(tool) = scenario.load().lacks() {
            outcome.left_out.push(tool.missing());
            return Ok(outcome);
        }
        let mut candidates = self.candidates(scenario, &mut outcome.left_out)?;
        outcome.rows = candidates
            .iter()
            .map(|candidate| Row { proxy: candidate.kind, variant: candidate.variant, rounds: Vec::new() })
            .collect();
        for candidate in &mut candidates {
            self.send(scenario.load(), candidate, 1)?;
        }
        for round in 0..self.rounds {
            self.round(round, scenario.load(), &mut candidates, &mut outcome.rows)?;
        }
        Ok(outcome)
    }

    /// One round: every proxy once, each round beginning with another one.
    fn round(
        &self,
        number: u32,
        load: Load,
        candidates: &mut [Candidate],
        rows: &mut [Row],
    ) -> Result<(), Failure> {
        let mut order: Vec<_> = candidates.iter_mut().zip(rows).collect();
        let first = usize::try_from(number)? % order.len().max(1);
        order.rotate_left(first);
        for (candidate, row) in order {
            let round = self.send(load, candidate, self.secs)?;
            eprintln!(
                "  round {}/{} {}{}: {:.1} us/request, {:.0} requests/s, {} failed",
                number + 1,
                self.rounds,
                candidate.kind.name(),
                candidate.variant.suffix(),
                round.cpu_us,
                round.per_second,
                round.failed
            );
            row.rounds.push(round);
        }
        Ok(())
    }

    fn send(&self, load: Load, candidate: &mut Candidate, secs: u32) -> Result<Round, Failure> {
        interrupt::check()?;
        candidate.processes.iter_mut().try_for_each(Process::must_run)?;
        let family: Vec<u32> = candidate.processes.iter().flat_map(Process::family).collect();
        let before = usage::cpu_seconds(&family);
        let done = load.send(
            &candidate.target,
            secs,
            &self.load_pin,
            &self.ground.dir,
            &self.ground.certificates.root,
        )?;
        let Done { requests, failed, per_second, p50_ms, p99_ms } = done;
        if requests == 0 {
            return Err(format!("{} answered no request", candidate.kind.name()).into());
        }
        let cpu_us = (usage::cpu_seconds(&family) - before) * 1e6 / float(requests);
        Ok(Round { requests, failed, cpu_us, per_second, p50_ms, p99_ms, rss_mib: usage::rss_mib(&family) })
    }

    /// Starts whoever can do the work. Towpath must; a peer that cannot is left out, and said to be.
    fn candidates(&self, scenario: Scenario, left_out: &mut Vec<String>) -> Result<Vec<Candidate>, Failure> {
        let mut candidates = Vec::new();
        for &kind in &self.kinds {
            for variant in scenario.variants() {
                interrupt::check()?;
                match self.candidate(kind, scenario, variant) {
                    Ok(Some(candidate)) => candidates.push(candidate),
                    Ok(None) => left_out.push(format!("{} has no part in this", kind.name())),
                    Err(failure) if kind == Kind::Towpath => return Err(failure),
                    Err(failure) => left_out.push(format!("{}: {failure}", kind.name())),
                }
            }
        }
        left_out.dedup();
        Ok(candidates)
    }

    fn candidate(
        &self,
        kind: Kind,
        scenario: Scenario,
        variant: Variant,
    ) -> Result<Option<Candidate>, Failure> {
        let path = match (scenario, variant) {
            (Scenario::Large, _) => self.backend.large(),
            (_, Variant::Table(count)) => prefix(count.saturating_sub(1)),
            _ => "/".to_owned(),
        };
        let (processes, address) = if scenario == Scenario::Mtls {
            let Some(pair) = self.pair(kind)? else { return Ok(None) };
            pair
        } else {
            let Some(mut proxy) = kind.start(role(scenario, variant), &self.ground)? else {
                return Ok(None);
            };
            let Some(address) = (if scenario.is_tls() { proxy.tls } else { proxy.plain }) else {
                return Ok(None);
            };
            self.wait(&mut proxy.process, address, scenario.is_tls(), &path)?;
            (vec![proxy.process], address)
        };
        let target = Target { address, tls: scenario.is_tls(), path };
        Ok(Some(Candidate { kind, variant, processes, target }))
    }

    /// Two of a kind with mutual TLS between them, and where load enters.
    fn pair(&self, kind: Kind) -> Result<Option<(Vec<Process>, SocketAddr)>, Failure> {
        let Some(Proxy { process: mut accept, tls: Some(address), .. }) =
            kind.start(Role::Accept, &self.ground)?
        else {
            return Ok(None);
        };
        self.wait_for_mtls(&mut accept, address)?;
        let Some(Proxy { process: mut originate, plain: Some(entry), .. }) =
            kind.start(Role::Originate(address), &self.ground)?
        else {
            return Ok(None);
        };
        self.wait(&mut originate, entry, false, "/")?;
        Ok(Some((vec![originate, accept], entry)))
    }

    /// The accepting side answers our certificate, and nobody without one.
    fn wait_for_mtls(&self, accept: &mut Process, address: SocketAddr) -> Result<(), Failure> {
        let certificates = &self.ground.certificates;
        let ours = client::tls(&certificates.root, Some(&certificates.client))?;
        client::wait_for_answer(accept, address, Some(&ours), "/", self.backend.answers("/"))?;
        let stranger = client::tls(&certificates.root, None)?;
        let answer = client::connect(address, Some(&stranger))
            .and_then(|mut io| client::exchange(&mut *io, "/", true));
        match answer {
            Ok((200, _)) => Err(format!("{} lets in a client without certificate", accept.name).into()),
            _ => Ok(()),
        }
    }

    fn wait(&self, process: &mut Process, address: SocketAddr, tls: bool, path: &str) -> Result<(), Failure> {
        let config = if tls { Some(client::checker(&self.ground.certificates)?) } else { None };
        let expected = self.backend.answers(path).or((path == self.backend.large()).then_some(LARGE));
        client::wait_for_answer(process, address, config.as_ref(), path, expected)
    }

    fn hold(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        for &kind in &self.kinds {
            match idle::measure(&self.ground, kind, |proxy, address, tls| {
                self.wait(&mut proxy.process, address, tls, "/")
            }) {
                Ok(idle) => {
                    eprintln!("  {}", idle.text());
                    outcome.idle.push(idle);
                }
                Err(failure) if kind == Kind::Towpath => return Err(failure),
                Err(failure) => outcome.left_out.push(format!("{}: {failure}", kind.name())),
            }
            interrupt::check()?;
        }
        Ok(())
    }
}

fn role(scenario: Scenario, variant: Variant) -> Role {
    match (scenario, variant) {
        (_, Variant::Table(count)) => Role::Table(count),
        (Scenario::Log, variant) => Role::Logging(variant == Variant::Logged),
        _ => Role::Edge,
    }
}

/// The proxies that are there. What is missing is told once, with how to get it.
fn found(args: &Args) -> Vec<Kind> {
    let all = [Kind::Towpath, Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Pingora];
    let mut kinds: Vec<_> = all.into_iter().filter(|kind| args.wants(*kind)).collect();
    kinds.retain(|kind| match kind.tool() {
        Some(tool) if tool.find().is_none() => {
            eprintln!("left out: {}", tool.missing());
            false
        }
        _ => true,
    });
    kinds
}

/// Cores of proxies and of load, where there are two and `taskset`.
fn pins(args: &Args) -> (Pin, Pin, bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match tools::TASKSET.find() {
        Some(taskset) if !args.no_pin && cores > 1 => {
            let pin = |cpus: &String| Pin::To(taskset.clone(), cpus.clone());
            (pin(&args.proxy_cpus), pin(&args.load_cpus), true)
        }
        found => {
            if found.is_none() && !args.no_pin {
                eprintln!("nothing is pinned: {}", tools::TASKSET.missing());
            }
            (Pin::Free, Pin::Free, false)
        }
    }
}

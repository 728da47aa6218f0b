//! The report: readable text, and the same as JSON.

use std::fmt::Write as _;

use serde::Serialize;
use towpath_config::Scenario;

use crate::checks::{Check, Findings};
use crate::discovered::{lines_of_configuration, lines_of_the_mesh, lines_that_differ};
use crate::logs::{Hop, Line, in_order, per_hop};
use crate::net::{Network, is_own_loopback};
use crate::plan::Plan;

/// What a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    passed: bool,
    seconds: f64,
    checks: Vec<Check>,
    chain: Vec<Leg>,
    plaintext_hops: Vec<String>,
    hops: Vec<Hop>,
    trace: Vec<Span>,
    sockets: Vec<crate::checks::Socket>,
    /// Address of the byte recorder that stands in for the first address behind the edge.
    recorder: String,
    comparison: Vec<Size>,
    configuration_lines: usize,
    mesh_lines: usize,
}

/// One leg of the traced request, by the log of the process that sent it and of the one that received it.
#[derive(Debug, Clone, Serialize)]
struct Leg {
    from: String,
    from_pid: Option<u32>,
    to: String,
    to_pid: Option<u32>,
    address: String,
    protocol: String,
    tls: Option<String>,
    /// Identity that the receiver verified.
    client_identity: Option<String>,
    /// Identity that the sender verified.
    server_identity: Option<String>,
    /// Whether the leg stays on one host.
    local: bool,
}

#[derive(Debug, Clone, Serialize)]
struct Span {
    depth: usize,
    process: String,
    listener: String,
    request: String,
    status: u16,
    duration_us: u64,
    id: String,
    parent: Option<String>,
}

/// The size of one scenario.
#[derive(Debug, Clone, Serialize)]
struct Size {
    scenario: &'static str,
    processes: usize,
    /// Legs between hosts from the client to the first service.
    network_legs: usize,
    loopback_legs: usize,
    /// Lines of configuration that differ from this run's.
    lines_that_differ: usize,
    measured: bool,
}

impl Report {
    /// Puts together what a run found.
    pub(crate) fn new(plan: &Plan, findings: Findings, lines: &[Line], seconds: f64) -> Self {
        let chain = chain(&findings.trace);
        let plaintext_hops = plaintext(lines);
        let mut checks = findings.checks;
        checks.push(plaintext_check(plan, &plaintext_hops));
        let passed = checks.iter().all(|check| check.ok);
        let comparison = comparison(plan, &chain);
        Self {
            scenario: plan.scenario.as_str(),
            passed,
            seconds,
            checks,
            plaintext_hops,
            hops: per_hop(lines),
            trace: spans(&findings.trace),
            sockets: findings.sockets,
            recorder: plan.recorder.to_string(),
            comparison,
            chain,
            configuration_lines: lines_of_configuration(),
            mesh_lines: lines_of_the_mesh(),
        }
    }

    /// Whether every check held.
    pub(crate) fn passed(&self) -> bool {
        self.passed
    }

    /// The readable form.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nThe way of one page, leg by leg (from the logs of the processes, by trace id)")?;
        for leg in &self.chain {
            write_leg(out, leg)?;
        }
        writeln!(
            out,
            "  ({} is the recorder on the edge leg: it passes bytes on and looks at them)",
            self.recorder
        )?;
        writeln!(out, "\nHops between hosts that nothing protects")?;
        if self.plaintext_hops.is_empty() {
            writeln!(out, "  none")?;
        }
        for hop in &self.plaintext_hops {
            writeln!(out, "  {hop}")?;
        }
        self.write_hops(out)?;
        self.write_trace(out)?;
        self.write_sockets(out)?;
        self.write_comparison(out)?;
        let bad = self.checks.iter().filter(|check| !check.ok).count();
        writeln!(out, "\n{} checks, {bad} failed, {:.1} s", self.checks.len(), self.seconds)
    }

    fn write_hops(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nPer process        cluster  requests  refused  errors   p50 ms   p99 ms")?;
        for hop in &self.hops {
            writeln!(
                out,
                "  {:<22} {:<6} {:>6} {:>8} {:>7} {:>8.2} {:>8.2}",
                hop.process,
                hop.cluster,
                hop.requests,
                hop.refused,
                hop.errors,
                millis(hop.p50_us),
                millis(hop.p99_us),
            )?;
        }
        Ok(())
    }

    fn write_trace(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nThe trace of that page")?;
        for span in &self.trace {
            let indent = "  ".repeat(span.depth + 1);
            let what = format!("{indent}{} ({})", span.process, span.listener);
            writeln!(
                out,
                "{what:<64} {} {} {:>8.2} ms",
                span.request,
                span.status,
                millis(span.duration_us)
            )?;
        }
        Ok(())
    }

    fn write_sockets(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nListening sockets that leave their host")?;
        for socket in self.sockets.iter().filter(|socket| !is_own_loopback(socket.address)) {
            writeln!(out, "  {:<22} {:<22} {}", socket.process, socket.address.to_string(), socket.finding)?;
        }
        Ok(())
    }

    fn write_comparison(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nScenario      processes  legs between hosts  loopback legs  other lines")?;
        for size in &self.comparison {
            writeln!(
                out,
                "{} {:<12} {:>8} {:>19} {:>14} {:>18}",
                if size.measured { "*" } else { " " },
                size.scenario,
                size.processes,
                size.network_legs,
                size.loopback_legs,
                size.lines_that_differ,
            )?;
        }
        writeln!(
            out,
            "  * measured in this run, the others from their plan; legs are those from the client to the first application.\n  \
             Configuration: {} lines for all four alike, {} of them the Mesh resource.",
            self.configuration_lines, self.mesh_lines,
        )
    }
}

fn millis(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64() * 1000.0
}

fn write_leg(out: &mut String, leg: &Leg) -> std::fmt::Result {
    let pid = |pid: Option<u32>| pid.map_or_else(String::new, |pid| format!(" [{pid}]"));
    let tls = leg.tls.as_deref().unwrap_or(if leg.local { "on one host" } else { "PLAINTEXT" });
    writeln!(
        out,
        "  {}{} -> {}{}  {}  {}  {tls}",
        leg.from,
        pid(leg.from_pid),
        leg.to,
        pid(leg.to_pid),
        leg.address,
        leg.protocol,
    )?;
    if let Some(identity) = &leg.client_identity {
        writeln!(out, "      the caller proved   {identity}")?;
    }
    if let Some(identity) = &leg.server_identity {
        writeln!(out, "      the callee proved   {identity}")?;
    }
    Ok(())
}

/// The legs of a trace: the client's, then one for each attempt, joined with the record of the side that received it.
fn chain(lines: &[Line]) -> Vec<Leg> {
    let mut legs = Vec::new();
    for (depth, line) in in_order(lines) {
        if depth == 0 {
            legs.extend(client_leg(line));
        }
        legs.extend(line.attempts.iter().map(|attempt| attempt_leg(line, attempt, lines)));
    }
    legs
}

fn client_leg(line: &Line) -> Option<Leg> {
    let side = line.downstream.as_ref()?;
    Some(Leg {
        from: "client".into(),
        from_pid: None,
        to: line.process.clone(),
        to_pid: Some(line.pid),
        address: side.local.to_string(),
        protocol: line.protocol.clone(),
        tls: side.tls.clone(),
        client_identity: side.identity.clone(),
        server_identity: None,
        local: is_own_loopback(side.local),
    })
}

fn attempt_leg(line: &Line, attempt: &crate::logs::Attempt, lines: &[Line]) -> Leg {
    let receiver = attempt.span_id.as_ref().and_then(|span| {
        // An application passes the header on as it came, so its own calls carry the same parent: those come in
        // at another process's outbound listener, not at the address of this attempt.
        lines.iter().find(|other| other.parent_id.as_ref() == Some(span) && other.process != line.process)
    });
    let local = is_own_loopback(attempt.endpoint);
    let receiver = receiver.filter(|_| !local || line.role == "gateway");
    let to = receiver.map_or_else(|| "application".to_owned(), |line| line.process.clone());
    Leg {
        from: line.process.clone(),
        from_pid: Some(line.pid),
        to,
        to_pid: receiver.map(|line| line.pid),
        address: attempt.endpoint.to_string(),
        protocol: receiver.map_or_else(|| line.protocol.clone(), |line| line.protocol.clone()),
        tls: attempt.tls.clone(),
        client_identity: receiver.and_then(|line| line.downstream.as_ref()?.identity.clone()),
        server_identity: attempt.identity.clone(),
        local,
    }
}

/// Every kind of leg between hosts that was seen without TLS, in all of the run's traffic.
fn plaintext(lines: &[Line]) -> Vec<String> {
    let mut hops: Vec<String> = lines
        .iter()
        .flat_map(|line| line.attempts.iter().map(move |attempt| (line, attempt)))
        .filter(|(_, attempt)| attempt.tls.is_none() && !is_own_loopback(attempt.endpoint))
        .map(|(line, attempt)| format!("{} -> {} ({})", line.process, attempt.workload, attempt.endpoint))
        .collect();
    hops.sort();
    hops.dedup();
    hops
}

fn plaintext_check(plan: &Plan, hops: &[String]) -> Check {
    let expected = match plan.scenario {
        Scenario::Ingress => "exactly gateway -> mesh-system/ingress-0",
        Scenario::InCluster => "exactly gateway -> bookshop/productpage-0",
        Scenario::Attached | Scenario::GatewayApi => "none",
    };
    let ok = match expected.strip_prefix("exactly ") {
        Some(hop) => matches!(hops, [only] if only.starts_with(hop)),
        None => hops.is_empty(),
    };
    let seen = if hops.is_empty() { "none".to_owned() } else { hops.join(", ") };
    Check { name: "plaintext hops between hosts".into(), expected: expected.into(), seen, ok }
}

fn spans(lines: &[Line]) -> Vec<Span> {
    let span = |(depth, line): (usize, &Line)| Span {
        depth,
        process: line.process.clone(),
        listener: line.listener.clone(),
        request: format!("{} {}", line.method, line.path),
        status: line.status,
        duration_us: line.duration_us,
        id: line.span_id.clone(),
        parent: line.parent_id.clone(),
    };
    in_order(lines).into_iter().map(span).collect()
}

fn comparison(plan: &Plan, chain: &[Leg]) -> Vec<Size> {
    let Ok(network) = Network::take() else { return Vec::new() };
    let size = |scenario: Scenario| {
        let other = Plan::new(scenario, &network);
        let measured = scenario == plan.scenario;
        // Client to gateway, gateway to the first sidecar, and the ingress between them where there is one.
        let planned = (2 + usize::from(other.has_ingress()), 1 + usize::from(other.has_attached_sidecar()));
        let (network_legs, loopback_legs) = if measured { legs_to_first_application(chain) } else { planned };
        let processes = other.parts(std::path::Path::new("")).len();
        Size {
            scenario: scenario.as_str(),
            processes,
            network_legs,
            loopback_legs,
            lines_that_differ: lines_that_differ(scenario, plan.scenario),
            measured,
        }
    };
    Scenario::ALL.into_iter().map(size).collect()
}

fn legs_to_first_application(chain: &[Leg]) -> (usize, usize) {
    let first = chain.iter().position(|leg| leg.to == "application").map_or(chain.len(), |at| at + 1);
    let legs = chain.get(..first).unwrap_or(chain);
    let local = legs.iter().filter(|leg| leg.local).count();
    (legs.len() - local, local)
}

//! Tables, JSON and the chart of a run.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::args::Args;
use crate::idle::Idle;
use crate::machine::Machine;
use crate::measure::{Bench, Outcome, Round, Row};
use crate::proxy::Kind;
use crate::scenario::Variant;
use crate::statistics::Spread;
use crate::{Failure, chart};

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) backend: &'static str,
    pub(crate) rounds: u32,
    pub(crate) secs: u32,
    pub(crate) pinned: bool,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Row {
    /// One figure over all rounds.
    pub(crate) fn spread(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(figure))
    }

    /// CPU time per request over all rounds, in microseconds.
    pub(crate) fn cpu(&self) -> Option<Spread> {
        self.spread(|round| Some(round.cpu_us))
    }

    /// Proxy, and the size of its table if that is measured.
    pub(crate) fn label(&self) -> String {
        let name = self.proxy.name();
        format!("{name}{}", self.variant.suffix())
    }
}

impl Report {
    /// A report without figures yet.
    pub(crate) fn new(bench: &Bench) -> Self {
        Self {
            machine: Machine::here(&bench.kinds, bench.bin_dir()),
            backend: bench.backend.name,
            rounds: bench.rounds,
            secs: bench.secs,
            pinned: bench.pinned,
            outcomes: Vec::new(),
        }
    }

    /// Whether every request to Towpath was answered well.
    pub(crate) fn is_clean(&self) -> bool {
        let rows = self.outcomes.iter().flat_map(|outcome| &outcome.rows);
        rows.filter(|row| row.proxy == Kind::Towpath)
            .all(|row| row.rounds.iter().all(|round| round.failed == 0))
    }

    /// Writes the files that are asked for.
    pub(crate) fn save(&self, args: &Args) -> Result<(), Failure> {
        if let Some(file) = &args.json {
            write(file, &serde_json::to_string_pretty(self)?)?;
        }
        if let Some(file) = &args.svg {
            write(file, &chart::svg(&chart::groups(&self.outcomes)))?;
        }
        Ok(())
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

/// A scenario as a table of Markdown. The last column is Towpath's CPU time against this row's, in the median of the
/// ratios of each round: below 1 Towpath is cheaper.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut text = format!("\n### {}\n\n", outcome.scenario.title());
    if !outcome.rows.is_empty() {
        text.push_str(
            "| proxy | CPU us/request | requests/s | p50 ms | p99 ms | RSS MiB | failed | towpath / it |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|---|\n");
    }
    for row in &outcome.rows {
        let own =
            outcome.rows.iter().find(|own| own.proxy == Kind::Towpath && is_beside(own.variant, row.variant));
        let _ = writeln!(text, "| {} |", cells(row, own).join(" | "));
    }
    if !outcome.idle.is_empty() {
        text.push_str(
            "| proxy | cold start ms | RSS MiB | KiB a plaintext connection | KiB a TLS connection |\n\
             |---|---|---|---|---|\n",
        );
    }
    for idle in &outcome.idle {
        let Idle { proxy, start_ms, rss_mib, plain_kib, tls_kib } = idle;
        let name = proxy.name();
        let _ = writeln!(text, "| {name} | {start_ms:.0} | {rss_mib:.1} | {plain_kib:.1} | {tls_kib:.1} |");
    }
    for why in &outcome.left_out {
        let _ = writeln!(text, "\nLeft out: {why}");
    }
    text
}

/// Whether a row is compared with Towpath's own of the variant `own`.
fn is_beside(own: Variant, row: Variant) -> bool {
    own == row || (own, row) == (Variant::Usual, Variant::Logged)
}

fn cells(row: &Row, own: Option<&Row>) -> Vec<String> {
    let text = |spread: Option<Spread>, decimals| spread.map_or_else(|| "-".to_owned(), |s| s.text(decimals));
    let failed: u64 = row.rounds.iter().map(|round| round.failed).sum();
    vec![
        row.label(),
        text(row.cpu(), 1),
        text(row.spread(|round| Some(round.per_second)), 0),
        text(row.spread(|round| round.p50_ms), 2),
        text(row.spread(|round| round.p99_ms), 2),
        row.spread(|round| Some(round.rss_mib)).map_or_else(String::new, |rss| format!("{:.0}", rss.median)),
        failed.to_string(),
        own.and_then(|own| ratio(own, row)).map_or_else(|| "-".to_owned(), |ratio| ratio.text(2)),
    ]
}

/// Towpath's CPU time against a row's, of the same rounds.
fn ratio(own: &Row, row: &Row) -> Option<Spread> {
    let pairs = own.rounds.iter().zip(&row.rounds).filter(|(_, other)| other.cpu_us > 0.0);
    Spread::of(pairs.map(|(own, other)| own.cpu_us / other.cpu_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn row(proxy: Kind, figures: &[f64]) -> Row {
        let round = |cpu_us: &f64| Round {
            requests: 10,
            failed: 0,
            cpu_us: *cpu_us,
            per_second: 1000.0,
            p50_ms: Some(0.5),
            p99_ms: None,
            rss_mib: 10.0,
        };
        Row { proxy, variant: Variant::Usual, rounds: figures.iter().map(round).collect() }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine was twice as slow in the second round: the ratio does not see it.
        let (own, peer) = (row(Kind::Towpath, &[10.0, 20.0]), row(Kind::Envoy, &[20.0, 40.0]));
        assert_eq!(ratio(&own, &peer).map(|ratio| (ratio.min, ratio.max)), Some((0.5, 0.5)));
    }

    #[test]
    fn the_table_has_a_row_for_each_proxy_and_says_what_is_missing() {
        let outcome = Outcome {
            scenario: Scenario::H1,
            rows: vec![row(Kind::Towpath, &[10.0]), row(Kind::Nginx, &[12.5])],
            idle: Vec::new(),
            left_out: vec!["envoy: not started".to_owned()],
        };
        let text = table(&outcome);
        let row = "| nginx | 12.5 [12.5–12.5] | 1000 [1000–1000] | 0.50 [0.50–0.50] | - | 10 | 0 | 0.80 [0.80–0.80] |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("Left out: envoy: not started"), "{text}");
    }
}

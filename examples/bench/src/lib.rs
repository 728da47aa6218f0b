//! Towpath side by side with whatever of nginx, `HAProxy`, Envoy and pingora is there, from one command.
//!
//! All proxies run at once, each with one worker on the same core; load goes to one after the other, round after
//! round. What is compared is CPU time per request, because it survives a noisy machine; ratios within one run count,
//! absolute figures of different runs do not. Towpath is the shipped program with a directory of resources: no path
//! exists that skips a layer for a benchmark.

mod args;
mod backend;
mod certificates;
mod chart;
mod client;
mod idle;
mod interrupt;
mod load;
mod machine;
mod measure;
mod net;
mod process;
mod proxy;
mod report;
mod scenario;
mod statistics;
mod tools;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::measure::Bench;
use crate::report::Report;

/// What went wrong, in words.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the program with its command line (the program's name first): the comparison, or one of its parts if the
/// first argument names one.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    let args: Vec<OsString> = args.into_iter().collect();
    let part = |run: fn(Vec<OsString>) -> ExitCode| run(args.get(1..).unwrap_or_default().to_vec());
    match args.get(1).and_then(|word| word.to_str()) {
        Some("gateway") => part(towpath_gateway::run),
        Some("sidecar") => part(towpath_sidecar::run),
        Some("service") => part(towpath_service::run),
        Some("handshakes") => part(load::handshakes::run),
        _ => match Args::try_parse_from(&args) {
            Ok(args) => compare(&args),
            Err(error) => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
        },
    }
}

fn compare(args: &Args) -> ExitCode {
    match interrupt::watch().and_then(|()| all(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every scenario and reports; whether all of them were measured without a failed request. Whatever happens, the
/// processes end with this function.
fn all(args: &Args) -> Result<bool, Failure> {
    let bench = Bench::start(args)?;
    let mut report = Report::new(&bench);
    for scenario in args.scenarios() {
        let outcome = bench.measure(scenario)?;
        println!("{}", report::table(&outcome));
        report.outcomes.push(outcome);
        // After each scenario, so that an interrupted run leaves what it has.
        report.save(args)?;
    }
    Ok(report.is_clean())
}

//! All four deployments as real processes from one command.
//!
//! `scenario attached` (or `ingress`, `in-cluster`, `gateway-api`) starts every part of a bookshop as an operating
//! system process of its own on loopback: control plane, gateway, ingress where there is one, and each service of two
//! clusters and a VM behind its sidecar. It sends traffic that must pass and traffic that must not, and reports what
//! the processes themselves logged.

mod args;
mod checks;
mod client;
mod discovered;
mod launch;
mod logs;
mod mesh;
mod net;
mod plan;
mod process;
mod recorder;
mod report;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::args::Args;
use crate::client::Failure;
use crate::launch::Run;
use crate::report::Report;

/// Runs the program: the scenario, or one of its parts if the first argument names one.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    let args: Vec<OsString> = args.into_iter().collect();
    let part = |run: fn(Vec<OsString>) -> ExitCode| run(args.get(1..).unwrap_or_default().to_vec());
    match args.get(1).and_then(|word| word.to_str()) {
        Some("gateway") => part(towpath_gateway::run),
        Some("sidecar") => part(towpath_sidecar::run),
        Some("control-plane") => part(towpath_control_plane::run),
        Some("service") => part(towpath_service::run),
        // `ingress` is a scenario's word as well as a part's: a part has options of its own behind it.
        Some("ingress") if is_part(&args) => part(towpath_ingress::run),
        _ => match Args::try_parse_from(&args) {
            Ok(args) => scenario(&args),
            Err(error) => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
        },
    }
}

/// Whether `ingress` is meant as a part: its options are `--config` and the words `run` and `check`.
fn is_part(args: &[OsString]) -> bool {
    args.iter()
        .skip(2)
        .filter_map(|arg| arg.to_str())
        .any(|arg| matches!(arg, "run" | "check") || arg.starts_with("--config"))
}

fn scenario(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(async {
        let (mut run, passed) = tokio::select! {
            proved = prove(args) => proved?,
            () = launch::interrupted() => return Err("interrupted: every process was stopped".into()),
        };
        if args.serve {
            serve::until_interrupted(&run.world, &run.dir).await;
        }
        let bad = run.processes.stop();
        run.keep_logs(args)?;
        if !bad.is_empty() {
            println!("did not end well when asked to: {}", bad.join(", "));
        }
        Ok(passed && bad.is_empty())
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("scenario: {failure}");
    ExitCode::FAILURE
}

/// Starts everything, checks everything, reports. On an error the processes end with this function, else with the run.
async fn prove(args: &Args) -> Result<(Run, bool), Failure> {
    let began = Instant::now();
    println!("Scenario `{}`: starting its processes on loopback …", args.scenario);
    let mut run = launch::start(args, began).await?;
    println!("[{:>5.1} s] all ready; checking", began.elapsed().as_secs_f64());
    let world = &run.world;
    let findings = checks::all(world, |check| {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        println!("[{:>5.1} s] {mark} {}: {}", began.elapsed().as_secs_f64(), check.name, check.seen);
        if !check.ok {
            println!("               expected {}", check.expected);
        }
    })
    .await;
    if let Some(ended) = run.processes.first_ended() {
        return Err(format!("a process ended by itself: {ended}").into());
    }
    let report = Report::new(&world.plan, findings, &world.logs.all(), began.elapsed().as_secs_f64());
    println!("{}", report.text());
    if let Some(file) = &args.report {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    let passed = report.passed();
    Ok((run, passed))
}

//! `check`: every problem at once, and the status that the resources would get.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;
use towpath_config::{Capture, Options, Severity, Snapshot, Source, compile};

use crate::args::{CheckArgs, CompileArgs, ConfigPath, Output};
use crate::{Failure, Program};

/// Reports on standard output. Exits non-zero if there is an error, in either form of the report.
pub(crate) fn check(program: Program, args: &CheckArgs) -> Result<ExitCode, Failure> {
    match snapshot(program, &args.compile) {
        Ok(snapshot) => {
            match args.output {
                Output::Json => print(&format_args!("{:#}\n", snapshot.to_json())),
                Output::Text => print(&text(&snapshot)),
            }
            Ok(if snapshot.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(failure) if args.output == Output::Json => {
            let problem = json!({"severity": "error", "message": failure.to_string()});
            print(&format_args!("{:#}\n", json!({"problems": [problem], "items": []})));
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => Err(failure),
    }
}

fn snapshot(program: Program, args: &CompileArgs) -> Result<Snapshot, Failure> {
    Ok(compile(&read(args)?, &options(program, args, SystemTime::now()), None))
}

/// The resources that the command line names.
pub(crate) fn read(args: &CompileArgs) -> Result<Source, Failure> {
    Ok(Source::read(&paths(args)?)?)
}

fn paths(args: &CompileArgs) -> Result<Vec<std::path::PathBuf>, Failure> {
    let path = |path: &ConfigPath| match path {
        ConfigPath::Path(path) => Ok(path.clone()),
        ConfigPath::Plane(plane) => {
            Err(format!("only files and directories are read here; the plane at {plane} is for `run`").into())
        }
    };
    args.config.iter().map(path).collect()
}

/// What the command line says to the compiler.
pub(crate) fn options(program: Program, args: &CompileArgs, now: SystemTime) -> Options {
    Options {
        role: program.role(args),
        workload: args.workload.clone(),
        given: None,
        hbone: args.hbone,
        capture: capture(args),
        port_map: args.port_map.clone(),
        controller_name: args.controller_name.clone(),
        has_identity: args.identity.is_some(),
        scenario: None,
        mesh: None,
        assume_providers: false,
        now,
        is_local: Some(is_local),
        system_authorities: Some(system_authorities),
    }
}

fn capture(args: &CompileArgs) -> Option<Capture> {
    let (inbound, outbound) = (args.capture_inbound.clone(), args.capture_outbound.clone());
    let none = inbound.is_empty() && outbound.is_empty();
    (!none).then_some(Capture { inbound, outbound, application: args.capture_app })
}

/// Whether this machine has an address, without a word to anybody else.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// What this machine trusts, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name in its place.
fn system_authorities() -> Vec<Arc<[u8]>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    found.certs.iter().map(|certificate| certificate.as_ref().into()).collect()
}

/// A reader that has seen enough (`check | head`) is no failure: the exit code says the rest.
pub(crate) fn print(report: &dyn Display) {
    let _ = write!(io::stdout().lock(), "{report}");
}

fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for problem in &snapshot.problems {
        let _ = writeln!(text, "{problem}");
    }
    for hop in &snapshot.plaintext_hops {
        let _ = writeln!(text, "note: plaintext hop {} -> {}: {}", hop.from, hop.to, hop.why);
    }
    let count = |severity| snapshot.problems.iter().filter(|p| p.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let (scenario, listeners) = (snapshot.scenario, snapshot.listeners.len());
    let _ =
        writeln!(text, "scenario {scenario}, {listeners} listeners, {errors} errors, {warnings} warnings");
    text
}

//! The life of a proxy process: command line, configuration, identity, workers, listeners, drain.
//!
//! `gateway`, `ingress` and `sidecar` are this with another [`Program`]: they differ in the role that configuration is
//! compiled for and in the stack behind each listener, and in nothing else.

mod admin;
mod allocator;
mod args;
mod capture;
mod check;
mod credential;
#[cfg(test)]
mod decisions;
mod explain;
mod gauges;
mod jwks;
mod listener;
mod listeners;
mod log;
mod migrate;
mod process;
mod refused;
mod source;
mod status;
mod watch;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
pub use log::start_logging;
use towpath_config::Role;

use crate::args::{Cli, Command, CompileArgs};

/// Which proxy a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The API gateway.
    Gateway,
    /// A cluster's ingress.
    Ingress,
    /// The sidecar of a workload.
    Sidecar,
}

impl Program {
    /// Name of the program, and of the role in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Ingress => "ingress",
            Self::Sidecar => "sidecar",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Gateway => {
                "The API gateway: consumers, limits, and the routes of the Gateways that are its own"
            }
            Self::Ingress => "A cluster's ingress: the routes of the Gateways, behind the only open ports",
            Self::Sidecar => "The sidecar of a workload: mTLS, authorization and routes, both ways",
        }
    }

    fn role(self, args: &CompileArgs) -> Role {
        match self {
            Self::Gateway => Role::Gateway,
            Self::Ingress => Role::Ingress,
            Self::Sidecar => Role::Sidecar { inbound: args.inbound.clone() },
        }
    }
}

/// Why a process ends with a message and a non-zero exit.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a program with its command line, the program's name first.
pub fn run<I>(program: Program, args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    let command = Cli::command().name(program.name()).about(program.about());
    let parsed = command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let command = match parsed {
        Ok(cli) => cli.into_command(),
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    start_logging();
    let outcome = match command {
        Command::Run(args) => process::run(program, args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::check(program, &args),
        Command::Migrate(args) => migrate::migrate(&args),
        Command::Capture(args) => capture::capture(&args),
        Command::Explain(args) => explain::explain(program, &args),
    };
    outcome.unwrap_or_else(|failure| {
        log::say(format_args!("{}: {failure}", program.name()));
        ExitCode::FAILURE
    })
}

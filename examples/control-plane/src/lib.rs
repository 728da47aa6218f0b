//! The control-plane program: it signs the certificates of the mesh and hands out configuration.
//!
//! ```text
//! control-plane --listen 127.0.0.1:15012 --state ./plane --config ./config
//! control-plane token --state ./plane --identity spiffe://cluster.local/ns/shop/sa/reviews
//! ```
//!
//! The state directory holds the root of trust (`root.crt`, `root.key`) and the key of join tokens (`join.key`), made
//! on first use. Keep a copy of it: with another root, every workload needs a new token. Messages and one line for
//! each request go to standard error; `TOWPATH_LOG` sets what is shown.

mod admin;
mod args;
mod process;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser as _;
use towpath_ca::{Authority, TokenKey};
use towpath_control::plane_id;
use towpath_gateway_core::SpiffeId;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, TokenArgs};

/// Why the program, or a call of this library, ends with a message.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs the program with its command line, the program's name first. Returns at SIGTERM or Ctrl-C, or at an error
/// that was printed.
pub fn run<I: IntoIterator<Item = OsString>>(args: I) -> ExitCode {
    let command = match Cli::try_parse_from(args) {
        Ok(cli) => cli.into_command(),
        Err(error) => {
            // Help and version come this way, too, and are no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    start_logging();
    let outcome = match command {
        Some(Command::Run(args)) => process::run(args),
        Some(Command::Token(args)) => print_token(&args),
        None => Err("nothing to do: give --listen and --state, or --help".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "control-plane: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A join token for `id` that is good for `ttl`, minted with the state in `state`; the state is made if it is absent.
/// It fails if the state is broken or belongs to another trust domain, and for the control plane's own id.
pub fn mint_token(state: &Path, id: &SpiffeId, ttl: Duration) -> Result<String, Failure> {
    let domain = id.trust_domain().parse()?;
    if *id == plane_id(&domain)? {
        return Err(format!("{id} is the control plane's own identity; no token is minted for it").into());
    }
    let root = Authority::open_or_create(state, domain)?.fingerprint();
    Ok(TokenKey::open_or_create(state)?.mint(id, root, ttl, SystemTime::now()))
}

fn print_token(args: &TokenArgs) -> Result<(), Failure> {
    println!("{}", mint_token(&args.state, &args.identity, args.ttl)?);
    Ok(())
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("TOWPATH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let messages = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // It would tell of a reader that is gone by `eprintln!`, which panics.
        .log_internal_errors(false);
    // Whoever runs this as a part may have logging already; then that one stays.
    let _ = messages.try_init();
}

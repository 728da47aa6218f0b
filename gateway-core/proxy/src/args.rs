//! The common command line of `gateway`, `ingress` and `sidecar`.

mod identity;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use towpath_config::{InboundPort, ObjectName, PortMap};
use towpath_gateway_core::SpiffeId;

pub(crate) use self::identity::{IdentitySource, IssuerArgs};
use crate::capture::CaptureArgs;
use crate::explain::{HeaderLine, Line};

/// What was asked for.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a command word, `run` is meant."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

impl Cli {
    /// The command, `run` where no word was given.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

/// The command words.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve traffic until SIGTERM or Ctrl-C
    Run(RunArgs),
    /// Report every problem of the configuration at once; exits non-zero if there is an error
    Check(CheckArgs),
    /// Say which listener and rule take a request, and of every other rule why not
    Explain(ExplainArgs),
    /// Have the kernel redirect a workload's connections to its sidecar (nftables or iptables; needs root)
    Capture(CaptureArgs),
    /// Write routes in place of Istio's `VirtualService`s, and name every field that is not carried over
    Migrate(MigrateArgs),
}

/// What `run` takes.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) compile: CompileArgs,
    /// Address of the admin endpoints /ready, /live, /metrics and /config; without it none are served
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// File that is kept current with the status of every object (a JSON list)
    #[arg(long, value_name = "FILE")]
    pub(crate) status_file: Option<PathBuf>,
    /// Join token for the control plane, as `control-plane token` prints it
    #[arg(long, value_name = "FILE")]
    pub(crate) join_token: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) issuer: IssuerArgs,
    /// Worker threads, each with sockets, connections and stacks of its own [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Access log: `stdout`, `off`, or a file
    #[arg(long, value_name = "WHERE", default_value = "stdout")]
    pub(crate) access_log: String,
    /// Seconds that requests in flight get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) drain: u64,
}

/// What `check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) compile: CompileArgs,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// What `explain` takes.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) compile: CompileArgs,
    /// The request; its port is the one that the resources name, or the one that is really listened on
    #[arg(long, value_name = "'METHOD URL'", required_unless_present = "facts")]
    pub(crate) request: Option<Line>,
    /// File with a JSON list of {workload, request}: says what the policies decide about each request at the sidecar of its
    /// workload
    #[arg(long, value_name = "FILE", conflicts_with_all = ["request", "header", "server_name", "listener", "all"])]
    pub(crate) facts: Option<PathBuf>,
    /// Who sends the request to the workload: a SPIFFE id, or `plaintext`. Says what every policy of the workload has to say
    /// (sidecar)
    #[arg(long, value_name = "ID|plaintext", requires = "request", conflicts_with_all = ["server_name", "listener", "all"])]
    pub(crate) from: Option<Peer>,
    /// A header of the request; may be repeated. `host` takes the place of the URL's
    #[arg(short = 'H', long, value_name = "'NAME: VALUE'")]
    pub(crate) header: Vec<HeaderLine>,
    /// Name that the client asks for in its TLS hello [default: the URL's host]
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// Only the socket of this name or address, where several are on the port
    #[arg(long, value_name = "NAME|ADDR")]
    pub(crate) listener: Option<String>,
    /// Show every rule, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) Option<SpiffeId>);

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "plaintext" {
            return Ok(Self(None));
        }
        text.parse().map(|id| Self(Some(id))).map_err(|error| format!("{error}; or write `plaintext`"))
    }
}

/// What `migrate` takes.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// File or directory with `VirtualService`s and `DestinationRule`s, and the Services and Gateways that they name; may be
    /// repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub(crate) config: Vec<PathBuf>,
    /// Form of the new objects
    #[arg(short, long, value_enum, default_value_t = MigrateOutput::Yaml)]
    pub(crate) output: MigrateOutput,
    /// Fail if a field is lost
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Form of what `migrate` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MigrateOutput {
    /// Documents on standard output, and what was not carried over on standard error
    Yaml,
    /// One JSON object with `objects`, `findings` and `problems`, and nothing else
    Json,
}

/// What decides how resources are compiled.
#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    /// File or directory of resources, or `plane=ADDR` to take them from the control plane; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub(crate) config: Vec<ConfigPath>,
    /// Where listeners really listen: NAMESPACE/GATEWAY:PORT=ADDR:PORT,… (NAMESPACE/SERVICE:PORT=… for outbound ones)
    #[arg(long, value_name = "MAP")]
    pub(crate) port_map: Option<PortMap>,
    /// Take only Gateways whose class names this controller [default: every class is ours]
    #[arg(long, value_name = "NAME")]
    pub(crate) controller_name: Option<String>,
    /// The workload that this process is part of
    #[arg(long, value_name = "NS/POD")]
    pub(crate) workload: Option<ObjectName>,
    /// Ports taken in for the application (sidecar): PORT=LISTEN>APP, for instance 9080=10.0.0.5:15006>127.0.0.1:9080
    #[arg(long, value_name = "PORT=LISTEN>APP", value_delimiter = ',')]
    pub(crate) inbound: Vec<InboundPort>,
    /// Where tunnels of an ambient mesh come in (sidecar): HBONE, by custom on port 15008
    #[arg(long, value_name = "ADDR")]
    pub(crate) hbone: Option<SocketAddr>,
    /// Where connections to the workload arrive that the kernel redirects (sidecar), see `capture`: an address of each family,
    /// for instance `0.0.0.0:15006,[::]:15006`
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub(crate) capture_inbound: Vec<SocketAddr>,
    /// The same for connections of the workload, for instance `127.0.0.1:15001,[::1]:15001`
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub(crate) capture_outbound: Vec<SocketAddr>,
    /// Address at which the application takes captured connections, at their own port
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) capture_app: IpAddr,
    /// Credential of the workload: a directory with tls.crt, tls.key and ca.crt, `plane=ADDR`, an Istio CA by
    /// `istio-ca[=HOST:PORT]`, or the SPIFFE Workload API by `workload-api[=unix:///PATH]`
    #[arg(long, value_name = "DIR|plane=ADDR|istio-ca|workload-api")]
    pub(crate) identity: Option<IdentitySource>,
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// One line a finding
    Text,
    /// One JSON object and nothing else
    Json,
}

/// Where resources come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigPath {
    Path(PathBuf),
    Plane(SocketAddr),
}

impl FromStr for ConfigPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        plane(text).map_or_else(|| Ok(Self::Path(text.into())), |plane| plane.map(Self::Plane))
    }
}

/// The address of a control plane, where the text is one.
fn plane(text: &str) -> Option<Result<SocketAddr, String>> {
    let address = text.strip_prefix("plane=")?;
    Some(
        address
            .parse()
            .map_err(|_| format!("`{address}` is not an address and port, such as 127.0.0.1:15012")),
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("gateway").chain(line.split_whitespace())).map(Cli::into_command)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_meant_where_no_word_is_given() {
        for line in ["--config a --config b", "run --config a --config b"] {
            let Command::Run(args) = parse(line).unwrap() else { panic!("{line} is not run") };
            assert_eq!(args.compile.config, [ConfigPath::Path("a".into()), ConfigPath::Path("b".into())]);
        }
    }

    #[test]
    fn the_control_plane_is_a_source_of_resources_and_of_identity() {
        let line = "--config plane=127.0.0.1:15012 --identity plane=127.0.0.1:15012 --join-token t";
        let Command::Run(args) = parse(line).unwrap() else { panic!("not run") };
        let plane = "127.0.0.1:15012".parse().unwrap();
        assert_eq!(args.compile.config, [ConfigPath::Plane(plane)]);
        assert_eq!(args.compile.identity, Some(IdentitySource::Plane(plane)));
    }

    #[test]
    fn a_bad_flag_says_what_it_should_be() {
        for (line, says) in [
            ("", "--config"),
            ("--config a --port-map x", "NAMESPACE/NAME:PORT=ADDRESS:PORT"),
            ("--config a --workload x", "NAMESPACE/NAME"),
            ("--config a --inbound 80", "PORT=LISTEN>APP"),
            ("--config a --identity plane=x", "127.0.0.1:15012"),
            ("--config a --identity istio-ca=x", "HOST:PORT"),
            ("--config a --identity workload-api=x", "unix:///PATH"),
            ("--config a --identity-id spiffe://a/b", "--identity"),
            ("--config a --identity istio-ca --identity-id x", "spiffe://"),
            ("--config a --nonsense", "--nonsense"),
            ("check", "--config"),
            ("explain --config a", "--request"),
            ("explain --config a --request /x", "http://"),
            ("explain --config a --request http://a -H x", "name: value"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}

//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use towpath_gateway_core::{SpiffeId, TrustDomain};

/// The longest duration that is taken: the life of a root.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// Signs the certificates of the mesh and hands out configuration
#[derive(Debug, Parser)]
#[command(
    name = "control-plane",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a command word, `run` is meant."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

impl Cli {
    /// The command, `run` where no word was given.
    pub(crate) fn into_command(self) -> Option<Command> {
        self.command.or(self.run.map(Command::Run))
    }
}

/// The command words.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGTERM or Ctrl-C
    Run(RunArgs),
    /// Print a join token, with which a workload gets its first certificate
    Token(TokenArgs),
}

/// What `run` takes.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Address to listen on (TLS)
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Directory of the root of trust and of the key of join tokens; made on first use
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Files and directories of resources to hand out; without it, none are
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) config: Vec<PathBuf>,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub(crate) trust_domain: TrustDomain,
    /// Life of workload certificates, such as 90s, 30m, 24h or 7d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// Address of the admin endpoints /live and /ready (plain HTTP); without it none are served
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
}

/// What `token` takes.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// State directory of the control plane; made if it is absent
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Identity of the workload: its SPIFFE id, in the trust domain of the state
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) identity: SpiffeId,
    /// How long the token is good for; a workload may use it as often as it starts
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
}

/// Reads a number of seconds, minutes, hours or days.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration from 1s to 3650d, such as 90s, 30m, 24h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let count: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let duration = Duration::from_secs(count.checked_mul(seconds).ok_or_else(wrong)?);
    if duration.is_zero() || duration > LONGEST { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("control-plane").chain(line.split_whitespace());
        Ok(Cli::try_parse_from(words)?.into_command().unwrap())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_may_be_left_out_and_has_defaults() {
        for line in [
            "--listen 127.0.0.1:1 --state s --config a b",
            "run --listen 127.0.0.1:1 --state s --config a --config b",
        ] {
            let Command::Run(args) = parse(line).unwrap() else { panic!("{line}") };
            assert_eq!(args.config, [PathBuf::from("a"), PathBuf::from("b")]);
            assert_eq!((args.trust_domain.as_str(), args.ttl), ("cluster.local", Duration::from_hours(24)));
            assert_eq!(args.admin, None);
        }
        assert!(parse("--listen 127.0.0.1:1").is_err());
    }

    #[test]
    fn a_token_lasts_an_hour_unless_told_otherwise() {
        let Command::Token(args) = parse("token --state s --identity spiffe://a/b").unwrap() else {
            panic!()
        };
        assert_eq!((args.ttl, args.identity.as_str()), (Duration::from_hours(1), "spiffe://a/b"));
        assert!(parse("token --state s --identity nonsense").is_err());
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "1", "0s", "-1s", "1.5h", "1w", "+1s", "3651d", "99999999999999999999d", "1é"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}

//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::proxy::Kind;
use crate::scenario::Scenario;

/// Runs Towpath side by side with other proxies and compares CPU time per request, latency and memory.
///
/// Proxies are found in PATH, or where `NGINX_BIN`, `HAPROXY_BIN`, `ENVOY_BIN` and `PINGORA_BIN` say. nginx is the
/// backend as well. `PINGORA_BIN` is a program of pingora-proxy that is called as
/// `PROGRAM H1ADDR TLSADDR BACKENDADDR CERT KEY THREADS`. Load comes from `wrk` and `h2load` (`WRK_BIN`,
/// `H2LOAD_BIN`).
#[derive(Debug, Clone, Parser)]
#[command(name = "bench", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Rounds for each scenario; every proxy is measured once in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) rounds: u32,
    /// Seconds of load for each proxy and round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) secs: u32,
    /// Scenarios to run [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<Scenario>,
    /// Proxies to run besides Towpath [default: all that are found]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    peers: Vec<Kind>,
    /// One round of one second: shows that everything works, and no more than that
    #[arg(long)]
    pub(crate) quick: bool,
    /// File for all figures of all rounds as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// File for a bar chart of CPU time per request
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Directory with `gateway` and `sidecar` to measure [default: this program's own copy of both]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Cores of the proxies, as `taskset` takes them
    #[arg(long, default_value = "0", value_name = "CPUS")]
    pub(crate) proxy_cpus: String,
    /// Cores of load and backend, as `taskset` takes them
    #[arg(long, default_value = "1", value_name = "CPUS")]
    pub(crate) load_cpus: String,
    /// Pin nothing to cores
    #[arg(long)]
    pub(crate) no_pin: bool,
}

impl Args {
    /// The scenarios that are asked for.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        if self.only.is_empty() { Scenario::value_variants().to_vec() } else { self.only.clone() }
    }

    /// Whether a proxy may run.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Towpath || self.peers.is_empty() || self.peers.contains(&kind)
    }

    /// Rounds of each scenario.
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// Seconds of each round.
    pub(crate) fn secs(&self) -> u32 {
        if self.quick { 1 } else { self.secs }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn quick_is_short_whatever_else_is_said() {
        let args =
            Args::try_parse_from(["bench", "--quick", "--rounds=9", "--secs=9", "--only=h1,tls"]).unwrap();
        assert_eq!((args.rounds(), args.secs()), (1, 1));
        assert_eq!(args.scenarios(), [Scenario::H1, Scenario::Tls]);
    }

    #[test]
    fn towpath_always_runs() {
        let args = Args::try_parse_from(["bench", "--peers", "nginx"]).unwrap();
        assert!(args.wants(Kind::Towpath) && args.wants(Kind::Nginx) && !args.wants(Kind::Envoy));
    }
}

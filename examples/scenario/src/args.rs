//! The command line.

use std::path::PathBuf;

use clap::Parser;
use towpath_config::Scenario;

/// Starts a whole deployment as real processes on loopback, proves it with traffic, and reports what was seen
#[derive(Debug, Parser)]
#[command(
    name = "scenario",
    version,
    after_help = "The parts can be started one by one, too: scenario gateway|ingress|sidecar|control-plane|service --help"
)]
pub(crate) struct Args {
    /// The deployment: ingress, in-cluster, attached or gateway-api
    #[arg(value_name = "WORD")]
    pub(crate) scenario: Scenario,
    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Keep everything running after the report, and print URLs and commands to try
    #[arg(long)]
    pub(crate) serve: bool,
    /// Keep the logs of all processes here
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_logs: Option<PathBuf>,
    /// Send less traffic: what tests use
    #[arg(long)]
    pub(crate) short: bool,
}

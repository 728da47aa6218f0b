//! `capture`: has the kernel redirect the connections of a workload to its sidecar.

mod apply;
mod iptables;
mod rules;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use self::iptables::Chains;
use self::rules::{Capture, Networks};
use crate::Failure;
use crate::check::print;

/// What `capture` takes.
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(subcommand)]
    command: CaptureCommand,
}

#[derive(Debug, Subcommand)]
enum CaptureCommand {
    /// Write the rules, in place of those of before
    Up(RuleArgs),
    /// Remove the rules
    Down {
        /// Which tool they were written with
        #[arg(long, value_enum)]
        tool: Option<Tool>,
    },
    /// Print what `up` would write, and change nothing
    Print(RuleArgs),
}

/// What the rules say.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    /// User whose connections to elsewhere are not captured: the one that the sidecar runs as, and nobody else
    #[arg(long, value_name = "UID", default_value_t = 1337)]
    uid: u32,
    /// Port of the sidecar's --capture-inbound; 0 leaves connections to the workload alone
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    inbound: u16,
    /// Port of the sidecar's --capture-outbound; 0 leaves connections of the workload alone
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    outbound: u16,
    /// Ports of the workload that connections reach without the sidecar
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_values_t = [22, 15008])]
    exclude_inbound_ports: Vec<u16>,
    /// Ports that the workload reaches without the sidecar
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    exclude_outbound_ports: Vec<u16>,
    /// Networks that the workload reaches without the sidecar
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    exclude_outbound_networks: Vec<Network>,
    /// Addresses of the application that the sidecar is given by --capture-app and --inbound: what it sends there is not captured
    #[arg(long, value_name = "IP", value_delimiter = ',', default_values_t = [IpAddr::V4(Ipv4Addr::LOCALHOST)])]
    app: Vec<IpAddr>,
    /// What writes the rules [default: nft where it is installed, else iptables]
    #[arg(long, value_enum)]
    tool: Option<Tool>,
}

/// What rules are written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// nftables (Linux 5.2 or newer): one table for both families of addresses
    Nft,
    /// iptables and ip6tables
    Iptables,
}

/// `ADDRESS/LENGTH`.
type Network = ipnet::IpNet;

/// Does what was asked for.
pub(crate) fn capture(args: &CaptureArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        CaptureCommand::Print(args) => {
            let capture = args.capture()?;
            match apply::chosen(args.tool)? {
                Tool::Nft => print(&capture.nft()),
                Tool::Iptables => {
                    let text = |family| Chains::default().replaced_by(&capture.iptables(family));
                    print(&format_args!(
                        "# iptables-restore --noflush\n{}# ip6tables-restore --noflush\n{}",
                        text(Networks::V4),
                        text(Networks::V6)
                    ));
                }
            }
        }
        CaptureCommand::Up(args) => {
            let capture = args.capture()?;
            let tool = apply::chosen(args.tool)?;
            apply::up(tool, &capture)?;
            print(&format_args!(
                "connections are captured; those of user {} to elsewhere are not\n",
                args.uid
            ));
        }
        CaptureCommand::Down { tool } => {
            let removed = apply::down(*tool)?;
            print(&if removed {
                "connections are no longer captured\n"
            } else {
                "there was nothing to remove\n"
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl RuleArgs {
    fn capture(&self) -> Result<Capture, Failure> {
        if self.inbound == 0 && self.outbound == 0 {
            return Err("neither way is captured: give --inbound or --outbound a port".into());
        }
        let mut networks = self.exclude_outbound_networks.clone();
        for network in &mut networks {
            *network = network.trunc();
        }
        Ok(Capture {
            uid: self.uid,
            inbound: (self.inbound != 0).then_some(self.inbound),
            outbound: (self.outbound != 0).then_some(self.outbound),
            inbound_ports: self.exclude_inbound_ports.clone(),
            outbound_ports: self.exclude_outbound_ports.clone(),
            outbound_networks: networks,
            applications: self.app.iter().map(IpAddr::to_canonical).collect(),
        })
    }
}

//! Where load comes from, and what it reports.

mod h2load;
pub(crate) mod handshakes;
mod wrk;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::process::{Pin, Process};
use crate::{Failure, tools};

/// Time beyond the seconds of load before it is given up.
const GRACE: Duration = Duration::from_secs(20);

/// What one run of load did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// Requests answered.
    pub(crate) requests: u64,
    /// Requests that failed, or were answered with something else than success.
    pub(crate) failed: u64,
    /// Requests answered in a second.
    pub(crate) per_second: f64,
    /// Median latency in milliseconds.
    pub(crate) p50_ms: Option<f64>,
    /// 99th percentile of latency in milliseconds.
    pub(crate) p99_ms: Option<f64>,
}

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// HTTP/1.1 with keep-alive, as fast as it goes.
    Wrk { connections: u32 },
    /// HTTP/2, as fast as it goes.
    H2 { connections: u32, streams: u32 },
    /// HTTP/1.1 at a fixed rate.
    Rate { connections: u32, per_second: u32 },
    /// A new connection with a full handshake for each request.
    Handshakes { connections: u32 },
}

/// Where load goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) path: String,
}

impl Target {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }
}

impl Load {
    /// The program that is missing for it, if one is.
    pub(crate) fn lacks(self) -> Option<tools::Tool> {
        let tool = match self {
            Self::Wrk { .. } => tools::WRK,
            Self::H2 { .. } | Self::Rate { .. } => tools::H2LOAD,
            Self::Handshakes { .. } => return None,
        };
        tool.find().is_none().then_some(tool)
    }

    /// Sends load for so many seconds. Files go below `dir`, where `root` is the root certificate to trust.
    pub(crate) fn send(
        self,
        target: &Target,
        secs: u32,
        pin: &Pin,
        dir: &Path,
        root: &Path,
    ) -> Result<Done, Failure> {
        let limit = Duration::from_secs(secs.into()) + GRACE;
        let run = |program: &Path, args: Vec<String>| {
            Process::start(pin, "load", program, &args, dir)?.finish(limit)
        };
        let url = target.url();
        match self {
            Self::Wrk { connections } => {
                wrk::parse(&run(&tools::WRK.need()?, wrk::args(&url, connections, secs))?)
            }
            Self::H2 { .. } | Self::Rate { .. } => {
                let log = dir.join("h2load.log");
                let _ = std::fs::remove_file(&log);
                let said = run(&tools::H2LOAD.need()?, h2load::args(self, &url, secs, &log))?;
                h2load::parse(&said, &std::fs::read_to_string(&log).unwrap_or_default())
            }
            Self::Handshakes { connections } => {
                let args = handshakes::args(target.address, connections, secs, root);
                handshakes::parse(&run(&std::env::current_exe()?, args)?)
            }
        }
    }
}

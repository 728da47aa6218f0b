//! The proxies: how each is set up for a role and started.

mod envoy;
mod haproxy;
mod nginx;
mod pingora;
mod towpath;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use serde::Serialize;

use crate::Failure;
use crate::certificates::Certificates;
use crate::process::{Pin, Process};
use crate::tools::{self, Tool};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Towpath,
    Nginx,
    Haproxy,
    Envoy,
    Pingora,
}

/// What a proxy is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Plaintext and TLS listeners before the backend; `/` leads to it.
    Edge,
    /// A plaintext listener with so many prefixes `/r0/`, `/r1/`, … and nothing else.
    Table(u32),
    /// A plaintext listener like that of an edge, with an access log or without.
    Logging(bool),
    /// A plaintext listener, mutual TLS to the next proxy.
    Originate(SocketAddr),
    /// A listener that asks for mutual TLS, plaintext to the backend.
    Accept,
}

/// What proxies are set up with.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) dir: PathBuf,
    pub(crate) certificates: Certificates,
    pub(crate) backend: SocketAddr,
    pub(crate) pin: Pin,
    /// Where `gateway` and `sidecar` are, if not in this program.
    pub(crate) bin_dir: Option<PathBuf>,
    /// Proxies started so far: each has files of its own.
    pub(crate) started: AtomicUsize,
}

/// How a proxy is started.
#[derive(Debug)]
struct Start {
    program: PathBuf,
    args: Vec<String>,
    plain: Option<SocketAddr>,
    tls: Option<SocketAddr>,
}

/// A started proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
}

impl Kind {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Towpath => "towpath",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
        }
    }

    /// The program of others that it is; Towpath needs none.
    pub(crate) fn tool(self) -> Option<Tool> {
        match self {
            Self::Towpath => None,
            Self::Nginx => Some(tools::NGINX),
            Self::Haproxy => Some(tools::HAPROXY),
            Self::Envoy => Some(tools::ENVOY),
            Self::Pingora => Some(tools::PINGORA),
        }
    }

    /// Starts it in a role; `None` if it has no part in that.
    pub(crate) fn start(self, role: Role, ground: &Ground) -> Result<Option<Proxy>, Failure> {
        if matches!(role, Role::Logging(_)) && self != Self::Towpath {
            return Ok(None);
        }
        let number = ground.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.name());
        let dir = ground.dir.join(&name);
        std::fs::create_dir_all(&dir)?;
        let start = match self {
            Self::Towpath => Some(towpath::start(role, &dir, ground)?),
            Self::Nginx => Some(nginx::start(role, &dir, ground)?),
            Self::Haproxy => Some(haproxy::start(role, &dir, ground)?),
            Self::Envoy => Some(envoy::start(role, &dir, ground)?),
            Self::Pingora => pingora::start(role, ground)?,
        };
        let Some(Start { program, args, plain, tls }) = start else { return Ok(None) };
        let process = Process::start(&ground.pin, &name, &program, &args, &dir)?;
        Ok(Some(Proxy { process, plain, tls }))
    }
}

/// The prefix of the route of this number.
pub(crate) fn prefix(number: u32) -> String {
    format!("/r{number}/")
}

fn written(dir: &Path, name: &str, text: &str) -> Result<String, Failure> {
    let file = dir.join(name);
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}

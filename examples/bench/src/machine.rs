//! What ran where: without it a figure says nothing.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::proxy::Kind;

/// The machine and the versions of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Seconds since 1970 when the run began.
    pub(crate) began: u64,
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    /// Version lines of the proxies.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// Of this machine.
    pub(crate) fn here(kinds: &[Kind], bin_dir: Option<&Path>) -> Self {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        Self {
            began: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor(&read("/proc/cpuinfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            versions: kinds.iter().map(|kind| version(*kind, bin_dir)).collect(),
        }
    }
}

fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

/// What the program says of itself, in one line.
fn version(kind: Kind, bin_dir: Option<&Path>) -> String {
    let flag = match kind {
        Kind::Towpath if bin_dir.is_some() => return "towpath (programs of the caller)".to_owned(),
        Kind::Towpath => return format!("towpath {} ({})", env!("CARGO_PKG_VERSION"), build()),
        Kind::Pingora => return "pingora (a program of the caller)".to_owned(),
        Kind::Envoy => "--version",
        Kind::Nginx | Kind::Haproxy => "-v",
    };
    let said = kind.tool().and_then(crate::tools::Tool::find).and_then(|program| {
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    });
    said.map_or_else(|| format!("{}: unknown", kind.name()), |said| words(&said, kind))
}

/// The version without the path of the program, which some put first.
fn words(said: &str, kind: Kind) -> String {
    let rest = said.rsplit_once("version").map_or(said, |(_, rest)| rest);
    format!("{} {}", kind.name(), rest.trim_start_matches([':', ' ']).trim())
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug build: figures mean nothing" } else { "optimized build" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_no_path_in_it() {
        for (said, kind, expected) in [
            ("/opt/versions/3/envoy  version: abc/1.40.0/Clean", Kind::Envoy, "envoy abc/1.40.0/Clean"),
            ("nginx version: nginx/1.22.1", Kind::Nginx, "nginx nginx/1.22.1"),
            ("HAProxy version 2.6.12-1 2023/12/16", Kind::Haproxy, "haproxy 2.6.12-1 2023/12/16"),
        ] {
            assert_eq!(words(said, kind), expected);
        }
    }

    #[test]
    fn the_processor_is_named_once() {
        assert_eq!(processor("processor : 0\nmodel name\t: Some CPU\nmodel name\t: Other\n"), "Some CPU");
    }
}

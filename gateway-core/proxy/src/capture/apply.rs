//! Has the rules written by the tools of the system.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Tool;
use super::rules::{Capture, Networks, TABLE, iptables_removal};
use crate::Failure;

/// The tool that was asked for, or the one that is there.
pub(super) fn chosen(tool: Option<Tool>) -> Result<Tool, Failure> {
    match tool {
        Some(tool) => Ok(tool),
        None if is_there("nft") => Ok(Tool::Nft),
        None if is_there("iptables") => Ok(Tool::Iptables),
        None => {
            Err("neither `nft` nor `iptables` is installed: install nftables, or name one with --tool".into())
        }
    }
}

/// Writes the rules in place of those of before. Nothing is half written: each tool takes a family, or both, at once.
pub(super) fn up(tool: Tool, capture: &Capture) -> Result<(), Failure> {
    match tool {
        Tool::Nft => {
            ok("nft", run("nft", &["-f", "-"], Some(&capture.nft()))?)?;
        }
        Tool::Iptables => {
            remove_iptables()?;
            for (program, family) in families() {
                let written = run(program, &["--noflush"], Some(&capture.iptables(family)))
                    .and_then(|output| ok(program, output));
                if let Err(error) = written {
                    // One family alone would let the other pass by.
                    remove_iptables()?;
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// The families of addresses that the system has.
fn families() -> impl Iterator<Item = (&'static str, Networks)> {
    let v6 = Path::new("/proc/net/if_inet6").exists().then_some(("ip6tables-restore", Networks::V6));
    std::iter::once(("iptables-restore", Networks::V4)).chain(v6)
}

/// Removes the rules, of one tool or of each that is there. Says whether there were any.
pub(super) fn down(tool: Option<Tool>) -> Result<bool, Failure> {
    let mut removed = false;
    if tool.map_or_else(|| is_there("nft"), |tool| tool == Tool::Nft) {
        let listed = run("nft", &["list", "tables", "inet"], None)?;
        let listed = ok("nft", listed)?;
        if listed.lines().any(|line| line.split_whitespace().eq(["table", "inet", TABLE])) {
            ok("nft", run("nft", &["delete", "table", "inet", TABLE], None)?)?;
            removed = true;
        }
    }
    if tool.map_or_else(|| is_there("iptables"), |tool| tool == Tool::Iptables) {
        removed |= remove_iptables()?;
    }
    Ok(removed)
}

fn remove_iptables() -> Result<bool, Failure> {
    let mut removed = false;
    for program in ["iptables", "ip6tables"] {
        for (leads, chain) in iptables_removal() {
            // As often as it was added; what is not there is no error.
            while run(program, &leads, None)?.status.success() {
                removed = true;
            }
            for command in chain {
                removed |= run(program, &command, None)?.status.success();
            }
        }
    }
    Ok(removed)
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<Output, Failure> {
    let failed = |error: std::io::Error| -> Failure {
        match error.kind() {
            std::io::ErrorKind::NotFound => format!("`{program}` is not installed").into(),
            _ => format!("cannot run `{program}`: {error}").into(),
        }
    };
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        // A tool that ends before it has read all says why by itself.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output().map_err(failed)
}

fn ok(program: &str, output: Output) -> Result<String, Failure> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why").trim();
    let hint = match said {
        said if said.contains("Permission") || said.contains("not permitted") => {
            "; it needs root or CAP_NET_ADMIN"
        }
        _ => "",
    };
    Err(format!("`{program}` failed: {said}{hint}").into())
}

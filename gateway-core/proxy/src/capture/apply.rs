//! Has the rules written by the tools of the system.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Tool;
use super::iptables::Chains;
use super::rules::{Capture, Networks, TABLE};
use crate::Failure;
use crate::log::say;

/// The tool that was asked for, or the one that is there.
pub(super) fn chosen(tool: Option<Tool>) -> Result<Tool, Failure> {
    tool.or_else(|| those_there().next()).ok_or_else(|| {
        "neither `nft` nor `iptables` is installed: install nftables, or name one with --tool".into()
    })
}

/// Writes the rules in place of those of before, whichever tool wrote them; on an error those stay in force.
pub(super) fn up(tool: Tool, capture: &Capture) -> Result<(), Failure> {
    match tool {
        Tool::Nft => {
            ok("nft", run("nft", &["-f", "-"], Some(&capture.nft()))?)?;
        }
        Tool::Iptables => {
            replace_iptables(|family| capture.iptables(family))?;
        }
    }
    // Only now: for a moment both are in force, and never neither.
    for other in those_there().filter(|other| *other != tool) {
        if let Err(error) = remove(other) {
            say(format_args!("rules that another tool wrote may still be in force: {error}"));
        }
    }
    Ok(())
}

/// Removes the rules, of one tool or of each that is there. Says whether there were any.
pub(super) fn down(tool: Option<Tool>) -> Result<bool, Failure> {
    let tools: Vec<_> = tool.map_or_else(|| those_there().collect(), |tool| vec![tool]);
    if tools.is_empty() {
        return Err(
            "neither `nft` nor `iptables` is installed: what wrote the rules has to remove them".into()
        );
    }
    // What one tool cannot do keeps no other from it.
    let removed: Vec<_> = tools.into_iter().map(remove).collect();
    removed.into_iter().try_fold(false, |any, removed| Ok(any | removed?))
}

fn remove(tool: Tool) -> Result<bool, Failure> {
    match tool {
        Tool::Nft => {
            let listed = ok("nft", run("nft", &["list", "tables", "inet"], None)?)?;
            let there = listed.lines().any(|line| line.split_whitespace().eq(["table", "inet", TABLE]));
            if there {
                ok("nft", run("nft", &["delete", "table", "inet", TABLE], None)?)?;
            }
            Ok(there)
        }
        Tool::Iptables => replace_iptables(|_| Chains::default()),
    }
}

/// What writes the rules of a family.
#[derive(Debug, Clone, Copy)]
struct Programs {
    family: Networks,
    list: &'static str,
    restore: &'static str,
}

/// Of the families of addresses that the system has.
fn families() -> Vec<Programs> {
    let v4 = Programs { family: Networks::V4, list: "iptables", restore: "iptables-restore" };
    let v6 = Programs { family: Networks::V6, list: "ip6tables", restore: "ip6tables-restore" };
    if Path::new("/proc/net/if_inet6").exists() { vec![v4, v6] } else { vec![v4] }
}

impl Programs {
    fn chains(self) -> Result<Chains, Failure> {
        let output = run(self.list, &["-t", "nat", "-S"], None)?;
        // A kernel that has no such table.
        if String::from_utf8_lossy(&output.stderr).contains("do you need to insmod?") {
            return Ok(Chains::default());
        }
        Ok(Chains::listed(&ok(self.list, output)?))
    }

    fn replace(self, old: &Chains, new: &Chains) -> Result<(), Failure> {
        if !old.is_empty() || !new.is_empty() {
            ok(self.restore, run(self.restore, &["--noflush"], Some(&old.replaced_by(new)))?)?;
        }
        Ok(())
    }
}

/// Says whether there were chains of before.
fn replace_iptables(new: impl Fn(Networks) -> Chains) -> Result<bool, Failure> {
    let mut before = Vec::new();
    for programs in families() {
        before.push((programs, programs.chains()?));
    }
    for (at, (programs, old)) in before.iter().enumerate() {
        if let Err(error) = programs.replace(old, &new(programs.family)) {
            // One family alone would let the other pass by.
            for (programs, old) in before.iter().take(at) {
                programs.replace(&new(programs.family), old)?;
            }
            return Err(error);
        }
    }
    Ok(before.iter().any(|(_, old)| !old.is_empty()))
}

/// The tools that are installed, the better one first.
fn those_there() -> impl Iterator<Item = Tool> {
    [Tool::Nft, Tool::Iptables].into_iter().filter(|tool| is_there(*tool))
}

fn is_there(tool: Tool) -> bool {
    let runs = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    match tool {
        Tool::Nft => runs("nft"),
        Tool::Iptables => families().iter().all(|programs| runs(programs.list) && runs(programs.restore)),
    }
}

fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<Output, Failure> {
    let failed = |error: std::io::Error| -> Failure {
        match error.kind() {
            std::io::ErrorKind::NotFound => format!("`{program}` is not installed, or not in PATH").into(),
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
    let said = said
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .unwrap_or("it did not say why")
        .trim();
    let hint = match said {
        said if said.contains("Permission") || said.contains("not permitted") => {
            "; it needs root or CAP_NET_ADMIN"
        }
        _ => "",
    };
    Err(format!("`{program}` failed: {said}{hint}").into())
}

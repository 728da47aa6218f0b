//! Processes of a run, each ended when its handle goes.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Failure, interrupt, usage};

const GRACE: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(5);

/// Which cores a process runs on.
#[derive(Debug, Clone)]
pub(crate) enum Pin {
    /// Any.
    Free,
    /// These, by this `taskset`.
    To(PathBuf, String),
}

impl Pin {
    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Free => Command::new(program),
            Self::To(taskset, cpus) => {
                let mut command = Command::new(taskset);
                command.arg("-c").arg(cpus).arg(program);
                command
            }
        }
    }
}

/// A running program; its output goes to a file.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts a program. Its output is in `<dir>/<name>.out`.
    pub(crate) fn start(
        pin: &Pin,
        name: &str,
        program: &Path,
        args: &[String],
        dir: &Path,
    ) -> Result<Self, Failure> {
        let output = dir.join(format!("{name}.out"));
        let file = File::create(&output)?;
        let child = pin
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // A group of its own: Ctrl-C comes to us, and we end it by its handle.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {name} ({}): {error}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// It and its children.
    pub(crate) fn family(&self) -> Vec<u32> {
        usage::family(self.child.id())
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// An error if it ended by itself.
    pub(crate) fn must_run(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended with {status}: {}", self.name, tail(&self.said())).into()),
        }
    }

    /// Waits until it has done its work, and takes what it said.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            interrupt::check()?;
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(self.said()),
                Some(status) => {
                    return Err(format!("{} ended with {status}: {}", self.name, tail(&self.said())).into());
                }
                None if Instant::now() > deadline => {
                    return Err(format!("{} did not end within {} s", self.name, limit.as_secs()).into());
                }
                None => sleep(STEP),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.runs() {
            return;
        }
        // Children first known are children ended: a script in between would leave the program behind.
        let family = self.family();
        signal("-TERM", &family);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && (self.runs() || family.iter().any(|pid| usage::is_alive(*pid))) {
            sleep(STEP);
        }
        let left: Vec<u32> = family.into_iter().filter(|pid| usage::is_alive(*pid)).collect();
        if !left.is_empty() {
            signal("-KILL", &left);
        }
        let _ = self.child.wait();
    }
}

/// Signals these processes and no others. `kill` of the system's own tools: a system call of ours would need unsafe code.
fn signal(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
}

/// The last lines of an output.
fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Process {
        let args = ["-c".to_owned(), "sleep 600 & wait".to_owned()];
        Process::start(&Pin::Free, "sleeper", Path::new("sh"), &args, dir).unwrap()
    }

    #[test]
    fn a_dropped_handle_ends_the_process_and_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        let family = loop {
            let family = process.family();
            if family.len() > 1 {
                break family;
            }
        };
        drop(process);
        for pid in family {
            assert!(!usage::is_alive(pid), "{pid} is still there");
        }
    }

    #[test]
    fn what_takes_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = sleeper(dir.path()).finish(Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo broken; exit 3".to_owned()];
        let process = Process::start(&Pin::Free, "failing", Path::new("sh"), &args, dir.path()).unwrap();
        let error = process.finish(Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }
}

//! The processes of a run: each the same executable under another word, each ended when its handle goes.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::plan::Part;

/// A running part.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    err: PathBuf,
}

impl Process {
    /// Starts a part; its output goes to `<logs>/<name>.jsonl`, its messages to `<logs>/<name>.err`.
    pub(crate) fn start(executable: &Path, part: &Part, logs: &Path) -> io::Result<Self> {
        let err = logs.join(format!("{}.err", part.name));
        let child = Command::new(executable)
            .arg(part.program)
            .args(&part.args)
            .stdin(Stdio::null())
            .stdout(File::create(log_of(logs, &part.name))?)
            .stderr(File::create(&err)?)
            // Ctrl-C in a terminal goes to a whole group: the launcher alone is to hear it, and asks its children once.
            .process_group(0)
            .spawn()?;
        Ok(Self { name: part.name.clone(), child, err })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself, with the last of what it said.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let said = std::fs::read_to_string(&self.err).unwrap_or_default();
        let tail: Vec<_> = said.lines().rev().take(5).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        Some(format!("{} ended with {status}: {}", self.name, tail.join(" | ")))
    }

    /// Asks it to finish. The signal goes to this child's pid alone.
    fn ask(&self) {
        // `kill` of the shell's own tools: a system call of ours would need unsafe code.
        let _ = Command::new("kill").arg("-TERM").arg(self.pid().to_string()).stderr(Stdio::null()).status();
    }

    fn end_by(&mut self, deadline: Instant) -> Option<ExitStatus> {
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

/// Where a part's output goes.
pub(crate) fn log_of(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.jsonl"))
}

/// All parts of a run. Dropping it ends every one, always.
#[derive(Debug, Default)]
pub(crate) struct Processes(Vec<Process>);

impl Processes {
    /// Adds a part.
    pub(crate) fn push(&mut self, process: Process) {
        self.0.push(process);
    }

    /// The parts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.0.iter()
    }

    /// The first part that ended by itself, with what it said.
    pub(crate) fn first_ended(&mut self) -> Option<String> {
        self.0.iter_mut().find_map(Process::ended)
    }

    /// Asks all to finish and waits; what has not ended after a grace of three seconds is killed.
    /// Returns the names of those that did not end well.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.0.iter().for_each(Process::ask);
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut bad = Vec::new();
        for mut process in self.0.drain(..) {
            match process.end_by(deadline) {
                Some(status) if status.success() => {}
                _ => bad.push(process.name.clone()),
            }
        }
        bad
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}

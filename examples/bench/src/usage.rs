//! What a process and its children have used, from `/proc`.

use std::fs;

/// Ticks of `/proc/PID/stat` in a second: fixed by Linux for what user space sees.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process and all its descendants. Some programs fork, and some are started through a script.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let (mut found, mut ask) = (Vec::new(), vec![pid]);
    while let Some(pid) = ask.pop() {
        found.push(pid);
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            ask.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Whether a process is there and not just waiting to be reaped.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Seconds of CPU time (user and system) of a family.
pub(crate) fn cpu_seconds(family: &[u32]) -> f64 {
    let ticks = family.iter().filter_map(|pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?));
    ticks.map(crate::statistics::float).sum::<f64>() / TICKS_PER_SECOND
}

/// Resident memory of a family in MiB.
pub(crate) fn rss_mib(family: &[u32]) -> f64 {
    let kib =
        family.iter().filter_map(|pid| resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?));
    kib.map(crate::statistics::float).sum::<f64>() / 1024.0
}

/// utime and stime of `/proc/PID/stat`: fields 14 and 15. The second field, the name, may hold blanks and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = after_name.next()?.parse().ok()?;
    let system: u64 = after_name.next()?.parse().ok()?;
    Some(user + system)
}

/// `VmRSS` of `/proc/PID/status`, in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_does_not_shift_the_fields() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 700 300 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(1000));
        assert_eq!(ticks("42 (cut"), None);
    }

    #[test]
    fn resident_memory_is_in_kib() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12345 kB\n"), Some(12345));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(rss_mib(&family(std::process::id())) > 0.1);
    }
}

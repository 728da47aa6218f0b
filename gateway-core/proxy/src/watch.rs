//! Tells when something below the paths of the configuration changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a burst of changes may go on before it is read: editors and symlink swaps touch several files.
const SETTLE: Duration = Duration::from_millis(50);

/// A burst longer than this is read while it goes on: a busy log in the same directory never settles.
const LONGEST_BURST: Duration = Duration::from_secs(1);

/// Watches paths for as long as it lives.
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
    // A change that was seen and not told yet.
    seen: bool,
}

impl Watch {
    /// Watches directories with all below them, and the directory of each file: a file that is replaced (as editors
    /// and Kubernetes do it) is another file, and would be lost from sight.
    pub(crate) fn start(paths: &[PathBuf]) -> notify::Result<Self> {
        let (tell, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A full channel holds a change that has not been looked at yet: one is enough.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _ = tell.try_send(());
            }
        })?;
        for path in paths {
            let (place, mode) = if path.is_dir() {
                (path.as_path(), RecursiveMode::Recursive)
            } else {
                (directory_of(path), RecursiveMode::NonRecursive)
            };
            watcher.watch(place, mode)?;
        }
        Ok(Self { _watcher: watcher, changes, seen: false })
    }

    /// Waits for a change, and until the burst that it belongs to is over. Dropping the future loses no change.
    pub(crate) async fn changed(&mut self) {
        if !self.seen && self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        self.seen = true;
        let settled = async {
            while timeout(SETTLE, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
        };
        let _ = timeout(LONGEST_BURST, settled).await;
        self.seen = false;
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seen(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_changed_and_a_replaced_file_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::start(std::slice::from_ref(&file)).unwrap();
        std::fs::write(&file, "two").unwrap();
        assert!(seen(&mut watch).await);
        let other = dir.path().join("b");
        std::fs::write(&other, "three").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert!(seen(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_without_end_is_read_all_the_same() {
        let (tell, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(|_: notify::Result<Event>| {}).unwrap();
        let mut watch = Watch { _watcher: watcher, changes, seen: false };
        tokio::spawn(async move {
            while tell.send(()).await.is_ok() {
                tokio::time::sleep(SETTLE / 2).await;
            }
        });
        assert!(seen(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_outlives_the_future_that_saw_it() {
        let (tell, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(|_: notify::Result<Event>| {}).unwrap();
        let mut watch = Watch { _watcher: watcher, changes, seen: false };
        tell.send(()).await.unwrap();
        assert!(timeout(SETTLE / 2, watch.changed()).await.is_err());
        assert!(seen(&mut watch).await);
    }

    #[tokio::test]
    async fn a_path_that_is_not_there_is_an_error() {
        assert!(Watch::start(&["no/such/place/a.yaml".into()]).is_err());
    }
}

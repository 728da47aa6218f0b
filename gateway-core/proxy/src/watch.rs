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
    watcher: RecommendedWatcher,
    paths: Vec<PathBuf>,
    // What the paths stood for when they were last watched: a link may be turned to another directory.
    real: Vec<Option<PathBuf>>,
    changes: mpsc::Receiver<()>,
    // A change that was seen and not told yet.
    seen: bool,
}

impl Watch {
    /// Watches directories with all below them, and the directory that each path stands in: what is replaced (a file
    /// by an editor, a link by a roll-out) is another file, and would be lost from sight.
    pub(crate) fn start(paths: &[PathBuf]) -> notify::Result<Self> {
        let (tell, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A full channel holds a change that has not been looked at yet: one is enough.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _ = tell.try_send(());
            }
        })?;
        place(&mut watcher, paths)?;
        let (paths, real) = (paths.to_vec(), real(paths));
        Ok(Self { watcher, paths, real, changes, seen: false })
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
        self.follow_links();
        self.seen = false;
    }

    /// Watches what the paths stand for now, before anybody reads it.
    fn follow_links(&mut self) {
        let real = real(&self.paths);
        if real == self.real {
            return;
        }
        self.real = real;
        // A path that is gone is told by whoever reads it; its directory is watched on.
        if let Err(error) = place(&mut self.watcher, &self.paths) {
            tracing::warn!("cannot watch the configuration: {error}");
        }
    }
}

fn place(watcher: &mut RecommendedWatcher, paths: &[PathBuf]) -> notify::Result<()> {
    for path in paths {
        watcher.watch(directory_of(path), RecursiveMode::NonRecursive)?;
        if path.is_dir() {
            watcher.watch(path, RecursiveMode::Recursive)?;
        }
    }
    Ok(())
}

fn real(paths: &[PathBuf]) -> Vec<Option<PathBuf>> {
    paths.iter().map(|path| path.canonicalize().ok()).collect()
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

    fn fed_by(changes: mpsc::Receiver<()>) -> Watch {
        let watcher = notify::recommended_watcher(|_: notify::Result<Event>| {}).unwrap();
        Watch { watcher, paths: Vec::new(), real: Vec::new(), changes, seen: false }
    }

    #[tokio::test]
    async fn a_link_that_is_turned_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        let (current, next) = (dir.path().join("current"), dir.path().join("next"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        std::os::unix::fs::symlink(&one, &current).unwrap();
        let mut watch = Watch::start(std::slice::from_ref(&current)).unwrap();
        std::os::unix::fs::symlink(&two, &next).unwrap();
        std::fs::rename(&next, &current).unwrap();
        assert!(seen(&mut watch).await);
        // What the link left is of no interest any more; what it was turned to is.
        std::fs::write(two.join("a.yaml"), "new").unwrap();
        assert!(seen(&mut watch).await);
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
        let mut watch = fed_by(changes);
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
        let mut watch = fed_by(changes);
        tell.send(()).await.unwrap();
        assert!(timeout(SETTLE / 2, watch.changed()).await.is_err());
        assert!(seen(&mut watch).await);
    }

    #[tokio::test]
    async fn a_path_that_is_not_there_is_an_error() {
        assert!(Watch::start(&["no/such/place/a.yaml".into()]).is_err());
    }
}

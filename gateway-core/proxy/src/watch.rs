//! Tells when something below the paths of the configuration changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a burst of changes may go on before it is read: editors and symlink swaps touch several files.
const SETTLE: Duration = Duration::from_millis(50);

/// A burst longer than this is read while it goes on: a busy log in the same directory never settles.
const LONGEST_BURST: Duration = Duration::from_secs(1);

/// How often it is asked whether the paths stand for what is watched: what is replaced further up tells nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Watches paths for as long as it lives.
pub(crate) struct Watch {
    #[allow(dead_code)] // held for its life alone
    watcher: RecommendedWatcher,
    paths: Vec<PathBuf>,
    // What the paths stood for when they were last watched.
    places: Vec<Option<Place>>,
    // Some of them could not be watched, and the watch is that of before.
    stale: bool,
    // That was told of.
    told: bool,
    tell: mpsc::Sender<()>,
    changes: mpsc::Receiver<()>,
    // A change that was seen and not told yet.
    seen: bool,
}

/// What a path stands for: another directory may take its name, and a link may be turned.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    real: PathBuf,
    device: u64,
    inode: u64,
}

impl Watch {
    /// Watches directories with all below them, and the directory that each path stands in: what is replaced (a file
    /// by an editor, a link by a roll-out) is another file, and would be lost from sight.
    pub(crate) fn start(paths: &[PathBuf]) -> notify::Result<Self> {
        let (tell, changes) = mpsc::channel(1);
        let places = places(paths);
        let watcher = watcher(paths, &tell)?;
        Ok(Self {
            watcher,
            paths: paths.to_vec(),
            places,
            stale: false,
            told: false,
            tell,
            changes,
            seen: false,
        })
    }

    /// Waits for a change, and until the burst that it belongs to is over. Dropping the future loses no change.
    pub(crate) async fn changed(&mut self) {
        while !self.seen {
            self.seen = match timeout(LOOK_AGAIN, self.changes.recv()).await {
                Ok(_) => true,
                Err(_) if self.stale => {
                    self.follow();
                    // What is there and cannot be watched is looked at.
                    !self.stale || self.paths.iter().all(|path| path.exists())
                }
                Err(_) => places(&self.paths) != self.places,
            };
        }
        let settled = async {
            while timeout(SETTLE, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
        };
        let _ = timeout(LONGEST_BURST, settled).await;
        self.follow();
        self.seen = false;
    }

    /// Watches what the paths stand for now, before anybody reads it: the kernel watches directories and not their names, and
    /// a new one may have the number of the old.
    fn follow(&mut self) {
        let places = places(&self.paths);
        let watched = watcher(&self.paths, &self.tell);
        self.stale = watched.is_err();
        match watched {
            Ok(watcher) => (self.watcher, self.places, self.told) = (watcher, places, false),
            // A path that is gone is told by whoever reads it.
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
            Err(error) if self.told => tracing::debug!("cannot watch the configuration: {error}"),
            Err(error) => {
                self.told = true;
                let every = LOOK_AGAIN.as_secs();
                tracing::warn!("cannot watch the configuration, and look at it every {every} s: {error}");
            }
        }
    }
}

fn watcher(paths: &[PathBuf], tell: &mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let tell = tell.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // A full channel holds a change that has not been looked at yet: one is enough.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = tell.try_send(());
        }
    })?;
    for path in paths {
        watcher.watch(directory_of(path), RecursiveMode::NonRecursive)?;
        if path.is_dir() {
            watcher.watch(path, RecursiveMode::Recursive)?;
        }
    }
    Ok(watcher)
}

/// The paths, and the directories that they stand in.
fn places(paths: &[PathBuf]) -> Vec<Option<Place>> {
    let place = |path: &Path| {
        let (real, found) = (path.canonicalize().ok()?, path.metadata().ok()?);
        Some(Place { real, device: found.dev(), inode: found.ino() })
    };
    paths.iter().flat_map(|path| [place(path), place(directory_of(path))]).collect()
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
        Watch { changes, ..Watch::start(&[]).unwrap() }
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (current, next, old) =
            (dir.path().join("current"), dir.path().join("next"), dir.path().join("old"));
        std::fs::create_dir(&current).unwrap();
        let mut watch = Watch::start(std::slice::from_ref(&current)).unwrap();
        for written_anew in [false, true] {
            if written_anew {
                std::fs::remove_dir_all(&current).unwrap();
                std::fs::create_dir(&current).unwrap();
            } else {
                std::fs::create_dir(&next).unwrap();
                std::fs::rename(&current, &old).unwrap();
                std::fs::rename(&next, &current).unwrap();
            }
            assert!(seen(&mut watch).await);
            quiet(&mut watch).await;
            std::fs::write(current.join("a.yaml"), "new").unwrap();
            assert!(seen(&mut watch).await, "{written_anew}");
            quiet(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_further_up_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (current, old) = (dir.path().join("a/b/c"), dir.path().join("old"));
        std::fs::create_dir_all(&current).unwrap();
        let mut watch = Watch::start(std::slice::from_ref(&current)).unwrap();
        std::fs::rename(dir.path().join("a"), old).unwrap();
        std::fs::create_dir_all(&current).unwrap();
        assert!(seen(&mut watch).await);
        quiet(&mut watch).await;
        std::fs::write(current.join("a.yaml"), "new").unwrap();
        assert!(seen(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_and_not_watched_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let begun = tokio::time::Instant::now();
        let mut watch = Watch { stale: true, ..Watch::start(&[dir.path().to_owned()]).unwrap() };
        assert!(seen(&mut watch).await && begun.elapsed() >= LOOK_AGAIN);
        assert!(!watch.stale, "it could be watched meanwhile");
    }

    /// Waits until nothing more is told of what was done before.
    async fn quiet(watch: &mut Watch) {
        while timeout(SETTLE * 4, watch.changed()).await.is_ok() {}
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

//! The configuration that the plane hands out, kept in step with the files it was read from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::ReadError;
use crate::documents::{self, Audience, Document};
use crate::files::{self, Found};

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(500);

/// After how many looks the files are read though their times have not changed: a write within one tick of the file
/// system's clock leaves no other trace.
const READ_ANYWAY: u32 = 10;

/// What a caller gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBundle {
    /// Changes with the content, and only then.
    pub version: String,
    /// The files, ordered by name.
    pub files: Vec<ConfigFile>,
}

/// One file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its path below the folder it was read from.
    pub name: String,
    /// Its text, with documents that the caller may not see replaced by empty lines.
    pub text: String,
}

/// The configuration in force. Clones share it.
#[derive(Clone)]
pub struct Configuration {
    paths: Arc<[PathBuf]>,
    tree: Arc<watch::Sender<Arc<Tree>>>,
}

/// A configuration as a caller may see it, ready to be sent.
pub(crate) struct View {
    pub(crate) version: String,
    pub(crate) json: Bytes,
}

pub(crate) struct Tree {
    found: Vec<Found>,
    files: Vec<(String, Vec<Document>)>,
    // One view for each namespace that has Secrets, and one for all others; made when first asked for.
    views: BTreeMap<String, OnceLock<Arc<View>>>,
    common: OnceLock<Arc<View>>,
}

impl Configuration {
    /// Reads the files and folders at `paths`.
    pub fn read(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, ReadError> {
        let paths: Arc<[PathBuf]> = paths.into_iter().collect();
        let found = files::find(&paths)?;
        let tree = Arc::new(Tree::read(found)?);
        Ok(Self { paths, tree: Arc::new(watch::Sender::new(tree)) })
    }

    /// Keeps in step with the files for as long as it is polled; looks every half second. What cannot be read is
    /// logged, and the last good version stays in force.
    pub async fn follow(self) {
        let mut ticks = interval_at(Instant::now() + POLL, POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut last_problem) = (0_u32, String::new());
        loop {
            ticks.tick().await;
            looks = looks.wrapping_add(1);
            let this = self.clone();
            let look = tokio::task::spawn_blocking(move || this.look(looks % READ_ANYWAY == 0));
            let problem = match look.await {
                Ok(Ok(())) => String::new(),
                Ok(Err(why)) => why.to_string(),
                Err(why) => why.to_string(),
            };
            if problem != last_problem && !problem.is_empty() {
                tracing::error!("{problem}; the last configuration stays in force");
            }
            last_problem = problem;
        }
    }

    fn look(&self, anyway: bool) -> Result<(), ReadError> {
        let found = files::find(&self.paths)?;
        let current = Arc::clone(&self.tree.borrow());
        if found == current.found && !anyway {
            return Ok(());
        }
        let tree = Tree::read(found)?;
        // A file that changed while it was read may be half written: the next look decides.
        if files::find(&self.paths)? == tree.found && tree.files != current.files {
            tracing::info!(files = tree.files.len(), "configuration changed");
            self.tree.send_replace(Arc::new(tree));
        }
        Ok(())
    }

    /// The configuration as a caller of `namespace` may see it.
    pub fn bundle(&self, namespace: Option<&str>) -> ConfigBundle {
        Arc::clone(&self.tree.borrow()).bundle(namespace)
    }

    /// How many files it has.
    pub fn file_count(&self) -> usize {
        self.tree.borrow().files.len()
    }

    pub(crate) fn view(&self, namespace: Option<&str>) -> Arc<View> {
        Arc::clone(&self.tree.borrow()).view(namespace)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Tree>> {
        self.tree.subscribe()
    }
}

impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configuration").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Tree {
    fn read(found: Vec<Found>) -> Result<Self, ReadError> {
        let mut files = Vec::new();
        for file in &found {
            files.push((file.name.clone(), documents::split(&files::read(file)?)));
        }
        let mut namespaces = BTreeSet::new();
        for (name, document) in files.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
            match &document.audience {
                Audience::Everyone => {}
                Audience::Namespace(namespace) => drop(namespaces.insert(namespace.clone())),
                Audience::Nobody => tracing::warn!(
                    file = %name,
                    "a document that may hold a Secret cannot be read and is withheld from everybody; correct it"
                ),
            }
        }
        let views = namespaces.into_iter().map(|namespace| (namespace, OnceLock::new())).collect();
        Ok(Self { found, files, views, common: OnceLock::new() })
    }

    fn view(&self, namespace: Option<&str>) -> Arc<View> {
        let cell = namespace.and_then(|namespace| self.views.get(namespace)).unwrap_or(&self.common);
        Arc::clone(cell.get_or_init(|| {
            let bundle = self.bundle(namespace);
            // A structure of strings always has a JSON form.
            let json = serde_json::to_vec(&bundle).unwrap_or_default().into();
            Arc::new(View { version: bundle.version, json })
        }))
    }

    fn bundle(&self, namespace: Option<&str>) -> ConfigBundle {
        let text = |documents: &[Document]| documents.iter().map(|one| one.seen_from(namespace)).collect();
        let files: Vec<_> =
            self.files.iter().map(|(name, all)| ConfigFile { name: name.clone(), text: text(all) }).collect();
        ConfigBundle { version: version(&files), files }
    }
}

/// The first half of the SHA-256 over names and texts, in hexadecimal.
fn version(files: &[ConfigFile]) -> String {
    let mut bytes = Vec::new();
    for part in files.iter().flat_map(|file| [&file.name, &file.text]) {
        // Lengths keep the end of one part and the begin of the next apart.
        bytes.extend_from_slice(&part.len().to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    let half = digest(&SHA256, &bytes).as_ref().first_chunk().copied().unwrap_or_default();
    format!("{:032x}", u128::from_be_bytes(half))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const SECRET: &str = "kind: Secret\nmetadata: {namespace: shop}\nstringData: {key: hunter2}\n";

    fn configuration(dir: &Path) -> Configuration {
        Configuration::read([dir.to_owned()]).unwrap()
    }

    #[test]
    fn a_secret_goes_to_its_namespace_alone_and_wakes_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "kind: Service\n").unwrap();
        fs::write(dir.path().join("s.yaml"), SECRET).unwrap();
        let configuration = configuration(dir.path());
        assert_eq!(configuration.bundle(Some("shop")).files[1].text, SECRET);
        let before = configuration.bundle(Some("edge"));
        assert_eq!(before.files[1].text.trim(), "");
        fs::write(dir.path().join("s.yaml"), SECRET.replace("hunter2", "hunter3")).unwrap();
        configuration.look(true).unwrap();
        assert!(configuration.bundle(Some("shop")).files[1].text.contains("hunter3"));
        assert_eq!(configuration.bundle(Some("edge")), before);
        assert_eq!(configuration.view(None).version, before.version);
    }

    #[test]
    fn the_last_good_version_stays_when_the_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("config");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.yaml"), "kind: Service\n").unwrap();
        let configuration = configuration(&folder);
        let before = configuration.bundle(None);
        fs::remove_dir_all(&folder).unwrap();
        assert!(configuration.look(false).is_err());
        assert_eq!(configuration.bundle(None), before);
    }

    #[test]
    fn versions_tell_contents_apart() {
        let file = |name: &str, text: &str| ConfigFile { name: name.into(), text: text.into() };
        assert_ne!(version(&[file("a", "bc")]), version(&[file("ab", "c")]));
        assert_ne!(version(&[file("a", "b")]), version(&[file("a", "b"), file("", "")]));
        assert_eq!(version(&[]).len(), 32);
    }

    #[tokio::test]
    async fn a_change_of_the_files_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "kind: Service\n").unwrap();
        let configuration = configuration(dir.path());
        let mut changes = configuration.changes();
        let follow = tokio::spawn(configuration.clone().follow());
        fs::write(dir.path().join("b.yaml"), "kind: HTTPRoute\n").unwrap();
        changes.changed().await.unwrap();
        assert_eq!(configuration.file_count(), 2);
        follow.abort();
    }
}

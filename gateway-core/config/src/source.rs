//! The texts that configuration is made of.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All texts together may have this many bytes.
const MAX_TOTAL: u64 = 64 << 20;

/// Directories nested deeper than this are taken for a loop.
const MAX_DEPTH: usize = 32;

/// Named texts, in the order in which they are compiled.
#[derive(Debug, Clone, Default)]
pub struct Source {
    files: Vec<(Arc<str>, Arc<str>)>,
    dangling: Vec<Arc<str>>,
}

/// Why the texts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A path that was named, or something below it, cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not text.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// The files together pass 64 MiB.
    #[error("the files pass {} MiB together at {}: is a wrong directory named?", MAX_TOTAL >> 20, path.display())]
    TooLarge {
        /// The file at which the limit was passed.
        path: PathBuf,
    },
    /// Directories are nested too deeply.
    #[error("{} is nested more than {MAX_DEPTH} directories deep: is there a loop of links?", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
}

impl Source {
    /// Reads files as they are named, and directories recursively: `*.yaml`, `*.yml` and `*.json`, in whatever case, sorted by
    /// path. Names that begin with a dot are left out below a directory, as are files that were read under another name:
    /// Kubernetes mounts a volume as links into a hidden directory.
    pub fn read(paths: &[PathBuf]) -> Result<Self, SourceError> {
        let mut reader = Reader::default();
        for path in paths {
            let unreadable = |error| SourceError::Unreadable { path: path.clone(), error };
            if fs::metadata(path).map_err(unreadable)?.is_dir() {
                reader.directory(path, 0)?;
            } else {
                reader.file(path)?;
            }
        }
        Ok(Self { files: reader.files, dangling: reader.dangling })
    }

    /// Texts that are in hand, each with a name for messages.
    pub fn from_files(files: Vec<(String, String)>) -> Self {
        let files = files.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        Self { files, dangling: Vec::new() }
    }

    /// Name and text of each file.
    pub fn files(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.files.iter().map(|(name, text)| (name, text))
    }

    /// Links in directories to what is not there: nobody can tell what was to be read.
    pub(crate) fn dangling(&self) -> impl Iterator<Item = &Arc<str>> {
        self.dangling.iter()
    }
}

#[derive(Default)]
struct Reader {
    files: Vec<(Arc<str>, Arc<str>)>,
    dangling: Vec<Arc<str>>,
    seen: BTreeSet<PathBuf>,
    total: u64,
}

impl Reader {
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), SourceError> {
        if depth > MAX_DEPTH {
            return Err(SourceError::TooDeep { path: path.into() });
        }
        let unreadable = |error| SourceError::Unreadable { path: path.into(), error };
        let entries: Result<Vec<_>, _> =
            fs::read_dir(path).map_err(unreadable)?.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut entries = entries.map_err(unreadable)?;
        entries.sort();
        for entry in entries.into_iter().filter(|entry| !is_hidden(entry)) {
            match fs::metadata(&entry) {
                Ok(facts) if facts.is_dir() => self.directory(&entry, depth + 1)?,
                // A pipe or a socket under such a name would keep its reader waiting for ever.
                Ok(facts) if facts.is_file() && is_resource_file(&entry) => self.file(&entry)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Or it is gone between the listing and now.
                    if fs::symlink_metadata(&entry).is_ok_and(|facts| facts.is_symlink()) {
                        self.dangling.push(entry.to_string_lossy().into());
                    }
                }
                Err(error) => return Err(SourceError::Unreadable { path: entry, error }),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), SourceError> {
        let unreadable = |error| SourceError::Unreadable { path: path.into(), error };
        if !self.seen.insert(fs::canonicalize(path).map_err(unreadable)?) {
            return Ok(());
        }
        // The size is looked at first, so that a huge file is never read into memory.
        self.total += fs::metadata(path).map_err(unreadable)?.len();
        if self.total > MAX_TOTAL {
            return Err(SourceError::TooLarge { path: path.into() });
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| SourceError::NotText { path: path.into() })?;
        self.files.push((path.to_string_lossy().into(), text.into()));
        Ok(())
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_resource_file(path: &Path) -> bool {
    let known = ["yaml", "yml", "json"];
    path.extension().is_some_and(|extension| known.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &Source, root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        source.files().map(|(name, _)| name.trim_start_matches(&root).to_owned()).collect()
    }

    #[test]
    fn reads_directories_sorted_and_leaves_out_the_rest() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        let names = [
            "b.yaml",
            "a.yml",
            "c.json",
            "README.md",
            ".hidden.yaml",
            "sub/d.yaml",
            ".git/e.yaml",
            "A.YAML",
            "c.Yml",
            "c.JSON",
        ];
        for name in names {
            fs::write(root.path().join(name), name).unwrap();
        }
        let source = Source::read(&[root.path().into()]).unwrap();
        let read = ["A.YAML", "a.yml", "b.yaml", "c.JSON", "c.Yml", "c.json", "sub/d.yaml"];
        assert_eq!(self::names(&source, root.path()), read);
    }

    #[cfg(unix)]
    #[test]
    fn a_mounted_volume_is_read_once() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("..2026")).unwrap();
        fs::write(root.path().join("..2026/a.yaml"), "x").unwrap();
        symlink("..2026", root.path().join("..data")).unwrap();
        symlink("..data/a.yaml", root.path().join("a.yaml")).unwrap();
        let source = Source::read(&[root.path().into(), root.path().join("a.yaml")]).unwrap();
        assert_eq!(names(&source, root.path()), ["a.yaml"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_told_of() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        for name in ["gone.yaml", "policies", ".#a.yaml"] {
            symlink("nowhere", root.path().join(name)).unwrap();
        }
        let source = Source::read(&[root.path().into()]).unwrap();
        assert!(source.files().next().is_none());
        let problems = crate::compile(&source, &crate::Options::new(crate::Role::Gateway), None).problems;
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let line = |name: &str| {
            format!(
                "warning: {}/{name}:1:1: is a link to nothing: what it was for is not read (mend or remove it)",
                root.path().display()
            )
        };
        assert_eq!(told, [line("gone.yaml"), line("policies")]);
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_is_reported() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        let error = Source::read(&[root.path().into()]).unwrap_err();
        assert!(matches!(error, SourceError::TooDeep { .. } | SourceError::Unreadable { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("a.yaml")).unwrap();
        fs::write(root.path().join("b.yaml"), "x").unwrap();
        let source = Source::read(&[root.path().into()]).unwrap();
        assert_eq!(names(&source, root.path()), ["b.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("missing");
        let error = Source::read(std::slice::from_ref(&missing)).unwrap_err().to_string();
        assert!(error.contains(&missing.display().to_string()), "{error}");
        let binary = root.path().join("a.yaml");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(matches!(Source::read(&[binary]), Err(SourceError::NotText { .. })));
        let large = root.path().join("large.yaml");
        fs::File::create(&large).unwrap().set_len(MAX_TOTAL + 1).unwrap();
        assert!(matches!(Source::read(&[large]), Err(SourceError::TooLarge { .. })));
    }
}

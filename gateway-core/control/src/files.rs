//! Reads the files of a configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The most that a configuration may hold, in bytes.
const MAX_TOTAL: u64 = 64 * 1024 * 1024;

/// How deep folders are followed. A link that leads back up ends here.
const MAX_DEPTH: usize = 8;

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder cannot be read.
    #[error("cannot read configuration from {}: {cause}; give a file or folder that this user may read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The files are larger than any configuration should be.
    #[error("the configuration in {} passes {} MiB; is this the right folder?", path.display(), MAX_TOTAL >> 20)]
    TooLarge {
        /// The file at which the limit was passed.
        path: PathBuf,
    },
}

/// A file to be handed out: where it is, and its name as proxies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    stamp: (Option<SystemTime>, u64),
}

/// The configuration files under `roots`, ordered by name: `.yaml`, `.yml` and `.json`, hidden ones left out.
pub(crate) fn find(roots: &[PathBuf]) -> Result<Vec<Found>, ReadError> {
    let mut all = Vec::new();
    for (index, root) in roots.iter().enumerate() {
        let mut found = Vec::new();
        visit(root, "", 0, &mut found)?;
        // Names stay those of the files unless two folders hold the same one.
        for mut file in found {
            if all.iter().any(|other: &Found| other.name == file.name) {
                file.name = format!("{}/{}", index + 1, file.name);
            }
            all.push(file);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    within_limit(&all)?;
    Ok(all)
}

fn visit(path: &Path, name: &str, depth: usize, found: &mut Vec<Found>) -> Result<(), ReadError> {
    let failed = |cause| ReadError::Unreadable { path: path.to_owned(), cause };
    // Follows links: mounted ConfigMaps are links to `..data`.
    let facts = match fs::metadata(path) {
        // A file may vanish between listing and reading; what the operator named must exist.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
        other => other.map_err(failed)?,
    };
    if !facts.is_dir() {
        let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = if name.is_empty() { own } else { name.to_owned() };
        found.push(Found { name, path: path.to_owned(), stamp: (facts.modified().ok(), facts.len()) });
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let child = entry.map_err(failed)?.path();
        let own = child.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !own.starts_with('.') && depth < MAX_DEPTH && (child.is_dir() || is_configuration(&child)) {
            let name = if name.is_empty() { own } else { format!("{name}/{own}") };
            visit(&child, &name, depth + 1, found)?;
        }
    }
    Ok(())
}

fn is_configuration(path: &Path) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

fn within_limit(files: &[Found]) -> Result<(), ReadError> {
    let mut total = 0_u64;
    for file in files {
        total = total.saturating_add(file.stamp.1);
        if total > MAX_TOTAL {
            return Err(ReadError::TooLarge { path: file.path.clone() });
        }
    }
    Ok(())
}

/// The text of a file. Bytes that are no UTF-8 are replaced: the proxies report what is wrong with the rest.
pub(crate) fn read(file: &Found) -> Result<String, ReadError> {
    let bytes =
        fs::read(&file.path).map_err(|cause| ReadError::Unreadable { path: file.path.clone(), cause })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(roots: &[PathBuf]) -> Vec<String> {
        find(roots).unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn configuration_files_are_found_in_order_and_others_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("routes/.hidden")).unwrap();
        for name in ["b.yml", "a.yaml", "routes/c.json", "notes.txt", ".d.yaml", "routes/.hidden/e.yaml"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(names(&[dir.path().to_owned()]), ["a.yaml", "b.yml", "routes/c.json"]);
        assert_eq!(names(&[dir.path().join("notes.txt")]), ["notes.txt"], "a file that is named counts");
    }

    #[test]
    fn the_same_name_in_two_folders_stays_apart() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            fs::write(dir.path().join("a.yaml"), "x").unwrap();
        }
        assert_eq!(names(&[one.path().to_owned(), two.path().to_owned()]), ["2/a.yaml", "a.yaml"]);
    }

    #[test]
    fn what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(&[dir.path().join("absent")]).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_a_circle_ends() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        fs::write(dir.path().join("a.yaml"), "x").unwrap();
        assert!(names(&[dir.path().to_owned()]).contains(&"a.yaml".to_owned()));
    }
}

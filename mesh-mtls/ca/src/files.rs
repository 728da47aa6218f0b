//! Secrets on disk: written whole or not at all, readable by their owner alone, made by one process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its owner alone (mode 0600).
    Owner,
    /// Everybody (mode 0644).
    All,
}

/// Holds the directory until dropped, so that two processes that start at once do not both make its files.
pub(crate) struct Locked(File);

/// Makes `dir` (mode 0700) if it is absent, and locks it.
pub(crate) fn lock(dir: &Path) -> Result<Locked, StoreError> {
    let failed = |cause| StoreError::Unwritable { path: dir.to_owned(), cause };
    make_dir(dir).map_err(failed)?;
    let file = open_new(&dir.join(".lock"), Access::Owner, false).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(Locked(file))
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file would do as well; being explicit costs nothing.
        let _ = self.0.unlock();
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn open_new(path: &Path, access: Access, fresh: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(fresh);
    #[cfg(unix)]
    {
        let mode = if access == Access::Owner { 0o600 } else { 0o644 };
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

/// A secret's bytes; `None` if there is no such file. Says so if others may read it.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes = read(path)?;
    #[cfg(unix)]
    if let Ok(facts) = fs::metadata(path) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&facts.permissions());
        if mode & 0o077 != 0 {
            tracing::warn!(file = %path.display(), "other users may read this secret; set its mode to 0600");
        }
    }
    Ok(bytes)
}

/// The file's bytes; `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(StoreError::Unreadable { path: path.to_owned(), cause }),
    }
}

/// Writes a new file: whole under another name, on disk, then renamed. The caller holds the lock and has seen that
/// the file does not exist.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), StoreError> {
    write_then_rename(path, bytes, access)
        .map_err(|cause| StoreError::Unwritable { path: path.to_owned(), cause })
}

fn write_then_rename(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let draft = draft_of(path);
    // A draft left over by a crash may have other permissions: begin anew.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_new(&draft, access, true)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_dir(path)
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".draft");
    name.into()
}

#[cfg(unix)]
fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_no_draft_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let _locked = lock(dir.path()).unwrap();
        assert!(read(&path).unwrap().is_none());
        fs::write(draft_of(&path), "left over by a crash").unwrap();
        write(&path, b"bytes", Access::Owner).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"bytes"[..]));
        assert!(!draft_of(&path).exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let _locked = lock(&state).unwrap();
        let path = state.join("secret");
        // Permissions of the draft must not survive.
        fs::write(draft_of(&path), "x").unwrap();
        fs::set_permissions(draft_of(&path), fs::Permissions::from_mode(0o666)).unwrap();
        write(&path, b"bytes", Access::Owner).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

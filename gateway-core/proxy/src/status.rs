//! The status file: the status of every object, kept current.

use std::io;
use std::path::Path;

use towpath_config::ObjectStatus;

/// Writes the list so that a reader sees the old or the new file whole.
pub(crate) fn write(path: &Path, objects: &[ObjectStatus]) -> io::Result<()> {
    let text = serde_json::to_string_pretty(objects).map_err(io::Error::other)?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}

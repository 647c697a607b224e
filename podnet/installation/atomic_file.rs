//! Files that are replaced in one step: a reader sees the old or the new contents, also after a power cut.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::error::InstallationError;

/// Prefix of temporary files. Container runtimes ignore files whose names have another ending than theirs, and programs in
/// `/opt/cni/bin` are started by their names.
const TEMPORARY: &str = ".portcullis-new-";

/// Writes a file with these contents and mode, unless it has them. Returns true if it was written.
pub(super) fn write(
    path: &Path,
    contents: &mut dyn Read,
    mode: u32,
    is_equal: impl FnOnce(&Path) -> io::Result<bool>,
) -> Result<bool, InstallationError> {
    if is_equal(path).unwrap_or(false) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(InstallationError::new("create folder", folder))?;
    remove_leftovers(folder);
    let temporary = folder.join(format!("{TEMPORARY}{}", std::process::id()));
    let written = write_and_rename(&temporary, path, contents, mode);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(InstallationError::new("write", path))?;
    Ok(true)
}

fn write_and_rename(temporary: &Path, path: &Path, contents: &mut dyn Read, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    io::copy(contents, &mut file)?;
    file.flush()?;
    // The mode of `open` is subject to the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Removes temporary files of processes that were killed.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Removes a file. Returns false if there was none.
pub(super) fn remove(path: &Path) -> Result<bool, InstallationError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(InstallationError::new("remove", path)(error)),
    }
}

/// Returns true if a file has this mode and contents.
pub(super) fn has_contents(path: &Path, contents: &[u8], mode: u32) -> io::Result<bool> {
    Ok(has_mode(path, mode)? && fs::read(path)? == contents)
}

/// Returns true if it is a file of its own, with this mode.
pub(super) fn has_mode(path: &Path, mode: u32) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o7777 == mode)
}

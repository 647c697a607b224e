//! The reason why the node's pod network is not ready, for the plugin's `STATUS`.

use std::fs;
use std::path::Path;

use super::atomic_file;
use super::error::InstallationError;

/// The name of the file with the reason, in the folder of the plugin's records.
pub const NOT_READY: &str = "not-ready";

const MODE: u32 = 0o644;

/// Writes the reason; `None` removes it. Returns true if the file changed.
pub(super) fn set(state_dir: &Path, reason: Option<&str>) -> Result<bool, InstallationError> {
    let path = state_dir.join(NOT_READY);
    // Without the folder the plugin adds no pods: it shows that this node was set up since it booted.
    fs::create_dir_all(state_dir).map_err(InstallationError::new("create folder", state_dir))?;
    let Some(reason) = reason else { return atomic_file::remove(&path) };
    let text = format!("{reason}\n");
    atomic_file::write(&path, &mut text.as_bytes(), MODE, |path| {
        atomic_file::has_contents(path, text.as_bytes(), MODE)
    })
}

//! The binary of the plugin: a copy of the program, and a marker behind it.
//!
//! The marker tells the plugin from the program wherever it is installed. Run by hand, without `CNI_COMMAND`, a copy of the program would
//! be a second daemon. Bytes behind an ELF file have no effect.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::atomic_file;
use super::error::InstallationError;

const MODE: u32 = 0o755;

/// The end of the installed plugin.
const MARKER: &[u8; 25] = b"\nportcullis CNI plugin 1\n";

/// Installs a copy of the binary `source` with the marker, unless the installed one is equal. A runtime may be starting the old one, which
/// is not overwritten: the new one takes its name. Returns true if it was installed.
pub(super) fn install(source: &Path, target: &Path) -> Result<bool, InstallationError> {
    let contents = File::open(source).map_err(InstallationError::new("read", source))?;
    atomic_file::write(target, &mut contents.chain(&MARKER[..]), MODE, |target| {
        Ok(atomic_file::has_mode(target, MODE)? && is_copy(source, target)?)
    })
}

/// Returns true if a binary is an installed plugin.
///
/// # Errors
/// The file cannot be read.
pub fn is_plugin(binary: &Path) -> io::Result<bool> {
    let mut file = File::open(binary)?;
    if file.metadata()?.len() < MARKER.len() as u64 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-(MARKER.len() as i64)))?;
    let mut end = [0; MARKER.len()];
    file.read_exact(&mut end)?;
    Ok(end == *MARKER)
}

fn is_copy(source: &Path, target: &Path) -> io::Result<bool> {
    if fs::metadata(source)?.len() + MARKER.len() as u64 != fs::metadata(target)?.len() {
        return Ok(false);
    }
    let open = |path| Ok::<_, io::Error>(BufReader::with_capacity(64 << 10, File::open(path)?));
    let mut wanted = open(source)?.chain(&MARKER[..]);
    let mut found = open(target)?;
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = wanted.read(&mut left)?;
        found.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

//! The binary of the plugin.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::atomic_file;
use super::error::InstallationError;

const MODE: u32 = 0o755;

/// Installs a copy of the binary `source`, unless the installed one is equal. A runtime may be starting the old one, which is not
/// overwritten: the new one takes its name. Returns true if it was installed.
pub(super) fn install(source: &Path, target: &Path) -> Result<bool, InstallationError> {
    let mut contents = File::open(source).map_err(InstallationError::new("read", source))?;
    atomic_file::write(target, &mut contents, MODE, |target| {
        Ok(atomic_file::has_mode(target, MODE)? && are_equal(source, target)?)
    })
}

fn are_equal(one: &Path, other: &Path) -> io::Result<bool> {
    if fs::metadata(one)?.len() != fs::metadata(other)?.len() {
        return Ok(false);
    }
    let open = |path| Ok::<_, io::Error>(BufReader::with_capacity(64 << 10, File::open(path)?));
    let (mut one, mut other) = (open(one)?, open(other)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = one.read(&mut left)?;
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

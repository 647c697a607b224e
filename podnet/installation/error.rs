//! Errors of the installation.

use std::io;
use std::path::{Path, PathBuf};

/// Error of the installation: a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}", path = path.display())]
pub struct InstallationError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl InstallationError {
    /// Returns a function that converts the error of a system call. `action` completes "cannot …".
    pub(super) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| InstallationError { action, path: path.to_owned(), source }
    }

    /// Returns the error of the system call.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}

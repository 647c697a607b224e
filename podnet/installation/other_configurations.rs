//! Configurations of other networks in the same folder.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::configuration::FILE;

/// The endings of file names that container runtimes read.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// A configuration that container runtimes use instead of this program's, because its name comes before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrecedingConfiguration(pub PathBuf);

impl fmt::Display for PrecedingConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.display();
        write!(
            f,
            "container runtimes use the CNI configuration {path}, which comes before {FILE}; new pods are not in this pod network \
             until it is removed"
        )
    }
}

/// Returns the first such configuration. None if the folder cannot be read.
pub(super) fn preceding(folder: &Path) -> Option<PrecedingConfiguration> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let is_configuration = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file()
    };
    let first = entries.map(|entry| entry.path()).filter(is_configuration).min()?;
    (*first < *folder.join(FILE)).then_some(PrecedingConfiguration(first))
}

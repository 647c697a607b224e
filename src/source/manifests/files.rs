//! Which files count, and whether they have changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path of manifests that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("manifests {}: {source}; --manifests takes a file, or a folder of *.yaml, *.yml and *.json files", path.display())]
pub struct PathError {
    /// The path.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// The files of a path: itself, or those of the folder, in the order of their names. Links are followed.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, PathError> {
    let wrong = |source| PathError { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(wrong)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(wrong)? {
        let file = entry.map_err(wrong)?.path();
        if is_manifest(&file) && fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file of a folder counts, going by its name.
pub(super) fn is_manifest(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = file.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Changes whenever a file may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, [i64; 6])>);

/// The stamp of a path's files; `None` where it cannot be read.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let of_file = |file: PathBuf| {
        let m = fs::metadata(&file).ok()?;
        // An inode's number is only compared.
        Some((
            file,
            [
                m.ino().cast_signed(),
                m.size().cast_signed(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec(),
            ],
        ))
    };
    Some(Stamp(files(path).ok()?.into_iter().filter_map(of_file).collect()))
}

//! The files of a path of manifests, and detection of changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::bounded_file::not_regular;

/// A path of manifests that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("manifests {}: {source}; --manifests takes a file, or a folder of *.yaml, *.yml and *.json files", path.display())]
pub struct PathError {
    /// The path.
    pub path: PathBuf,
    /// The error.
    pub source: io::Error,
}

/// The contents of a path of manifests.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The files to read: the path itself, or the files of the folder by name. Links are followed.
    pub(super) files: Vec<PathBuf>,
    /// Files of the folder that cannot be read, such as links to nothing. Their objects still exist for all that is known.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
    /// Why other entries of the folder that may have manifests are not read, by name.
    pub(super) skipped: Vec<String>,
}

/// Lists the files of a path.
pub(super) fn list(path: &Path) -> Result<Listing, PathError> {
    let wrong = |source| PathError { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(wrong)?;
    if !metadata.is_dir() {
        if !metadata.is_file() {
            return Err(wrong(not_regular()));
        }
        return Ok(Listing { files: vec![path.to_owned()], ..Listing::default() });
    }
    let mut listing = Listing::default();
    for entry in fs::read_dir(path).map_err(wrong)? {
        let entry = entry.map_err(wrong)?.path();
        let is_folder = fs::metadata(&entry).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && !is_hidden(&entry) && holds_manifests(&entry) {
            listing.skipped.push(format!(
                "{}: skipping this sub-folder; --manifests reads the files of one folder only",
                entry.display()
            ));
        } else if !is_folder && is_kustomization(&entry) {
            listing.skipped.push(format!(
                "{}: skipping this kustomization, as it is not built; write the output of `kubectl kustomize` to a \
                 file of the folder instead",
                entry.display()
            ));
        } else if is_manifest(&entry) && !is_folder {
            match fs::metadata(&entry) {
                Ok(metadata) if metadata.is_file() => listing.files.push(entry),
                Ok(_) => listing.unreadable.push((entry, not_regular())),
                // It was deleted after the folder was listed.
                Err(_) if fs::symlink_metadata(&entry).is_err() => {}
                Err(error) => listing.unreadable.push((entry, error)),
            }
        }
    }
    listing.files.sort();
    listing.skipped.sort();
    Ok(listing)
}

fn is_hidden(file: &Path) -> bool {
    file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_kustomization(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    matches!(name, Some("kustomization.yaml" | "kustomization.yml" | "Kustomization"))
}

/// Returns true if a folder has manifests, or folders that may have some.
fn holds_manifests(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    let may_hold = |entry: PathBuf| is_manifest(&entry) || (entry.is_dir() && !is_hidden(&entry));
    entries.filter_map(Result::ok).any(|entry| may_hold(entry.path()))
}

/// Returns true if a file of a folder is a manifest, by its name.
pub(super) fn is_manifest(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    !is_hidden(file) && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// A value that changes when a file may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, [i64; 6])>);

/// Returns the stamp of a path's files; `None` if the path cannot be read.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let of_file = |file: PathBuf| {
        let m = fs::metadata(&file).ok()?;
        // These are only compared.
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
    Some(Stamp(list(path).ok()?.files.into_iter().filter_map(of_file).collect()))
}

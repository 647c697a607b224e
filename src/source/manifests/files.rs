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

/// The contents of a path of manifests.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The files to read: the path itself, or those of the folder, in the order of their names. Links are followed.
    pub(super) files: Vec<PathBuf>,
    /// Why other entries of the folder are not read though they may hold manifests, in the order of their names.
    pub(super) skipped: Vec<String>,
}

/// Lists the files of a path.
pub(super) fn list(path: &Path) -> Result<Listing, PathError> {
    let wrong = |source| PathError { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(wrong)?.is_dir() {
        return Ok(Listing { files: vec![path.to_owned()], skipped: Vec::new() });
    }
    let mut listing = Listing::default();
    for entry in fs::read_dir(path).map_err(wrong)? {
        let entry = entry.map_err(wrong)?.path();
        let is_folder = fs::metadata(&entry).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && !is_hidden(&entry) && holds_manifests(&entry) {
            listing.skipped.push(format!(
                "{}: this sub-folder is skipped; --manifests reads the files of one folder only",
                entry.display()
            ));
        } else if !is_folder && is_kustomization(&entry) {
            listing.skipped.push(format!(
                "{}: this kustomization is skipped, as it is not built; write the output of `kubectl kustomize` to a \
                 file of the folder instead",
                entry.display()
            ));
        } else if is_manifest(&entry) && fs::metadata(&entry).is_ok_and(|metadata| metadata.is_file()) {
            listing.files.push(entry);
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

/// Whether a folder has manifests, or folders of its own that may have some.
fn holds_manifests(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    let may_hold = |entry: PathBuf| is_manifest(&entry) || (entry.is_dir() && !is_hidden(&entry));
    entries.filter_map(Result::ok).any(|entry| may_hold(entry.path()))
}

/// Whether a file of a folder counts, going by its name.
pub(super) fn is_manifest(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    !is_hidden(file) && matches!(extension, Some("yaml" | "yml" | "json"))
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
    Some(Stamp(list(path).ok()?.files.into_iter().filter_map(of_file).collect()))
}

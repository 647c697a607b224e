//! Validation of manifests before a lab is built, and reading them as the daemons do.

use std::fs;
use std::path::Path;

use portcullis_cluster::manifest::{self, Document, ManifestError};
use portcullis_cluster::object::{ObjectError, ObjectKey};
use portcullis_cluster::{Kind, Object};
use portcullis_lab::Error;
use portcullis_lab::manifests::manifest_files;

/// Checks that daemons can read the manifests of a lab: syntax, kinds, and objects of kinds that the lab passes on
/// unchanged. The lab itself checks objects of other kinds.
///
/// # Errors
/// A file cannot be read, or a document is invalid; the message has file and line.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    for file in manifest_files(path)? {
        let name = file.display().to_string();
        if matches!(
            file.file_name().and_then(|name| name.to_str()),
            Some("kustomization.yaml" | "kustomization.yml")
        ) {
            let message =
                "kustomizations are not supported; expected the output of `kubectl kustomize`".to_owned();
            return Err(Error::Manifest { origin: name, message });
        }
        let (name, text) = read(&file)?;
        for document in manifest::parse(&name, &text) {
            document.and_then(|document| check_object(&name, document)).map_err(unreadable)?;
        }
    }
    Ok(())
}

/// Reads the objects in a file or folder of manifests as the daemons do.
///
/// # Errors
/// A file cannot be read, or a document or object is invalid; the message has file and line.
pub(super) fn read_objects(path: &Path) -> Result<Vec<Object>, Error> {
    let mut objects = Vec::new();
    for file in manifest_files(path)? {
        let (name, text) = read(&file)?;
        for document in manifest::parse(&name, &text) {
            let Document { line, kind, value } = document.map_err(unreadable)?;
            let Some(kind) = kind else { continue };
            let parsed = Object::parse(kind, value).map_err(|error| invalid(&name, line, &error));
            objects.push(parsed.map_err(unreadable)?.object);
        }
    }
    Ok(objects)
}

/// Returns the name and the text of a file.
fn read(file: &Path) -> Result<(String, String), Error> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|source| Error::File { action: "cannot read", path: file.to_owned(), source })?;
    Ok((file.display().to_string(), text))
}

fn check_object(file: &str, document: Document) -> Result<(), ManifestError> {
    let Document { line, kind, value } = document;
    let Some(kind) = kind else { return Ok(()) };
    ObjectKey::parse(kind, &value).map_err(|error| invalid(file, line, &error))?;
    match kind {
        Kind::Node | Kind::Pod | Kind::Service | Kind::EndpointSlice => Ok(()),
        _ => Object::parse(kind, value).map(drop).map_err(|error| invalid(file, line, &error)),
    }
}

fn invalid(file: &str, line: usize, error: &ObjectError) -> ManifestError {
    ManifestError { file: file.to_owned(), line, message: error.to_string() }
}

fn unreadable(error: ManifestError) -> Error {
    let ManifestError { file, line, message } = error;
    Error::Manifest { origin: format!("{file}:{line}"), message }
}

//! Endpoints objects (v1), which no proxy reads.

use std::fs;
use std::path::PathBuf;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::manifest::{self, Document};

use crate::config::Source;
use crate::source::read_manifest_file;

/// Returns true if the manifests contain an Endpoints object (v1) for a Service. Unreadable files are skipped: they were
/// reported when the manifests were read.
pub(crate) fn has_endpoints_v1(source: &Source, service: &NamespacedName) -> bool {
    let Source::Manifests(path) = source else { return false };
    let files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => vec![path.clone()],
    };
    let matches = |document: &Document| {
        let text = |at: &str| document.value.pointer(at).and_then(|value| value.as_str());
        text("/kind") == Some("Endpoints")
            && text("/metadata/name") == Some(&*service.name)
            && text("/metadata/namespace").unwrap_or("default") == service.namespace.as_str()
    };
    files.iter().any(|file| {
        let text = read_manifest_file(file).unwrap_or_default();
        manifest::parse(&file.to_string_lossy(), &text).flatten().any(|document| matches(&document))
    })
}

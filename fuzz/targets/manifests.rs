//! Manifest files.

use portcullis_cluster::manifest;

use super::objects;

/// Parses a file as YAML and as JSON.
pub(crate) fn documents(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    // In YAML, a carriage return alone also ends a line.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for file in ["m.yaml", "m.json"] {
        let mut previous = 1;
        let chunks = match manifest::split(file, text) {
            Ok(chunks) => chunks,
            Err(error) => {
                // The only error of a file as a whole: it has too many documents.
                assert!(
                    text.len() > manifest::MAX_DOCUMENTS && error.line <= lines,
                    "{error} of {lines} lines"
                );
                continue;
            }
        };
        assert!(chunks.len() <= manifest::MAX_DOCUMENTS);
        for chunk in chunks {
            assert!((previous..=lines).contains(&chunk.line), "a chunk in line {} of {lines}", chunk.line);
            previous = chunk.line;
            for document in chunk.documents(file) {
                match document {
                    Ok(document) => {
                        assert!(
                            (chunk.line..=lines).contains(&document.line),
                            "{document:?} of {lines} lines"
                        );
                        if document.kind.is_some() {
                            objects::parse(&document.value);
                        }
                    }
                    Err(error) => {
                        assert!((chunk.line..=lines).contains(&error.line), "{error} of {lines} lines");
                        assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error}");
                    }
                }
            }
        }
    }
}

//! Manifests: text to documents.

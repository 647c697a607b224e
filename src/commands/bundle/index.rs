//! The index of a support archive.

use jiff::Timestamp;
use serde::Serialize;

use super::part::{CollectedPart, PartError};
use crate::version;

/// The content of `index.json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    version: &'static str,
    commit: Option<&'static str>,
    node: String,
    created: Timestamp,
    /// All parts could be collected.
    pub(super) complete: bool,
    pub(super) parts: Vec<IndexEntry>,
}

/// A part of the archive.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexEntry {
    pub(super) name: String,
    description: &'static str,
    pub(super) status: PartStatus,
    /// Why the part is missing, or incomplete.
    pub(super) reason: Option<String>,
    /// Its size; 0 if it is not in the archive.
    pub(super) bytes: usize,
    /// The number of places at which a secret was replaced.
    redactions: usize,
    duration_seconds: f64,
}

/// Whether a part could be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum PartStatus {
    /// It is complete.
    Collected,
    /// There is nothing to collect on this node, or with this configuration.
    NotApplicable,
    /// It is missing, or incomplete.
    Failed,
}

impl Index {
    pub(super) fn new(node: String, created: Timestamp) -> Self {
        Index {
            version: version::VERSION,
            commit: version::COMMIT,
            node,
            created,
            complete: true,
            parts: Vec::new(),
        }
    }

    /// Adds a part whose secrets were replaced.
    pub(super) fn add(
        &mut self,
        name: String,
        description: &'static str,
        part: &CollectedPart,
        reason: Option<String>,
        redactions: usize,
    ) {
        let status = match part.error {
            None => PartStatus::Collected,
            Some(PartError::NotApplicable(_)) => PartStatus::NotApplicable,
            Some(PartError::Failed(_)) => PartStatus::Failed,
        };
        self.complete &= status != PartStatus::Failed;
        let duration_seconds = part.duration.as_millis() as f64 / 1e3;
        let bytes = part.bytes.len();
        self.parts.push(IndexEntry {
            name,
            description,
            status,
            reason,
            bytes,
            redactions,
            duration_seconds,
        });
    }
}

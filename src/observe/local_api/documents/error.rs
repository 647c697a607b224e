//! The document of a request that failed.

use serde::{Deserialize, Serialize};

use super::TypeMeta;

/// Why there is no other document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorDocument {
    /// `kind: Error`
    #[serde(flatten)]
    pub(crate) meta: TypeMeta,
    /// What was wrong, and what was expected.
    pub(crate) message: String,
}

impl ErrorDocument {
    /// Creates a document with a message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ErrorDocument { meta: TypeMeta::new("Error"), message: message.into() }
    }
}

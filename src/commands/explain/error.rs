//! Why nothing can be explained.

use std::io;

use super::asked::Malformed;
use crate::state::StateError;

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// A text on the command line has another form.
    #[error("{flag}: {source}")]
    Malformed {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        source: MalformedText,
    },
    /// Something that was asked for is not there, or does not say enough.
    #[error("{flag}: {message}")]
    Asked {
        /// The flag.
        flag: &'static str,
        /// What is missing, and what there is instead.
        message: String,
    },
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// A text that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct MalformedText(Malformed);

impl ExplainError {
    /// What was said by a flag is not enough, or not there.
    pub(super) fn asked(flag: &'static str, message: impl Into<String>) -> Self {
        ExplainError::Asked { flag, message: message.into() }
    }

    /// For texts of a flag.
    pub(super) fn malformed(flag: &'static str) -> impl Fn(Malformed) -> Self {
        move |source| ExplainError::Malformed { flag, source: MalformedText(source) }
    }
}

//! Why nothing can be explained.

use std::io;

use super::asked::Malformed;
use crate::cluster_view::LoadError;

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] LoadError),
    /// A text on the command line has another form.
    #[error("{flag}: {text}")]
    Malformed {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        text: Malformed,
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
    #[error("cannot write")]
    Io(#[from] io::Error),
}

impl ExplainError {
    /// What was said by a flag is not enough, or not there.
    pub(super) fn asked(flag: &'static str, message: impl Into<String>) -> Self {
        ExplainError::Asked { flag, message: message.into() }
    }

    /// For texts of a flag.
    pub(super) fn malformed(flag: &'static str) -> impl Fn(Malformed) -> Self {
        move |text| ExplainError::Malformed { flag, text }
    }
}

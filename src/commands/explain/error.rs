//! Errors of `portcullis explain`.

use std::io;

use super::argument::MalformedArgument;
use super::probe::ProbeError;
use crate::cluster_view::LoadError;

/// An error that prevents an explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The cluster state cannot be read.
    #[error(transparent)]
    State(#[from] LoadError),
    /// An argument does not have the expected form.
    #[error("{flag}: {text}")]
    Malformed {
        /// The flag.
        flag: &'static str,
        /// The text, and what was expected.
        text: MalformedArgument,
    },
    /// An object that an argument names does not exist, or the arguments are not specific enough.
    #[error("{flag}: {message}")]
    Argument {
        /// The flag.
        flag: &'static str,
        /// What is missing, and which alternatives exist.
        message: String,
    },
    /// A packet cannot be sent and traced.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The output cannot be written.
    #[error("cannot write")]
    Io(#[from] io::Error),
}

impl ExplainError {
    /// Returns the error for an argument that names a missing object or is not specific enough.
    pub(super) fn argument(flag: &'static str, message: impl Into<String>) -> Self {
        ExplainError::Argument { flag, message: message.into() }
    }

    /// Returns a function that makes the error for a malformed argument of a flag.
    pub(super) fn malformed(flag: &'static str) -> impl Fn(MalformedArgument) -> Self {
        move |text| ExplainError::Malformed { flag, text }
    }
}

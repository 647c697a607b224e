//! Errors of the iptables tools.

use std::io;

use crate::error::{SyncError, SyncErrorKind};

/// An error of an iptables tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The tool is missing or could not be started, or its output could not be read.
    #[error("cannot run {tool}: {source}; is iptables installed?")]
    CannotRun {
        /// The program.
        tool: String,
        /// The system's error.
        source: io::Error,
    },
    /// The tool ran and failed.
    #[error("{tool} failed ({status}): {message}")]
    Failed {
        /// The program.
        tool: String,
        /// Its exit status.
        status: String,
        /// Its error message.
        message: String,
        /// The line of its input that it names, from 1.
        line: Option<usize>,
    },
    /// Another process holds the xtables lock.
    #[error("{tool} could not get the xtables lock in time; retrying")]
    Locked {
        /// The program.
        tool: String,
    },
}

impl From<ToolError> for SyncError {
    fn from(error: ToolError) -> Self {
        let (kind, errno) = match &error {
            ToolError::CannotRun { source, .. } => {
                (SyncErrorKind::PrerequisiteMissing, source.raw_os_error())
            }
            ToolError::Failed { .. } => (SyncErrorKind::ToolFailed, None),
            ToolError::Locked { .. } => (SyncErrorKind::Locked, None),
        };
        SyncError::new(kind, error).with_errno(errno)
    }
}

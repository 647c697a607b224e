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

impl ToolError {
    /// Returns true if the rules themselves were rejected, so that one Service may be the cause.
    pub(super) fn rejects_rules(&self) -> bool {
        matches!(self, ToolError::Failed { .. })
    }

    /// Returns the line of its input that the tool named, from 1.
    pub(super) fn rejected_line(&self) -> Option<usize> {
        match self {
            ToolError::Failed { line, .. } => *line,
            ToolError::CannotRun { .. } | ToolError::Locked { .. } => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_errors_keep_their_kind_and_error_number() {
        let tool = || "iptables-restore".to_owned();
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let failed = ToolError::Failed {
            tool: tool(),
            status: "exit status: 2".into(),
            message: "bad".into(),
            line: Some(3),
        };
        assert_eq!(failed.rejected_line(), Some(3));
        for (error, kind, errno) in [
            (
                ToolError::CannotRun { tool: tool(), source: missing },
                SyncErrorKind::PrerequisiteMissing,
                Some(libc::ENOENT),
            ),
            (ToolError::Locked { tool: tool() }, SyncErrorKind::Locked, None),
            (failed, SyncErrorKind::ToolFailed, None),
        ] {
            let text = error.to_string();
            let error = SyncError::from(error);
            assert_eq!((error.kind(), error.errno(), error.to_string()), (kind, errno, text));
        }
    }
}

//! Errors of the iptables tools.

use std::io;

use crate::error::{SyncError, SyncErrorKind};
use crate::external_program::ProgramError;

/// An error of an iptables tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The tool is missing or could not be started, or its output could not be read.
    #[error("cannot run {tool}: {source}{}", if source.kind() == io::ErrorKind::NotFound { "; is iptables installed?" } else { "" })]
    CannotRun {
        /// The program.
        tool: String,
        /// The system's error.
        source: io::Error,
    },
    /// The tool or the kernel rejected its input.
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
    /// The tool failed for another reason than its input: it or the kernel's iptables cannot be used.
    #[error("{tool} failed ({status}): {message}")]
    Unusable {
        /// The program.
        tool: String,
        /// Its exit status.
        status: String,
        /// Its error message.
        message: String,
    },
    /// The tool did not end by itself, or exchanged its data only in part.
    #[error(transparent)]
    Unfinished(ProgramError),
    /// The tool succeeded, but printed a table only in part.
    #[error("{tool} did not print table {table} completely")]
    Incomplete {
        /// The program.
        tool: String,
        /// The table.
        table: &'static str,
    },
    /// The tool succeeded, but printed no version.
    #[error(
        "{tool} --version printed no version: expected `iptables v1.8.9 (nf_tables)` or similar, got {printed:?}"
    )]
    NoVersion {
        /// The program.
        tool: String,
        /// Its output, of limited length.
        printed: String,
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
            _ => None,
        }
    }

    /// Returns true if the tool did not reach the kernel. A tool that was killed may have written before.
    pub(super) fn shows_nothing_written(&self) -> bool {
        matches!(self, ToolError::CannotRun { .. } | ToolError::Failed { .. } | ToolError::Locked { .. })
    }

    /// Returns true if the tool did not end by itself, so that nothing is known about the kernel.
    pub fn is_unfinished(&self) -> bool {
        matches!(self, ToolError::Unfinished(_))
    }

    /// Returns true if the tool shows that the kernel or the host lacks what it needs.
    pub fn shows_missing_support(&self) -> bool {
        matches!(self, ToolError::CannotRun { .. } | ToolError::Failed { .. } | ToolError::Unusable { .. })
    }
}

impl From<ToolError> for SyncError {
    fn from(error: ToolError) -> Self {
        let (kind, errno) = match &error {
            ToolError::CannotRun { source, .. } => {
                (SyncErrorKind::PrerequisiteMissing, source.raw_os_error())
            }
            ToolError::Failed { .. } => (SyncErrorKind::ToolFailed, None),
            ToolError::Unusable { .. }
            | ToolError::Unfinished(_)
            | ToolError::Incomplete { .. }
            | ToolError::NoVersion { .. } => (SyncErrorKind::ToolUnusable, None),
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
        let no_descriptors = io::Error::from_raw_os_error(libc::EMFILE);
        for (source, asks) in [(missing, true), (no_descriptors, false)] {
            let text = ToolError::CannotRun { tool: tool(), source }.to_string();
            assert_eq!(text.contains("is iptables installed?"), asks, "{text}");
        }
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

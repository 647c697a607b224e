//! The error of a sync, with its kind and the kernel's error number.

use std::fmt;

use portcullis_netlink as netlink;

/// An error that prevents Services from being written to the kernel, or their state from being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyncError {
    kind: SyncErrorKind,
    message: String,
    errno: Option<i32>,
}

/// The kind of a [`SyncError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncErrorKind {
    /// A program is missing or cannot be started.
    PrerequisiteMissing,
    /// The kernel rejected a request, with an error number.
    KernelRejected,
    /// The kernel could not be reached, or its response could not be read.
    KernelUnavailable,
    /// A program ran and failed: it or the kernel rejected its input.
    ToolFailed,
    /// A program hangs, was killed, or cannot be used for another reason than its input.
    ToolUnusable,
    /// Another process holds a lock.
    Locked,
    /// Some Services are rejected, and the search for them is not complete. A restart would begin it again.
    SearchIncomplete,
}

impl SyncError {
    /// Returns an error without an error number.
    pub fn new(kind: SyncErrorKind, message: impl fmt::Display) -> Self {
        SyncError { kind, message: message.to_string(), errno: None }
    }

    /// Returns an error with this message for a failed netlink request, which the kernel rejected or never received.
    pub(crate) fn from_kernel(message: impl fmt::Display, error: &netlink::Error) -> Self {
        let kind = match error.errno() {
            Some(_) => SyncErrorKind::KernelRejected,
            None => SyncErrorKind::KernelUnavailable,
        };
        SyncError::new(kind, message).with_errno(error.os_errno())
    }

    /// Returns the error for a failed netlink request. `context` begins the message.
    pub fn from_netlink(context: impl fmt::Display, error: &netlink::Error) -> Self {
        SyncError::from_kernel(format_args!("{context}: {error}"), error)
    }

    /// Adds the error number.
    pub(crate) fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }

    /// Appends a hint to the message.
    pub(crate) fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }

    /// Returns its kind.
    pub fn kind(&self) -> SyncErrorKind {
        self.kind
    }

    /// Returns the error number (`libc::ENOENT`, …) of the kernel's rejection, or of the system call that failed.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

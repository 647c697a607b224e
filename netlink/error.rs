//! Errors of netlink requests.

use std::io;

use netlink_packet_core::DecodeError;

use crate::attribute::Malformed;
use crate::ipset::{SetEntry, TYPE_SPECIFIC};

/// Result of a netlink request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of a netlink request. In messages, `action` completes "cannot …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the socket failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The system call's error.
        source: io::Error,
    },
    /// The kernel rejected the request.
    #[error("cannot {action}: the kernel returned {}{}", errno_text(*errno), text.as_deref().map(|t| format!(" ({t})")).unwrap_or_default())]
    Rejected {
        /// What was being done.
        action: &'static str,
        /// The error number, positive (`libc::ENOENT`, …).
        errno: i32,
        /// The kernel's message (extended ACK), if it sent one.
        text: Option<String>,
        /// Offset of the offending attribute in the request, in bytes, if the kernel reported it.
        offset: Option<u32>,
    },
    /// The response is malformed.
    #[error("cannot {action}: malformed response from the kernel: {source}")]
    Malformed {
        /// What was being done.
        action: &'static str,
        /// The parse error.
        source: Malformed,
    },
    /// The response of rtnetlink is malformed.
    #[error("cannot {action}: malformed response from the kernel: {source}")]
    Decode {
        /// What was being done.
        action: &'static str,
        /// The parse error.
        source: DecodeError,
    },
    /// The dump is inconsistent because objects changed meanwhile (`NLM_F_DUMP_INTR`): objects may be missing or
    /// duplicated. The request can be repeated.
    #[error("cannot {action}: the dump was interrupted by a concurrent change; retry")]
    Interrupted {
        /// What was being done.
        action: &'static str,
    },
    /// The socket's receive buffer overflowed (`ENOBUFS`) and messages were lost. Dump all objects again, or enlarge
    /// the buffer.
    #[error("cannot {action}: the socket's receive buffer overflowed and messages were lost")]
    Overrun {
        /// What was being done.
        action: &'static str,
    },
    /// The kernel sent no response within the timeout.
    #[error("cannot {action}: no response from the kernel")]
    NoResponse {
        /// What was being done.
        action: &'static str,
    },
    /// A message was larger than the read buffer, which has been enlarged. The request can be repeated.
    #[error(
        "cannot {action}: a message of {needed} bytes exceeded the read buffer, which has been enlarged; retry"
    )]
    Truncated {
        /// What was being done.
        action: &'static str,
        /// The size of the datagram, in bytes.
        needed: usize,
    },
    /// An attribute exceeds the 16-bit length field. Its content must be split.
    #[error("cannot {action}: attribute {kind} has {length} bytes; netlink allows at most 65535")]
    AttributeTooLong {
        /// What was being done.
        action: &'static str,
        /// The attribute's number in its family.
        kind: u16,
        /// The attribute's length with its header, in bytes.
        length: usize,
    },
    /// The kernel rejected a request about an ipset.
    #[error("ipset {set}{}: {source}", entry.map(|entry| format!(", entry {entry}")).unwrap_or_default())]
    Set {
        /// The set's name.
        set: String,
        /// The rejected entry, if the kernel reported it.
        entry: Option<SetEntry>,
        /// The rejection.
        source: Box<Error>,
    },
    /// The kernel rejected an nf_tables object.
    #[error("{object}: {source}")]
    Object {
        /// The object's kind and name.
        object: String,
        /// The rejection.
        source: Box<Error>,
    },
    /// A name that the kernel would reject or truncate.
    #[error("cannot {action}: {name:?} must have 1 to {most} bytes and no NUL")]
    BadName {
        /// What was being done.
        action: &'static str,
        /// The name as given.
        name: String,
        /// The longest name allowed, in bytes.
        most: usize,
    },
}

impl Error {
    /// Returns the error number of a rejection by the kernel (`libc::ENOENT`, …).
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Rejected { errno, .. } => Some(*errno),
            Error::Set { source, .. } | Error::Object { source, .. } => source.errno(),
            _ => None,
        }
    }

    /// Returns the error number of the rejection, or of the system call that failed before the kernel could reject anything.
    pub fn os_errno(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } => source.raw_os_error(),
            Error::Overrun { .. } => Some(libc::ENOBUFS),
            Error::Set { source, .. } | Error::Object { source, .. } => source.os_errno(),
            _ => self.errno(),
        }
    }

    /// Returns true if the kernel rejected an entry because its ipset is full (`IPSET_ERR_HASH_FULL`).
    pub fn is_set_full(&self) -> bool {
        let of_a_hash = |entry: &SetEntry| !matches!(entry, SetEntry::Port(_));
        match self {
            Error::Set { entry, source, .. } => {
                source.errno() == Some(TYPE_SPECIFIC) && entry.as_ref().is_none_or(of_a_hash)
            }
            _ => false,
        }
    }

    /// Returns true if the kernel rejected an entry of an ipset, and not the request as a whole.
    pub fn is_entry_error(&self) -> bool {
        self.errno().is_some_and(|errno| errno >= TYPE_SPECIFIC)
    }

    /// Returns true if the kernel rejected the request for lack of privilege or memory, whatever the object.
    pub fn is_privilege_or_memory_error(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::ENOMEM | libc::ENOBUFS))
    }

    /// Returns true if the kernel rejected an nf_tables object, or an object does not fit into a message, for a reason that is
    /// neither temporary nor a lack of privilege or memory.
    pub fn is_object_rejection(&self) -> bool {
        matches!(self, Error::Object { .. } | Error::AttributeTooLong { .. })
            && !self.is_transient()
            && !self.is_privilege_or_memory_error()
    }

    /// Returns true if objects of another process may be the reason for the rejection.
    pub(crate) fn may_be_external(&self) -> bool {
        self.errno().is_some() && !self.is_privilege_or_memory_error()
    }

    /// Returns true if the same request may succeed when it is repeated immediately.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Interrupted { .. } | Error::Truncated { .. } | Error::Overrun { .. } => true,
            Error::Set { source, .. } | Error::Object { source, .. } => source.is_transient(),
            _ => self.errno() == Some(libc::EBUSY),
        }
    }

    /// Checks that a name has 1 to `most` bytes and no NUL.
    pub(crate) fn check_name(action: &'static str, name: &str, most: usize) -> Result<()> {
        if name.is_empty() || name.len() > most || name.contains('\0') {
            return Err(Error::BadName { action, name: name.to_owned(), most });
        }
        Ok(())
    }

    pub(crate) fn last_os(action: &'static str) -> Self {
        Error::Io { action, source: io::Error::last_os_error() }
    }
}

/// Returns the description of an error number, with a remedy where there is a usual one.
fn errno_text(errno: i32) -> String {
    let words = io::Error::from_raw_os_error(errno);
    match errno {
        // Error numbers of ipset, which strerror(3) does not know.
        4096.. => format!("error {errno}"),
        libc::EPERM => format!("{words}; run with CAP_NET_ADMIN"),
        _ => words.to_string(),
    }
}

/// Adds the action to a parse error.
pub(crate) trait During<T> {
    fn during(self, action: &'static str) -> Result<T>;
}

impl<T> During<T> for Result<T, Malformed> {
    fn during(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Malformed { action, source })
    }
}

impl<T> During<T> for Result<T, DecodeError> {
    fn during(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Decode { action, source })
    }
}

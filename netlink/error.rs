use std::io;

use crate::attribute::Malformed;
use crate::ipset::{SetEntry, TYPE_SPECIFIC};

/// The result of talking to the kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a conversation with the kernel failed. `action` completes "cannot …".
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
    /// The kernel understood the request and said no.
    #[error("cannot {action}: the kernel answers {}{}", errno_text(*errno), text.as_deref().map(|t| format!(" ({t})")).unwrap_or_default())]
    Rejected {
        /// What was being done.
        action: &'static str,
        /// The error number, positive (`libc::ENOENT`, …).
        errno: i32,
        /// The kernel's own explanation (extended ACK), when it gave one.
        text: Option<String>,
        /// Where in the request the offending attribute begins, in bytes, when the kernel said so.
        offset: Option<u32>,
    },
    /// The answer does not parse: a kernel that speaks another dialect than the one expected.
    #[error("cannot {action}: the kernel's answer does not parse: {source}")]
    Malformed {
        /// What was being done.
        action: &'static str,
        /// What is wrong with the answer.
        source: Malformed,
    },
    /// The dumped objects changed underneath the dump (`NLM_F_DUMP_INTR`): entries may be missing or
    /// doubled. Ask again.
    #[error("cannot {action} consistently: the kernel's list changed meanwhile; ask again")]
    Interrupted {
        /// What was being done.
        action: &'static str,
    },
    /// The socket's receive buffer overflowed (`ENOBUFS`), and messages are lost. Read the state anew, or
    /// give the socket a larger buffer.
    #[error("cannot {action}: messages were lost because the socket's receive buffer overflowed")]
    Overrun {
        /// What was being done.
        action: &'static str,
    },
    /// The kernel sent no answer in time.
    #[error("cannot {action}: the kernel gave no answer")]
    NoResponse {
        /// What was being done.
        action: &'static str,
    },
    /// A message was larger than the socket's buffer, which has been enlarged. Ask again.
    #[error("cannot {action}: a message of {needed} bytes did not fit; ask again, the buffer has grown")]
    Truncated {
        /// What was being done.
        action: &'static str,
        /// The size of the datagram, in bytes.
        needed: usize,
    },
    /// An attribute's length field has 16 bits, and this one needs more. Split what it carries.
    #[error("cannot {action}: attribute {kind} holds {length} bytes, and netlink allows 65535; split it")]
    AttributeTooLong {
        /// What was being done.
        action: &'static str,
        /// The attribute's number in its family.
        kind: u16,
        /// What it would have held with its header, in bytes.
        length: usize,
    },
    /// The kernel refused something about an ipset.
    #[error("ipset {set}{}: {source}", entry.map(|entry| format!(", entry {entry}")).unwrap_or_default())]
    Set {
        /// The set's name.
        set: String,
        /// The entry that it refused, where the kernel says which.
        entry: Option<SetEntry>,
        /// What was being done, and the kernel's answer.
        source: Box<Error>,
    },
    /// The kernel refused an object of nf_tables.
    #[error("{object}: {source}")]
    Object {
        /// The object: its kind and its name.
        object: String,
        /// What was being done, and the kernel's answer.
        source: Box<Error>,
    },
    /// A name that the kernel has no room for, or that it would cut.
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
    /// The kernel's error number, if it was the kernel that refused (`libc::ENOENT`, …).
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Rejected { errno, .. } => Some(*errno),
            Error::Set { source, .. } | Error::Object { source, .. } => source.errno(),
            _ => None,
        }
    }

    /// Whether an ipset refused an entry because it is full (`IPSET_ERR_HASH_FULL`).
    pub fn is_set_full(&self) -> bool {
        let of_a_hash = |entry: &SetEntry| !matches!(entry, SetEntry::Port(_));
        match self {
            Error::Set { entry, source, .. } => {
                source.errno() == Some(TYPE_SPECIFIC) && entry.as_ref().is_none_or(of_a_hash)
            }
            _ => false,
        }
    }

    /// Whether an ipset refused one of its entries, and not the request as a whole.
    pub fn is_entry_error(&self) -> bool {
        self.errno().is_some_and(|errno| errno >= TYPE_SPECIFIC)
    }

    /// Whether privilege or memory is lacking: nothing of the object that was refused is to blame.
    pub fn is_privilege_or_memory_error(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::ENOMEM | libc::ENOBUFS))
    }

    /// Whether what another process put there may be the reason for which the kernel rejected a change.
    pub(crate) fn may_be_external(&self) -> bool {
        self.errno().is_some() && !self.is_privilege_or_memory_error()
    }

    /// Whether the same question may well be answered if it is asked again at once.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Interrupted { .. } | Error::Truncated { .. } | Error::Overrun { .. } => true,
            Error::Set { source, .. } | Error::Object { source, .. } => source.is_transient(),
            _ => self.errno() == Some(libc::EBUSY),
        }
    }

    /// Refuses a name that the kernel has no room for: it has 1 to `most` bytes and no NUL.
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

/// The system's words for an error number, with the way out where there is a usual one.
fn errno_text(errno: i32) -> String {
    let words = io::Error::from_raw_os_error(errno);
    match errno {
        // ipset's own, which the system has no words for.
        4096.. => format!("error {errno}"),
        libc::EPERM => format!("{words}; run with CAP_NET_ADMIN"),
        _ => words.to_string(),
    }
}

/// Binds a parse error to what was being done.
pub(crate) trait During<T> {
    fn during(self, action: &'static str) -> Result<T>;
}

impl<T> During<T> for Result<T, Malformed> {
    fn during(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Malformed { action, source })
    }
}

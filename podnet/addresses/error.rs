//! Errors of the address store.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attachment::AttachmentKey;
use super::exhaustion::Exhaustion;
use super::pod_range::PodRange;
use super::store_lock::Holder;

/// Result of an operation of the address store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of the address store. After an error of [`add`](super::AddressStore::add) nothing is reserved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system call's error.
        source: io::Error,
    },
    /// The file system of the store has neither space nor inodes left, or its quota is used up.
    #[error("cannot write {path}: {source}; no address was allocated. Free space or inodes in this file system (`df`, `df -i`)", path = path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The system call's error.
        source: io::Error,
    },
    /// Another process holds the lock for too long.
    #[error("cannot lock {path}: {holder} has held the lock for more than {} s", waited.as_secs(), path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The time that was waited.
        waited: Duration,
        /// The process that holds the lock.
        holder: Holder,
    },
    /// A file of the store was not written by it, or is damaged.
    #[error("{path}: {reason}; {way_out}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
        /// How to repair it.
        way_out: &'static str,
    },
    /// There is no range to allocate from.
    #[error("no pod CIDR to allocate addresses from; expected at least one in `podCIDRs`")]
    NoRange,
    /// A node has at most one pod CIDR of each address family.
    #[error("pod CIDRs {0} and {1} are of the same address family; expected at most one of each")]
    SameFamily(PodRange, PodRange),
    /// No address of a range is free.
    #[error(transparent)]
    Exhausted(#[from] Box<Exhaustion>),
    /// The kernel does not tell whether an address is in use.
    #[error("cannot determine whether {address} is in use: {source}")]
    Lookup {
        /// The address.
        address: IpAddr,
        /// The kernel's error.
        source: portcullis_netlink::Error,
    },
    /// The reservation was removed while the interface was being created, by `DEL` or `GC`.
    #[error("the addresses of {0} were returned while its interface was being created")]
    Returned(AttachmentKey),
}

impl Error {
    /// Returns a closure that adds the action and the path to an error of a system call.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Returns the error of a write, which says so if the file system is full.
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        move |source| match source.kind() {
            StorageFull | QuotaExceeded => Self::DiskFull { path: path.to_owned(), source },
            _ => Self::Io { action: "write", path: path.to_owned(), source },
        }
    }
}

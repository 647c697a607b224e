//! Errors of pod interfaces.

use std::io;
use std::path::PathBuf;

/// Result of a change of a pod interface.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of a change of a pod interface.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel rejected a change on the host.
    #[error("{0}")]
    Host(#[from] portcullis_netlink::Error),
    /// The kernel rejected a change in the pod.
    #[error("in {}: {source}", netns.display())]
    Pod {
        /// The network namespace.
        netns: PathBuf,
        /// The rejection.
        source: portcullis_netlink::Error,
    },
    /// The network namespace cannot be entered.
    #[error("cannot enter {}: {source}", netns.display())]
    Enter {
        /// The network namespace.
        netns: PathBuf,
        /// The system call's error.
        source: io::Error,
    },
    /// The name is taken in the pod.
    #[error("{} has an interface {name} already, which is not of this network", netns.display())]
    NameTaken {
        /// The network namespace.
        netns: PathBuf,
        /// The interface's name.
        name: String,
    },
    /// A link with the name of the host's end is not ours.
    #[error("the node has a link {0} that is not of the pod network")]
    HostNameTaken(String),
    /// A link with the name of the bridge is of another kind.
    #[error("the node's link {name} is of kind {kind}; expected a bridge")]
    NotABridge {
        /// The name.
        name: String,
        /// The kind.
        kind: String,
    },
    /// A setting cannot be read.
    #[error("cannot read {path}: {source}")]
    ReadSysctl {
        /// The file.
        path: String,
        /// The system call's error.
        source: io::Error,
    },
    /// A setting cannot be changed.
    #[error("cannot write {value} to {path}: {source}")]
    Sysctl {
        /// The file.
        path: String,
        /// The value.
        value: String,
        /// The system call's error.
        source: io::Error,
    },
    /// Packets between pods would pass no rules.
    #[error(
        "cannot read {path}: {source}; wiring \"bridge\" needs the kernel module br_netfilter (`modprobe br_netfilter`): without it \
         Services and policies do not apply to packets between pods of this node"
    )]
    NoBridgeFilter {
        /// The file.
        path: String,
        /// The system call's error.
        source: io::Error,
    },
}

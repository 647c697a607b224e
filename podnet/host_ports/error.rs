//! Errors of host ports.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::mapping::PortMapping;

/// Error of a change of host ports.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// Another pod has the host port.
    #[error("host port {mapping} is in use by the pod at {holder}")]
    Conflict {
        /// The rejected mapping.
        mapping: PortMapping,
        /// The pod's address and port to which the host port is forwarded.
        holder: SocketAddr,
    },
    /// A runtime passed the same host port twice with different ports of the container.
    #[error("host port {mapping} is mapped twice, to ports {first} and {} of the container", mapping.container_port)]
    MappedTwice {
        /// The second mapping.
        mapping: PortMapping,
        /// The port of the first mapping.
        first: u16,
    },
    /// The pod has no address of a family that can serve the host port.
    #[error("host port {mapping} cannot be forwarded: the pod has no address of the family of {host_ip}")]
    NoAddress {
        /// The mapping.
        mapping: PortMapping,
        /// Its host IP.
        host_ip: std::net::IpAddr,
    },
    /// The records of pods cannot be read, so nothing is restored or removed.
    #[error("cannot read the records of pods, from which host ports are restored: {0}")]
    Records(String),
    /// The kernel has no nf_tables.
    #[error(
        "host ports need nf_tables, which this kernel does not have (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT)"
    )]
    NoTables,
    /// The kernel rejected a request.
    #[error("host ports: {0}")]
    Kernel(#[from] portcullis_netlink::Error),
    /// The lock file cannot be locked.
    #[error("cannot lock {path}: {source}", path = path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The interface to the pod cannot be prepared for connections from a loopback address.
    #[error("host port {mapping} cannot be served: {reason}")]
    Loopback {
        /// A mapping with a loopback address as host IP.
        mapping: PortMapping,
        /// The reason.
        reason: String,
    },
}

//! The other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The other end of a connection, by which a pool tells whose connections are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// The address of a TCP client.
    Address(IpAddr),
    /// The process of a client of a Unix socket; 0 if it is not known.
    Process(u32),
}

impl Peer {
    /// A peer that is not known.
    pub(super) const UNKNOWN: Peer = Peer::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Address(address) => address.fmt(f),
            Peer::Process(process) => write!(f, "process {process}"),
        }
    }
}

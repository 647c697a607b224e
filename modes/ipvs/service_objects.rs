//! What one Service needs in the kernel, in one family.

use std::net::IpAddr;

use portcullis_netlink::ip_vs::{RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;

/// A virtual server with what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) key: VirtualServer,
    pub(super) config: VirtualServerConfig,
    /// Sorted.
    pub(super) real: Vec<RealServer>,
}

/// All that a Service needs. An address or an entry may be named several times: by two ports, or by two
/// Services that share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceObjects {
    /// No two have the same key.
    pub(super) servers: Vec<Server>,
    /// Addresses that the node must take for its own.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) entries: Vec<(IpSet, SetEntry)>,
    /// Rules for [`OUT_FILTER`](super::rules::OUT_FILTER), without `-A CHAIN`.
    pub(super) out_filter: Vec<String>,
}

impl ServiceObjects {
    /// Adds a virtual server, unless there is one for the same packets.
    pub(super) fn serve(&mut self, server: Server) {
        if !self.servers.iter().any(|s| s.key == server.key) {
            self.servers.push(server);
        }
    }

    pub(super) fn server(&self, key: &VirtualServer) -> Option<&Server> {
        self.servers.iter().find(|s| s.key == *key)
    }
}

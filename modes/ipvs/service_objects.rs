//! The kernel objects that one Service needs in one family.

use std::net::IpAddr;

use portcullis_netlink::ip_vs::{RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::IpSet;

/// The configuration of a virtual server, and its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its scheduler and flags.
    pub config: VirtualServerConfig,
    /// Its real servers, sorted.
    pub real_servers: Vec<RealServer>,
}

/// The kernel objects that one Service needs. Two ports, or two Services, may need the same address or entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceObjects {
    /// The virtual servers, each once.
    pub(super) servers: Vec<(VirtualServer, ServerSpec)>,
    /// Addresses for [`DUMMY_INTERFACE`](super::kernel::DUMMY_INTERFACE).
    pub(super) addresses: Vec<IpAddr>,
    pub(super) entries: Vec<(IpSet, SetEntry)>,
    /// Rules for [`OUT_FILTER`](super::rules::OUT_FILTER), without `-A CHAIN`.
    pub(super) out_filter: Vec<String>,
}

impl ServiceObjects {
    /// Adds a virtual server, unless there is one with the same protocol, address and port.
    pub(super) fn add_server(&mut self, server: VirtualServer, spec: ServerSpec) {
        if self.server(&server).is_none() {
            self.servers.push((server, spec));
        }
    }

    pub(super) fn server(&self, server: &VirtualServer) -> Option<&ServerSpec> {
        self.servers.iter().find(|(key, _)| key == server).map(|(_, spec)| spec)
    }

    /// Removes a virtual server from the list, and returns its specification.
    pub(super) fn take_server(&mut self, server: &VirtualServer) -> Option<ServerSpec> {
        let index = self.servers.iter().position(|(key, _)| key == server)?;
        Some(self.servers.swap_remove(index).1)
    }
}

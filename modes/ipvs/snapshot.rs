//! The objects of IPVS mode as read from the kernel at the beginning of a full sync.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_netlink::ip_vs::{VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::SetEntry;

use super::errors::{cannot, cannot_do};
use super::ip_set::{IpSet, PerSet};
use super::kernel::IpvsKernel;
use super::server_diff::{FoundServer, FoundServers};
use crate::error::SyncError;

/// The lists of the kernel that cover both families, read when the first family needs them. A family takes its part;
/// what is written for one family does not change the part of the other.
#[derive(Default)]
pub(super) struct NodeSnapshot(Option<NodeLists>);

struct NodeLists {
    servers: Vec<(VirtualServer, VirtualServerConfig)>,
    addresses: Vec<IpAddr>,
}

impl NodeSnapshot {
    fn lists(&mut self, kernel: &mut dyn IpvsKernel) -> Result<&mut NodeLists, SyncError> {
        Ok(match &mut self.0 {
            Some(lists) => lists,
            unread => unread.insert(NodeLists {
                servers: kernel.virtual_servers().map_err(cannot("list the virtual servers"))?,
                addresses: kernel.addresses().map_err(cannot("list the addresses of kube-ipvs0"))?,
            }),
        })
    }
}

/// The objects of one family.
#[derive(Default)]
pub(super) struct FamilySnapshot {
    pub(super) servers: HashMap<VirtualServer, VirtualServerConfig>,
    pub(super) addresses: HashSet<IpAddr>,
    pub(super) entries: PerSet<HashSet<SetEntry>>,
}

impl FamilySnapshot {
    /// Reads the objects of a family. Creates sets that are missing.
    pub(super) fn read(
        kernel: &mut dyn IpvsKernel,
        family: Family,
        node: &mut NodeSnapshot,
    ) -> Result<Self, SyncError> {
        let mut entries = PerSet::default();
        for set in IpSet::ALL {
            let create = |error| cannot_do(format!("make the ipset {}", set.name(family)), error);
            kernel.ensure_set(set, family).map_err(create)?;
            let found = kernel.entries(set, family).map_err(cannot("list an ipset"))?;
            entries[set] = found.into_iter().collect();
        }
        let lists = node.lists(kernel)?;
        let is_in = |address: &IpAddr| Family::from_address(*address) == family;
        Ok(FamilySnapshot {
            servers: lists.servers.extract_if(.., |(server, _)| is_in(&server.address)).collect(),
            addresses: lists.addresses.extract_if(.., |address| is_in(address)).collect(),
            entries,
        })
    }

    /// Returns the entries of a set that are missing from the kernel, sorted.
    pub(super) fn missing_entries<'a>(
        &self,
        set: IpSet,
        needed: impl Iterator<Item = &'a SetEntry>,
    ) -> Vec<SetEntry> {
        let mut missing: Vec<SetEntry> =
            needed.filter(|entry| !self.entries[set].contains(*entry)).copied().collect();
        missing.sort_unstable();
        missing
    }

    /// Removes a virtual server from the snapshot, and reads its real servers.
    pub(super) fn take_server(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        server: &VirtualServer,
    ) -> Result<Option<FoundServer>, SyncError> {
        let Some(config) = self.servers.remove(server) else { return Ok(None) };
        with_real_servers(kernel, server, config).map(Some)
    }
}

/// Reads virtual servers with their real servers.
pub(super) fn read_servers(
    kernel: &mut dyn IpvsKernel,
    servers: impl IntoIterator<Item = VirtualServer>,
) -> Result<FoundServers, SyncError> {
    let mut found = FoundServers::new();
    for server in servers {
        let config = kernel.virtual_server(&server).map_err(cannot("read a virtual server"))?;
        let read = config.map(|config| with_real_servers(kernel, &server, config)).transpose()?;
        found.insert(server, read);
    }
    Ok(found)
}

fn with_real_servers(
    kernel: &mut dyn IpvsKernel,
    server: &VirtualServer,
    config: VirtualServerConfig,
) -> Result<FoundServer, SyncError> {
    let real_servers = kernel.real_servers(server).map_err(cannot("list the real servers"))?;
    Ok(FoundServer { config, real_servers })
}

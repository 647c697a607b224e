//! The kernel objects of IPVS mode except iptables rules.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_netlink::Family;
use portcullis_netlink::ip_vs::{IpVs, RealServer, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::{IpSets, SetEntry, SetType};
use portcullis_netlink::route::Rtnetlink;

/// All objects of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(super) sets: BTreeMap<String, Set>,
    pub(super) servers: BTreeMap<VirtualServer, Server>,
    pub(super) addresses: BTreeSet<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) set_type: SetType,
    pub(super) family: Family,
    pub(super) maxelem: u32,
    pub(super) entries: BTreeSet<SetEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) config: VirtualServerConfig,
    pub(super) real: BTreeSet<RealServer>,
}

impl Objects {
    /// Reads those of the network namespace of this thread.
    pub(crate) fn read() -> portcullis_netlink::Result<Objects> {
        let mut objects = Objects::default();
        let mut sets = IpSets::open_or_load()?;
        for name in sets.names()? {
            let header = sets.header(&name)?.expect("no other process deletes it");
            let mut set = Set {
                set_type: SetType::from_name(&header.type_name).expect("the daemon's types are known"),
                family: header.family.unwrap_or(Family::V4),
                maxelem: header.maxelem.unwrap_or_default(),
                entries: BTreeSet::new(),
            };
            sets.entries(&name, |entry| {
                set.entries.insert(entry);
                Ok(())
            })?;
            objects.sets.insert(name, set);
        }
        let mut servers = IpVs::open()?.expect("the daemon ran");
        for (key, config) in servers.virtual_servers()? {
            let real = servers.real_servers(&key)?.into_iter().map(|state| state.server).collect();
            objects.servers.insert(key, Server { config, real });
        }
        let mut interfaces = Rtnetlink::open()?;
        if let Some(link) = interfaces.link_index(DUMMY_INTERFACE)? {
            objects.addresses = interfaces.link_addresses(link)?.into_iter().collect();
        }
        Ok(objects)
    }

    /// Returns the numbers of virtual servers, real servers, set entries, and addresses.
    pub(crate) fn counts(&self) -> [usize; 4] {
        let real = self.servers.values().map(|server| server.real.len()).sum();
        let entries = self.sets.values().map(|set| set.entries.len()).sum();
        [self.servers.len(), real, entries, self.addresses.len()]
    }
}

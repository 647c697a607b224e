//! The changes since the last sync that succeeded: the kernel may have them or not.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use portcullis_cluster::NamespacedName;
use portcullis_netlink::ip_vs::VirtualServer;

use super::ip_set::IpSet;
use super::planner::{Operation, SetEntries};
use super::programmed::{ChangeSet, Ports};
use super::references::ReferenceChanges;

/// The changes since the last sync that succeeded. Where the kernel differs in one of these objects, a failed sync
/// may be the reason; where it differs in another, another process changed it.
#[derive(Default)]
pub(super) struct Unconfirmed {
    services: HashMap<NamespacedName, Option<Ports>>,
    servers: BTreeSet<VirtualServer>,
    references: ReferenceChanges,
}

impl Unconfirmed {
    pub(super) fn add(&mut self, changes: &ChangeSet) {
        for (name, previous) in &changes.services {
            self.services.entry(name.clone()).or_insert_with(|| previous.clone());
        }
        self.servers.extend(changes.servers.keys());
        self.references.extend(&changes.references);
    }

    /// Adds an address that the kernel rejected.
    pub(super) fn add_address(&mut self, address: IpAddr) {
        self.references.touch_address(address);
    }

    /// Returns the ports of a Service as last programmed with success, if it changed since.
    pub(super) fn last_confirmed(&self, name: &NamespacedName) -> Option<Ports> {
        self.services.get(name)?.clone()
    }

    pub(super) fn contains_server(&self, server: &VirtualServer) -> bool {
        self.servers.contains(server)
    }

    /// Returns the number of these entries that no change since then explains.
    pub(super) fn unexplained_entries(&self, entries: &SetEntries) -> usize {
        let unexplained = |set: IpSet| {
            entries[set].iter().filter(|entry| !self.references.touches_entry(set, entry)).count()
        };
        IpSet::ALL.into_iter().map(unexplained).sum()
    }

    /// Returns the number of objects in an operation that no change since then explains.
    pub(super) fn unexplained(&self, operation: &Operation) -> usize {
        match operation {
            Operation::AddEntries(set, entries) | Operation::DeleteEntries(set, entries) => {
                entries.iter().filter(|entry| !self.references.touches_entry(*set, entry)).count()
            }
            Operation::ChangeServers(changes) => {
                changes.iter().filter(|change| !self.contains_server(change.server())).count()
            }
            Operation::AddAddresses(addresses) | Operation::DeleteAddresses(addresses) => {
                addresses.iter().filter(|address| !self.references.touches_address(address)).count()
            }
            Operation::RestoreServers(_) | Operation::WriteRules(_) => 0,
        }
    }
}

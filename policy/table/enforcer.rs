//! Enforcer: keeps the policies' tables in the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{
    self, ChangeCounts, CommitSummary, DesiredTable, Table, TableFamily, UnknownObjects, delete_table,
    read_counters,
};
use portcullis_netlink::socket::Socket;

use super::label::DropLabels;
use super::names::TABLE;
use super::options::PolicyOptions;
use super::policy_table::PolicyTable;
use crate::compile::{CompiledPolicies, PolicyChanges};
use crate::interfaces::PodInterface;

/// The families of the tables.
const FAMILIES: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Bridge];

/// Writes the policies' tables to the kernel.
#[derive(Debug)]
pub struct Enforcer {
    table: PolicyTable,
    has_bridge_family: bool,
    socket: Socket,
    /// The effects of transactions since the last [`Enforcer::sync`].
    prepared: CommitSummary,
}

/// A counter of packets that were dropped, or would be with [`PolicyOptions::audit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounter {
    /// Direction and policies.
    pub labels: DropLabels,
    /// Packets since the counter was created.
    pub packets: u64,
    /// Bytes since the counter was created.
    pub bytes: u64,
}

/// Error of the enforcer.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel has no nf_tables.
    #[error("NetworkPolicies cannot be enforced: this kernel has no nf_tables (CONFIG_NF_TABLES)")]
    NoTables,
    /// The kernel rejected a request.
    #[error(transparent)]
    Kernel(#[from] portcullis_netlink::Error),
}

impl Enforcer {
    /// Opens an enforcer in the network namespace of the calling thread. It changes nothing before [`Enforcer::sync`].
    ///
    /// # Errors
    /// The kernel has no nf_tables, or the process lacks privilege.
    pub fn open(options: PolicyOptions) -> Result<Self, EnforceError> {
        let socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        let table = PolicyTable::new(options);
        Ok(Enforcer { table, has_bridge_family: true, socket, prepared: CommitSummary::default() })
    }

    /// Returns the options.
    pub fn options(&self) -> &PolicyOptions {
        self.table.options()
    }

    /// Returns the desired tables.
    pub fn table(&self) -> &PolicyTable {
        &self.table
    }

    /// Returns the socket that writes, whose port id distinguishes our own changes from external ones.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Applies changes of compiled policies to the desired tables. `compiled` is the state after the changes. Writes identities for
    /// new groups of peers, which no rule matches yet, to the kernel.
    pub fn apply(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) {
        if self.table.prepare(changes, compiled) {
            // After a rejection, the next sync writes everything, and returns the error if it is rejected again.
            if let Ok(written) = nf_tables::commit(&mut self.socket, self.table.tables_mut()[0]) {
                add(&mut self.prepared, written);
            }
            nf_tables::wait_for_packets();
        }
        self.table.apply(changes, compiled);
    }

    /// Logs drops to an NFLOG group, or no longer, with effect from the next [`Enforcer::sync`]. The interfaces and the pickup
    /// of connections must be set again.
    pub fn set_observed(&mut self, group: Option<u16>, compiled: &CompiledPolicies) {
        let options = PolicyOptions { observed: group, ..self.table.options().clone() };
        self.set_options(options, compiled);
    }

    /// Changes the options, with effect from the next [`Enforcer::sync`]. Returns true if they differ from the present ones: then the
    /// desired tables are built again from `compiled`, and changes of it need not be applied.
    pub fn set_options(&mut self, options: PolicyOptions, compiled: &CompiledPolicies) -> bool {
        if options == *self.table.options() {
            return false;
        }
        self.table = PolicyTable::from_compiled(options, compiled);
        true
    }

    /// Sets whether untracked TCP connections are picked up in their middle, with effect from the next
    /// [`Enforcer::sync`]. If not, such a packet is evaluated as the first of a new connection.
    pub fn set_pick_up(&mut self, on: bool) {
        self.table.set_pick_up(on);
    }

    /// Sets the interfaces by which pods are matched, with effect from the next [`Enforcer::sync`].
    pub fn set_interfaces(&mut self, interfaces: &[PodInterface], compiled: &CompiledPolicies) {
        self.table.set_interfaces(interfaces, compiled);
    }

    /// Returns true if the kernel's tables may differ from the desired ones.
    pub fn needs_sync(&self) -> bool {
        let bridge = self.has_bridge_family && self.table.bridge().is_dirty();
        self.table.table().is_dirty() || bridge
    }

    /// Returns false if the kernel is known to lack the bridge family of nf_tables. Pods that are ports of a bridge are
    /// then matched by the addresses of their Pod objects only.
    pub fn has_bridge_family(&self) -> bool {
        self.has_bridge_family
    }

    /// Makes the next [`Enforcer::sync`] compare all objects with the kernel.
    pub fn request_full_sync(&mut self) {
        self.table.tables_mut().into_iter().for_each(DesiredTable::invalidate);
    }

    /// Writes the desired tables. `compiled` is their state. Transactions that follow remove what is not used any longer, when
    /// packets in progress have been evaluated.
    ///
    /// # Errors
    /// The kernel rejected a transaction, which then has no effect.
    pub fn sync(&mut self, compiled: &CompiledPolicies) -> Result<CommitSummary, portcullis_netlink::Error> {
        let Enforcer { table, socket, has_bridge_family, prepared } = self;
        let mut committed = std::mem::take(prepared);
        add(&mut committed, nf_tables::commit(socket, table.tables_mut()[0])?);
        while table.accepted(compiled) {
            nf_tables::wait_for_packets();
            add(&mut committed, nf_tables::commit(socket, table.tables_mut()[0])?);
        }
        let [_, bridge] = table.tables_mut();
        if !*has_bridge_family {
            return Ok(committed);
        }
        match nf_tables::commit(socket, bridge) {
            Ok(more) => add(&mut committed, more),
            Err(error) if is_without_family(&error) => {
                *has_bridge_family = false;
            }
            Err(error) => return Err(error),
        }
        Ok(committed)
    }

    /// Has the kernel validate the desired table of the inet family, without applying it. Objects of other processes do not
    /// influence the result.
    ///
    /// # Errors
    /// The kernel rejects the table.
    pub fn validate(&mut self) -> Result<(), portcullis_netlink::Error> {
        nf_tables::check_replacement(&mut self.socket, self.table.table())
    }

    /// Returns true if an error of [`Enforcer::sync`] or [`Enforcer::validate`] may be caused by a policy: the kernel rejected an
    /// object of the inet family. The table of the bridge family depends on interfaces only.
    pub fn may_be_caused_by_policy(&self, error: &portcullis_netlink::Error) -> bool {
        error.is_object_rejection() && self.table.table().is_dirty()
    }

    /// Compares the kernel's tables with the desired ones.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn check(&mut self) -> Result<ChangeCounts, portcullis_netlink::Error> {
        let mut extent = nf_tables::compare(&mut self.socket, self.table.table())?;
        if self.has_bridge_family {
            extent += nf_tables::compare(&mut self.socket, self.table.bridge())?;
        }
        Ok(extent)
    }

    /// Removes from the kernel's tables what blocks all packets and that no policy writes; see
    /// [`nf_tables::remove_blocking_objects`]. Returns descriptions of the removed objects.
    ///
    /// # Errors
    /// A table cannot be read or changed.
    pub fn remove_blocking_objects(&mut self) -> Result<Vec<String>, portcullis_netlink::Error> {
        let base = PolicyTable::new(self.table.options().clone());
        let mut removed = nf_tables::remove_blocking_objects(&mut self.socket, base.table().desired())?;
        match nf_tables::remove_blocking_objects(&mut self.socket, base.bridge().desired()) {
            Err(error) if is_without_family(&error) => {}
            more => removed.extend(more?),
        }
        Ok(removed)
    }

    /// Returns the families of the tables that [`Enforcer::remove`] would remove.
    ///
    /// # Errors
    /// The tables cannot be listed.
    pub fn find() -> Result<Vec<TableFamily>, EnforceError> {
        let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        let mut found = Vec::new();
        for family in FAMILIES {
            if nf_tables::has_table(&mut socket, family, TABLE)? {
                found.push(family);
            }
        }
        Ok(found)
    }

    /// Removes the tables, which ends enforcement. Returns the families of the removed tables.
    ///
    /// # Errors
    /// The kernel rejected a deletion.
    pub fn remove() -> Result<Vec<TableFamily>, EnforceError> {
        let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        let mut removed = Vec::new();
        // The bridge table has no effect on its own, so it is removed last.
        for family in FAMILIES {
            if delete_table(&mut socket, family, TABLE)? {
                removed.push(family);
            }
        }
        Ok(removed)
    }
}

/// Adds the summary of another transaction of the same sync.
fn add(sum: &mut CommitSummary, more: CommitSummary) {
    sum.changes += more.changes;
    sum.full |= more.full;
    sum.replaced |= more.replaced;
    sum.bytes += more.bytes;
}

/// Reads the kernel's table of a family, and the objects in it that Portcullis does not know, in the network namespace
/// of the calling thread; `None` if there is no table.
///
/// # Errors
/// The table cannot be read.
pub fn read(family: TableFamily) -> Result<Option<(Table, UnknownObjects)>, EnforceError> {
    let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
    match nf_tables::read(&mut socket, family, TABLE) {
        Err(error) if is_without_family(&error) => Ok(None),
        read => Ok(read?),
    }
}

/// Returns true if the kernel has the bridge family of nf_tables. Changes nothing.
pub fn has_bridge_family() -> bool {
    let probe = || -> portcullis_netlink::Result<bool> {
        let Some(mut socket) = nf_tables::open()? else { return Ok(false) };
        match nf_tables::check_edits(&mut socket, &DesiredTable::new(TableFamily::Bridge, TABLE)) {
            Err(error) if is_without_family(&error) => Ok(false),
            result => result.map(|()| true),
        }
    };
    // If this fails for another reason, the first sync finds out.
    probe().unwrap_or(true)
}

/// Returns true if the kernel lacks an nf_tables family.
fn is_without_family(error: &portcullis_netlink::Error) -> bool {
    matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT))
}

/// Reads the drop counters of the kernel's tables in the network namespace of the calling thread.
///
/// # Errors
/// The counters cannot be read.
pub fn read_drop_counters(labels: &BTreeMap<Arc<str>, DropLabels>) -> Result<Vec<DropCounter>, EnforceError> {
    let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
    let mut counters: Vec<(String, (u64, u64))> = Vec::new();
    for family in FAMILIES {
        match read_counters(&mut socket, family, TABLE) {
            Err(error) if is_without_family(&error) => {}
            read => counters.extend(read?),
        }
    }
    let counters =
        counters.into_iter().filter_map(|(name, sums)| Some((labels.get(name.as_str())?.clone(), sums)));
    Ok(sum_by_labels(counters))
}

/// Sums up counters with equal labels, which a metric must have only once. Profiles may have the same NetworkPolicies
/// and differ in ClusterNetworkPolicies, or in policies that do not fit into the labels.
fn sum_by_labels(counters: impl Iterator<Item = (DropLabels, (u64, u64))>) -> Vec<DropCounter> {
    let mut sums: BTreeMap<DropLabels, (u64, u64)> = BTreeMap::new();
    for (labels, (packets, bytes)) in counters {
        let sum = sums.entry(labels).or_default();
        *sum = (sum.0 + packets, sum.1 + bytes);
    }
    sums.into_iter().map(|(labels, (packets, bytes))| DropCounter { labels, packets, bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_with_equal_labels_are_summed_up() {
        let labels = |policy: &str| DropLabels { direction: "ingress", policy: policy.to_owned() };
        let counters = [(labels("b"), (1, 10)), (labels("a"), (2, 20)), (labels("b"), (3, 30))];
        let counter = |policy, packets, bytes| DropCounter { labels: labels(policy), packets, bytes };
        assert_eq!(sum_by_labels(counters.into_iter()), [counter("a", 2, 20), counter("b", 4, 40)]);
    }
}

//! The table in the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{
    self, ChangeCounts, CommitSummary, DesiredTable, Table, TableFamily, UnknownObjects, delete_table,
    read_counters,
};
use portcullis_netlink::socket::Socket;

use super::label::DropLabels;
use super::layout::PolicyTable;
use super::names::TABLE;
use super::options::PolicyOptions;
use crate::compile::{CompiledPolicies, PolicyChanges};
use crate::interfaces::PodInterface;

/// The families of the tables that there are.
const FAMILIES: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Bridge];

/// Keeps the kernel's tables as the policies want them.
#[derive(Debug)]
pub struct Enforcer {
    table: PolicyTable,
    has_bridge_family: bool,
    socket: Socket,
}

/// Packets that were dropped, or, with [`PolicyOptions::audit`], would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounter {
    /// Why.
    pub label: DropLabels,
    /// How many packets, since the counter was made.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Why policies cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel has no nf_tables.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES), by which NetworkPolicies are enforced")]
    NoTables,
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] portcullis_netlink::Error),
}

impl Enforcer {
    /// Prepares to enforce; the kernel is not touched before [`Enforcer::sync`]. Belongs to the network namespace of
    /// the calling thread.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or there is no privilege.
    pub fn open(options: PolicyOptions) -> Result<Self, EnforceError> {
        let socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        Ok(Enforcer { table: PolicyTable::new(options), has_bridge_family: true, socket })
    }

    /// How policies are enforced.
    pub fn options(&self) -> &PolicyOptions {
        self.table.options()
    }

    /// The table as it should be.
    pub fn table(&self) -> &PolicyTable {
        &self.table
    }

    /// The socket that writes, by which events tell our own changes from those of others.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Takes in what changed. `compiled` is how it is after the changes.
    pub fn apply(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) {
        self.table.apply(changes, compiled);
    }

    /// Enforces in another way from the next [`Enforcer::sync`] on.
    pub fn set_options(&mut self, options: PolicyOptions, compiled: &CompiledPolicies) {
        if options == *self.table.options() {
            return;
        }
        self.table = PolicyTable::from_compiled(options, compiled);
    }

    /// Has the middle of a TCP connection that is not tracked pass from the next [`Enforcer::sync`] on, or be judged as
    /// its begin.
    pub fn set_pick_up(&mut self, on: bool) {
        self.table.set_pick_up(on);
    }

    /// Matches pods by these interfaces from the next [`Enforcer::sync`] on. `compiled` is what the table follows.
    pub fn set_interfaces(&mut self, interfaces: &[PodInterface], compiled: &CompiledPolicies) {
        self.table.set_interfaces(interfaces, compiled);
    }

    /// Whether the kernel may hold something else than it should.
    pub fn needs_sync(&self) -> bool {
        let bridge = self.has_bridge_family && self.table.bridge().is_dirty();
        self.table.table().is_dirty() || bridge
    }

    /// Whether the kernel has nf_tables for bridges, as far as is known. Without it, pods that are ports of a bridge are
    /// matched by their addresses of the API alone.
    pub fn has_bridge_family(&self) -> bool {
        self.has_bridge_family
    }

    /// Has the next [`Enforcer::sync`] compare everything with the kernel.
    pub fn request_full_sync(&mut self) {
        self.table.tables_mut().into_iter().for_each(DesiredTable::invalidate);
    }

    /// Makes the kernel hold what it should, in one transaction for each of the two tables.
    ///
    /// # Errors
    /// The kernel refuses; it then holds what it held before.
    pub fn sync(&mut self) -> Result<CommitSummary, portcullis_netlink::Error> {
        let Enforcer { table, socket, has_bridge_family } = self;
        let [inet, bridge] = table.tables_mut();
        let mut committed = inet.commit(socket)?;
        if !*has_bridge_family {
            return Ok(committed);
        }
        match bridge.commit(socket) {
            Ok(more) => {
                committed.changes += more.changes;
                committed.full |= more.full;
                committed.replaced |= more.replaced;
                committed.bytes += more.bytes;
            }
            Err(error) if is_without_family(&error) => {
                *has_bridge_family = false;
            }
            Err(error) => return Err(error),
        }
        Ok(committed)
    }

    /// What the kernel's tables differ in.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn check(&mut self) -> Result<ChangeCounts, portcullis_netlink::Error> {
        let mut extent = self.table.table().check(&mut self.socket)?;
        if self.has_bridge_family {
            extent += self.table.bridge().check(&mut self.socket)?;
        }
        Ok(extent)
    }

    /// Takes the tables away: nothing is enforced any more. The families of those that there were.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove() -> Result<Vec<TableFamily>, EnforceError> {
        let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
        let mut removed = Vec::new();
        // That of the family bridge alone does nothing, so it goes last.
        for family in FAMILIES {
            if delete_table(&mut socket, family, TABLE)? {
                removed.push(family);
            }
        }
        Ok(removed)
    }
}

/// The kernel's table of a family, and what is in it that we have no words for; `None` if there is none. Belongs to the
/// network namespace of the calling thread.
///
/// # Errors
/// It cannot be read.
pub fn read(family: TableFamily) -> Result<Option<(Table, UnknownObjects)>, EnforceError> {
    let mut socket = nf_tables::open()?.ok_or(EnforceError::NoTables)?;
    match nf_tables::read(&mut socket, family, TABLE) {
        Err(error) if is_without_family(&error) => Ok(None),
        read => Ok(read?),
    }
}

/// Whether the kernel has nf_tables for bridges. PolicyChanges nothing.
pub fn has_bridge_family() -> bool {
    let tried = || -> portcullis_netlink::Result<bool> {
        let Some(mut socket) = nf_tables::open()? else { return Ok(false) };
        match DesiredTable::new(TableFamily::Bridge, TABLE).check_edits(&mut socket) {
            Err(error) if is_without_family(&error) => Ok(false),
            tried => tried.map(|()| true),
        }
    };
    // What cannot be told is found out when the table is written.
    tried().unwrap_or(true)
}

/// Whether the kernel has no nf_tables for a family.
fn is_without_family(error: &portcullis_netlink::Error) -> bool {
    matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT))
}

/// What was dropped so far, by the counters of the kernel's table. Belongs to the network namespace of the calling
/// thread.
///
/// # Errors
/// It cannot be read.
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
    Ok(by_label(counters))
}

/// Adds up counters of one label: profiles may have the same NetworkPolicies and differ in others, or in policies that
/// their label has no room for. A metric has each label once.
fn by_label(counters: impl Iterator<Item = (DropLabels, (u64, u64))>) -> Vec<DropCounter> {
    let mut sums: BTreeMap<DropLabels, (u64, u64)> = BTreeMap::new();
    for (label, (packets, bytes)) in counters {
        let sum = sums.entry(label).or_default();
        *sum = (sum.0 + packets, sum.1 + bytes);
    }
    sums.into_iter().map(|(label, (packets, bytes))| DropCounter { label, packets, bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_counted_once() {
        let label = |policy: &str| DropLabels { direction: "ingress", policy: policy.to_owned() };
        let counters = [(label("b"), (1, 10)), (label("a"), (2, 20)), (label("b"), (3, 30))];
        let counted = |policy, packets, bytes| DropCounter { label: label(policy), packets, bytes };
        assert_eq!(by_label(counters.into_iter()), [counted("a", 2, 20), counted("b", 4, 40)]);
    }
}

//! Applies planned operations to the kernel, in batches, and collects the results.

use std::collections::HashSet;
use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_netlink as netlink;
use portcullis_netlink::ipset::SetEntry;

use super::audit::AuditWrites;
use super::errors::{cannot, cannot_do};
use super::ip_set::IpSet;
use super::kernel::{DUMMY_INTERFACE, IpvsKernel, ServerChange};
use super::planner::{Operation, SetEntries};
use super::rejections::{AcceptedClasses, RejectedAddress, RejectedChanges, RejectedEntries};
use super::rule_sync::{RuleSync, TABLES, table_index};
use crate::error::SyncError;
use crate::iptables::{IptablesKernel, Table};

/// Applies the operations of one family.
pub(super) struct Executor {
    family: Family,
    pub(super) rules: RuleSync,
    /// The objects written since the current audit began.
    pub(super) audit_writes: Option<AuditWrites>,
}

/// The results of operations.
#[derive(Default)]
pub(super) struct Results {
    /// Written objects and rules.
    pub(super) written: usize,
    /// Written rules, by table.
    pub(super) rules: [usize; TABLES.len()],
    /// Restored objects and chains that another process had changed.
    pub(super) restored: usize,
    /// Added entries, sorted.
    pub(super) added: SetEntries,
    pub(super) rejected_changes: RejectedChanges,
    /// The classes of accepted changes of other virtual servers.
    pub(super) accepted: AcceptedClasses,
    pub(super) rejected_addresses: Vec<RejectedAddress>,
    /// Entries that a set rejected. The operations after it were not applied.
    pub(super) rejected_entries: Option<RejectedEntries>,
}

impl Results {
    fn add_entries(&mut self, set: IpSet, entries: impl Iterator<Item = SetEntry>) {
        self.added[set].extend(entries);
        self.added[set].sort_unstable();
    }
}

impl Executor {
    pub(super) fn new(family: Family, iptables: Box<dyn IptablesKernel>) -> Self {
        Executor { family, rules: RuleSync::new(iptables), audit_writes: None }
    }

    /// Applies operations in order, and adds rejections to the results. A rejected change of a virtual server or
    /// address does not stop the operations; rejected entries do.
    ///
    /// # Errors
    /// The kernel could not be reached, or rejected rules. Later operations are not applied.
    pub(super) fn run(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        operations: &[Operation],
        results: &mut Results,
    ) -> Result<(), SyncError> {
        for operation in operations {
            match operation {
                Operation::AddEntries(set, entries) => {
                    self.add_entries(kernel, *set, entries, results)?;
                    if results.rejected_entries.is_some() {
                        return Ok(());
                    }
                }
                Operation::DeleteEntries(set, entries) => {
                    let deleted = self.change_set(kernel, *set, &[], entries);
                    deleted.map_err(|error| self.set_error(*set, error))?;
                    results.written += entries.len();
                }
                Operation::ChangeServers(changes) => {
                    self.change_servers(kernel, changes, results)?;
                    results.written += changes.len();
                }
                Operation::RestoreServers(changes) => {
                    self.change_servers(kernel, changes, results)?;
                    results.restored += changes.len();
                }
                Operation::WriteRules(tables) => self.write_rules(tables, results)?,
                Operation::AddAddresses(addresses) => {
                    self.change_addresses(kernel, addresses, &[], results)?;
                }
                Operation::DeleteAddresses(addresses) => {
                    self.change_addresses(kernel, &[], addresses, results)?;
                }
            }
        }
        Ok(())
    }

    fn add_entries(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        set: IpSet,
        entries: &[SetEntry],
        results: &mut Results,
    ) -> Result<(), SyncError> {
        results.written += entries.len();
        let Err(error) = self.change_set(kernel, set, entries, &[]) else {
            results.add_entries(set, entries.iter().copied());
            return Ok(());
        };
        let is_entry_error = error.is_entry_error();
        let error = self.set_error(set, error);
        if !is_entry_error {
            return Err(error);
        }
        let held = kernel.entries(set, self.family).map_err(cannot("list an ipset"))?;
        let held: HashSet<SetEntry> = held.into_iter().collect();
        let (added, rejected): (Vec<_>, Vec<_>) =
            entries.iter().copied().partition(|entry| held.contains(entry));
        results.add_entries(set, added.into_iter());
        results.rejected_entries = Some(RejectedEntries {
            set,
            entries: rejected.into_iter().collect(),
            has_others: !held.is_empty(),
            error,
        });
        Ok(())
    }

    /// Changes virtual servers. Rejected changes are added to the results, and the rest is applied.
    ///
    /// # Errors
    /// The kernel could not be reached.
    pub(super) fn change_servers(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        changes: &[ServerChange],
        results: &mut Results,
    ) -> Result<(), SyncError> {
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(writes) = &mut self.audit_writes {
            writes.servers.extend(changes.iter().map(|change| *change.server()));
        }
        let result = kernel.change_servers(changes, &mut |position, error| {
            results.rejected_changes.add(&changes[position], error);
        });
        result.map_err(cannot("change the virtual servers"))?;
        let accepted = changes.iter().filter(|change| !results.rejected_changes.contains(change.server()));
        accepted.for_each(|change| results.accepted.add(change));
        Ok(())
    }

    fn change_set(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        set: IpSet,
        added: &[SetEntry],
        deleted: &[SetEntry],
    ) -> netlink::Result<()> {
        self.note_write();
        kernel.change_set(set, self.family, added, deleted)
    }

    fn change_addresses(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        added: &[IpAddr],
        deleted: &[IpAddr],
        results: &mut Results,
    ) -> Result<(), SyncError> {
        self.note_write();
        let result = kernel.change_addresses(added, deleted, &mut |address, error| {
            let action = format!("change the address {address} of {DUMMY_INTERFACE}");
            results.rejected_addresses.push(RejectedAddress { address, error: cannot_do(action, error) });
        });
        result.map_err(cannot("change the addresses of kube-ipvs0"))?;
        results.written += added.len() + deleted.len();
        Ok(())
    }

    fn write_rules(&mut self, tables: &[Table], results: &mut Results) -> Result<(), SyncError> {
        for (table, written) in self.rules.write(tables)? {
            results.written += written.rules;
            results.restored += written.restored;
            results.rules[table_index(table)] += written.rules;
        }
        Ok(())
    }

    /// Tells the current audit that entries or addresses are being written.
    fn note_write(&mut self) {
        if let Some(writes) = &mut self.audit_writes {
            writes.entries_or_addresses = true;
        }
    }

    fn set_error(&self, set: IpSet, error: netlink::Error) -> SyncError {
        cannot_do(format!("change the ipset {}", set.name(self.family)), error)
    }
}

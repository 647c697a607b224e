//! The entries of sets, and Services whose entries a set does not take, as when it is full.
//!
//! A Service that lacks an entry is half a Service: an address that is kept for some sources may be open to all. So
//! it stays as it was, or is not served at all, until all of its entries are taken; others are served meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_netlink as netlink;
use portcullis_netlink::ipset::SetEntry;

use super::family_sync::{FamilySync, Progress, Target, Targets};
use super::ip_set::IpSet;
use super::kernel::IpvsKernel;
use super::ledger::Delta;
use super::service_objects::ServiceObjects;
use super::write::{asked, said};
use crate::mode::SyncError;

/// The entries of each set, as in [`IpSet::ALL`].
pub(super) type Entries = [HashSet<SetEntry>; IpSet::ALL.len()];

/// Entries by set, as in [`IpSet::ALL`]. [`FamilySync::enter`] keeps what it notes sorted.
pub(super) type Entered = [Vec<SetEntry>; IpSet::ALL.len()];

/// Entries that a set does not take.
pub(super) struct Missing {
    set: IpSet,
    entries: HashSet<SetEntry>,
    error: SyncError,
}

impl Missing {
    fn concerns(&self, objects: &ServiceObjects) -> bool {
        objects.entries.iter().any(|(set, entry)| *set == self.set && self.entries.contains(entry))
    }
}

impl FamilySync {
    /// Enters what a change of a known kernel needs. Services whose entries are not taken become what they are to be
    /// instead, in what is written next too.
    pub(super) fn enter_changes(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        desired: &Desired,
        targets: &mut Targets,
        delta: &mut Delta,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let mut entered = Entered::default();
        loop {
            let new = |family: &Self, set| family.ledger.changed_entries(set, delta).0;
            let Some(missing) = self.enter(kernel, new, &mut entered, progress)? else { return Ok(()) };
            let (instead, later) = self.withhold(desired, missing, now)?;
            delta.extend(&later);
            for (key, target) in instead {
                // What was to come of it was not written.
                let before = match targets.remove(&key) {
                    Some(unwritten) => unwritten.before,
                    None => target.before,
                };
                targets.insert(key, Target { before, ..target });
            }
            self.leave_unneeded(kernel, &mut entered, progress)?;
        }
    }

    /// Enters what is new, exceptions first, and notes what was. Ends at the first set that does not take all.
    pub(super) fn enter(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        new: impl Fn(&Self, IpSet) -> Vec<SetEntry>,
        entered: &mut Entered,
        progress: &mut Progress,
    ) -> Result<Option<Missing>, SyncError> {
        for set in IpSet::ALL.into_iter().rev() {
            let mut added = new(self, set);
            let entered = &mut entered[set.at()];
            added.retain(|entry| entered.binary_search(entry).is_err());
            if added.is_empty() {
                continue;
            }
            self.note_written();
            progress.lines += added.len();
            let Err(error) = kernel.change_set(set, self.family, &added, &[]) else {
                entered.extend(added);
                entered.sort_unstable();
                continue;
            };
            let about_an_entry = error.is_entry_error();
            let error = self.set_error(set, error);
            if !about_an_entry {
                return Err(error);
            }
            let there = kernel.entries(set, self.family).map_err(asked("list an ipset"))?;
            let there: HashSet<SetEntry> = there.into_iter().collect();
            let (taken, missing): (Vec<_>, Vec<_>) = added.into_iter().partition(|e| there.contains(e));
            entered.extend(taken);
            entered.sort_unstable();
            return Ok(Some(Missing { set, entries: missing.into_iter().collect(), error }));
        }
        Ok(None)
    }

    /// Isolates the Services that need what is missing. Each is to be as it last was, if it was without that, or else
    /// not at all. Says what that changes.
    ///
    /// # Errors
    /// Nobody needs it.
    pub(super) fn withhold(
        &mut self,
        desired: &Desired,
        missing: Missing,
        now: Instant,
    ) -> Result<(Targets, Delta), SyncError> {
        let concerned = |ports: &Arc<[ServicePort]>| missing.concerns(&self.renderer.service(ports));
        let guilty = self.programmed.iter().filter(|(_, ports)| concerned(ports));
        let guilty: Vec<NamespacedName> = guilty.map(|(name, _)| name.clone()).collect();
        let instead = |name: &NamespacedName| {
            let before = self.undertaken.before.get(name).filter(|_| !self.withheld.contains_key(name))?;
            before.clone().filter(|ports| !concerned(ports))
        };
        let instead: Vec<_> = guilty.iter().map(instead).collect();
        if guilty.is_empty() {
            return Err(missing.error);
        }
        for (name, instead) in guilty.iter().zip(instead) {
            self.isolations.add(name, &missing.error, now);
            self.withheld.insert(name.clone(), instead);
        }
        Ok(self.take_in(desired, guilty))
    }

    /// Takes out again what was entered for Services that are withheld.
    pub(super) fn leave_unneeded(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        entered: &mut Entered,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        for set in IpSet::ALL {
            let unneeded = |entry: &SetEntry| !self.ledger.needs_entry(set, entry);
            let unneeded: Vec<SetEntry> = entered[set.at()].extract_if(.., |entry| unneeded(entry)).collect();
            self.leave(kernel, set, &unneeded, progress)?;
        }
        Ok(())
    }

    /// Takes entries out of all sets but that of the addresses, so that what is no longer served is rejected while it
    /// is taken down.
    pub(super) fn close(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        unwanted: impl Fn(&Self, IpSet) -> Vec<SetEntry>,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        for set in IpSet::ALL.into_iter().filter(|set| *set != IpSet::IpvsIps) {
            let deleted = unwanted(self, set);
            self.leave(kernel, set, &deleted, progress)?;
        }
        Ok(())
    }

    /// Takes entries out of a set.
    pub(super) fn leave(
        &mut self,
        kernel: &mut dyn IpvsKernel,
        set: IpSet,
        entries: &[SetEntry],
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.note_written();
        kernel.change_set(set, self.family, &[], entries).map_err(|error| self.set_error(set, error))?;
        progress.lines += entries.len();
        Ok(())
    }

    /// How many of these entries somebody else deleted or added.
    pub(super) fn damaged_entries(&self, entries: &Entered) -> usize {
        let damaged = |set: IpSet| {
            let touched = |entry: &&SetEntry| self.undertaken.delta.touches_entry(set, entry);
            entries[set.at()].iter().filter(|entry| !touched(entry)).count()
        };
        IpSet::ALL.into_iter().map(damaged).sum()
    }

    fn set_error(&self, set: IpSet, error: netlink::Error) -> SyncError {
        said(format!("change the ipset {}", set.name(self.family)), error)
    }
}

//! The hot path: a few changed Services, one restore of exactly the chains that differ.

use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::Desired;

use super::base_rules::CANARY;
use super::chain::{ChainName, SharedChain};
use super::family_sync::{IptablesFamilySync, Progress, blames_rules};
use super::script::Restore;
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use crate::mode::SyncError;

/// New orders of the shared chains that a restore edits.
type Edited = [Option<SharedOrder>; SharedChain::ALL.len()];

/// What is known after a restore.
enum Written {
    /// What was written, and what was not.
    Exactly,
    /// Some of it may be written.
    Unsure,
}

impl IptablesFamilySync {
    pub(super) fn incremental(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let names: Vec<NamespacedName> =
            self.pending.iter().filter(|name| !self.isolations.holds(name, now)).cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        match self.write_changes(&names, desired, large, now, progress)? {
            Written::Exactly => Ok(()),
            // Only the kernel knows what it took.
            Written::Unsure => {
                self.note_failed_write();
                self.reconcile(desired, large, now, progress)
            }
        }
    }

    /// Writes some Services in one restore. If it is refused, finds out by whom.
    fn write_changes(
        &mut self,
        names: &[NamespacedName],
        desired: &Desired,
        large: bool,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<Written, SyncError> {
        let (restore, edited) = self.difference(names, desired, large);
        let result =
            if restore.is_empty() { Ok(()) } else { self.kernel.restore(&mut |out| restore.write(out)) };
        let error = match result {
            Ok(()) => {
                progress.lines += restore.count();
                progress.written += restore.rules();
                self.note_changes(names, edited, desired, large);
                return Ok(Written::Exactly);
            }
            // A restore is all or nothing for each table, not for all.
            Err(error) if restore.written().count() > 1 => {
                self.note_failed_write();
                return if blames_rules(&error) { Ok(Written::Unsure) } else { Err(error) };
            }
            Err(error) if !blames_rules(&error) => return Err(error),
            Err(_) if self.notes_chains_in_use()? => {
                return self.write_changes(names, desired, large, now, progress);
            }
            Err(error) => error,
        };
        if let [guilty] = names {
            self.takes_anything(&restore)?;
            self.isolations.add(guilty, &error, now);
            self.pending.remove(guilty);
            return Ok(Written::Exactly);
        }
        let (first, rest) = match named_line(&error).and_then(|line| restore.owner_of(line)) {
            // The tool named the line: that Service alone, and all the others together.
            Some(guilty) => {
                let mut rest = names.to_vec();
                (vec![rest.remove(guilty)], rest)
            }
            None => {
                let (first, rest) = names.split_at(names.len() / 2);
                (first.to_vec(), rest.to_vec())
            }
        };
        match self.write_changes(&first, desired, large, now, progress)? {
            Written::Exactly => self.write_changes(&rest, desired, large, now, progress),
            Written::Unsure => Ok(Written::Unsure),
        }
    }

    /// Whether the kernel and its tool take rules at all, in the tables of a restore that they refused: if not, no Service
    /// is to blame.
    ///
    /// # Errors
    /// They do not.
    fn takes_anything(&self, refused: &Restore) -> Result<(), SyncError> {
        self.kernel.restore(&mut |out| {
            refused.written().try_for_each(|table| write!(out, "*{table}\n:{CANARY} - [0:0]\nCOMMIT\n"))
        })
    }

    fn note_changes(&mut self, names: &[NamespacedName], edited: Edited, desired: &Desired, large: bool) {
        for (order, edited) in self.orders.iter_mut().zip(edited) {
            if let Some(edited) = edited {
                *order = edited;
            }
        }
        for name in names {
            let wanted = self.wanted(desired, name);
            let rules = wanted.as_ref().map(|ports| self.renderer.service(ports, large).count());
            self.note_programmed(name, wanted, large, rules.unwrap_or_default());
        }
    }

    /// What turns the Services as they stand in the kernel into the wanted ones.
    fn difference(&self, names: &[NamespacedName], desired: &Desired, large: bool) -> (Restore, Edited) {
        let mut restore = Restore::default();
        let mut edited = Edited::default();
        for (i, name) in names.iter().enumerate() {
            let old = self.programmed_rules(name);
            let new = match self.wanted(desired, name) {
                Some(ports) => self.renderer.service(&ports, large),
                None => ServiceRules::default(),
            };
            restore.owner(Some(i));
            let (old_chains, new_chains) = (old.by_name(), new.by_name());
            let changed: Vec<(ChainName, &str)> =
                new.chains().filter(|(chain, lines)| old_chains.get(chain) != Some(lines)).collect();
            // All are declared before any is jumped to.
            changed.iter().for_each(|(chain, _)| restore.nat.declare(chain));
            changed.iter().for_each(|(_, lines)| restore.nat.lines(lines));
            for chain in SharedChain::ALL {
                self.edit_shared(chain, name, &old, &new, &mut restore, &mut edited);
            }
            let gone = old.chains().filter(|(chain, _)| !new_chains.contains_key(chain));
            for (chain, _) in gone {
                restore.nat.declare(chain);
                self.in_use.delete(&mut restore.nat, chain);
            }
        }
        (restore, edited)
    }

    fn edit_shared(
        &self,
        chain: SharedChain,
        name: &NamespacedName,
        old: &ServiceRules,
        new: &ServiceRules,
        restore: &mut Restore,
        edited: &mut Edited,
    ) {
        if old.shared(chain).eq(new.shared(chain)) {
            return;
        }
        let order = edited[chain.at()].get_or_insert_with(|| self.orders[chain.at()].clone());
        let (position, count) = order.find(name).unwrap_or_else(|| (order.end(), 0));
        let script = restore.table(chain.table());
        for _ in 0..count {
            script.delete_at(chain, position);
        }
        // The tail must stay last in the chain that has one.
        let has_tail = chain == SharedChain::NatServices && !self.base.tail.is_empty();
        let last = position == order.end() && !has_tail;
        let mut written = 0;
        for rule in new.shared(chain) {
            if last {
                script.append(chain.name(), rule);
            } else {
                script.insert(chain, position + written, rule);
            }
            written += 1;
        }
        order.set(name, written);
    }
}

/// The line that a tool blames, from 1.
pub(super) fn named_line(error: &SyncError) -> Option<usize> {
    match error {
        SyncError::Rejected { line, .. } => *line,
        _ => None,
    }
}

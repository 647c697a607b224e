//! The incremental write of a few changed Services: one restore of exactly the chains that differ.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_cluster::{Budget, NamespacedName};

use super::base_rules::CANARY;
use super::chain::{ChainName, SharedChain, Table};
use super::error::ToolError;
use super::family_proxier::{IptablesFamilyProxier, WriteCounts};
use super::kernel::{Flavour, IptablesKernel};
use super::script::{Restore, RuleCount};
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;

/// The time for which one sync searches for rejected Services. Each attempt is a run of the tool, and other changes wait for it.
const MAX_SEARCH_TIME: Duration = Duration::from_secs(1);

/// The same with the legacy tool, whose runs take more than a second on a large cluster.
const MAX_SEARCH_TIME_LEGACY: Duration = Duration::from_secs(5);

/// The new orders of the shared chains that a restore edits.
type EditedOrders = [Option<SharedOrder>; SharedChain::ALL.len()];

/// The difference between the programmed and the desired rules of some Services.
struct RulesDifference {
    restore: Restore,
    orders: EditedOrders,
    services: Vec<DesiredService>,
}

/// A Service as the restore writes it.
struct DesiredService {
    name: NamespacedName,
    ports: Option<Arc<[ServicePort]>>,
    rules: RuleCount,
}

/// The result of writing some Services in one restore.
enum WriteOutcome {
    Written,
    /// The kernel rejected a rule of one of the Services, and wrote nothing.
    Rejected(Box<Restore>, ToolError),
    /// An unknown part may have been written.
    Unknown,
    /// The kernel rejected the restore, and its rules are no longer those on which the restore is based: another process
    /// has changed them.
    Disturbed,
}

impl IptablesFamilyProxier {
    pub(super) fn incremental(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        counts: &mut WriteCounts,
    ) -> Result<(), ToolError> {
        self.search.retain(|name| self.pending.contains(name));
        let in_search: HashSet<&NamespacedName> = self.search.items().collect();
        let is_new = |name: &&NamespacedName| {
            !self.isolations.is_awaiting_retry(name, now) && !in_search.contains(name)
        };
        let names: Vec<NamespacedName> = self.pending.iter().filter(is_new).cloned().collect();
        // Changed Services come before those of a search.
        self.search.push(names);
        let max_time = match self.kernel.flavour() {
            Flavour::Nft => MAX_SEARCH_TIME,
            Flavour::Legacy => MAX_SEARCH_TIME_LEGACY,
        };
        let mut budget = Budget::new(usize::MAX, max_time, Instant::now());
        while let Some(batch) = self.search.next_batch() {
            if !budget.spend(Instant::now()) {
                self.search.push(batch);
                return Ok(());
            }
            let mut outcome = self.write_changes(&batch, desired, large, counts)?;
            if let (WriteOutcome::Rejected(restore, _), [_]) = (&outcome, &*batch) {
                self.check_accepts_rules(restore.tables())?;
                // If all rules were rejected before, they may be accepted since.
                outcome = self.write_changes(&batch, desired, large, counts)?;
            }
            match outcome {
                WriteOutcome::Written => {}
                WriteOutcome::Rejected(restore, error) => {
                    let named = error.rejected_line().and_then(|line| restore.owner_of(line));
                    if let Some(rejected) = self.search.reject(batch, named) {
                        self.isolations.add(&rejected, &error, now);
                        self.pending.remove(&rejected);
                    }
                }
                // Only a comparison shows what the kernel has.
                WriteOutcome::Unknown => {
                    self.record_failed_write();
                    return self.reconcile(desired, large, now, counts);
                }
                WriteOutcome::Disturbed => {
                    self.mark_unverified();
                    return self.reconcile(desired, large, now, counts);
                }
            }
        }
        Ok(())
    }

    /// Writes some Services in one restore.
    fn write_changes(
        &mut self,
        names: &[NamespacedName],
        desired: &Desired,
        large: bool,
        counts: &mut WriteCounts,
    ) -> Result<WriteOutcome, ToolError> {
        let difference = self.render_difference(names, desired, large);
        let restore = &difference.restore;
        let result =
            if restore.is_empty() { Ok(()) } else { self.kernel.restore(&mut |out| restore.write(out)) };
        match result {
            Ok(()) => {
                counts.lines += restore.count();
                counts.rules += restore.rules();
                self.apply_changes(difference, large);
                Ok(WriteOutcome::Written)
            }
            // A restore is atomic for each table, but not for several.
            Err(error) if restore.tables().count() > 1 => {
                self.record_failed_write();
                if error.rejects_rules() { Ok(WriteOutcome::Unknown) } else { Err(error) }
            }
            Err(error) if !error.rejects_rules() => {
                if !error.shows_nothing_written() {
                    self.record_failed_write();
                }
                Err(error)
            }
            Err(_) if self.is_disturbed() => Ok(WriteOutcome::Disturbed),
            Err(_) if self.in_use.find_new(&self.kernel, self.family)? => {
                self.write_changes(names, desired, large, counts)
            }
            Err(error) => Ok(WriteOutcome::Rejected(Box::new(difference.restore), error)),
        }
    }

    /// Checks that the kernel and its tool accept any rules in these tables; otherwise no Service is the cause of a
    /// rejection.
    ///
    /// # Errors
    /// They accept none.
    pub(super) fn check_accepts_rules(
        &self,
        tables: impl IntoIterator<Item = Table>,
    ) -> Result<(), ToolError> {
        let tables: Vec<Table> = tables.into_iter().collect();
        self.kernel.restore(&mut |out| {
            tables.iter().try_for_each(|table| write!(out, "*{table}\n:{CANARY} - [0:0]\nCOMMIT\n"))
        })
    }

    fn apply_changes(&mut self, difference: RulesDifference, large: bool) {
        for (order, edited) in self.orders.iter_mut().zip(difference.orders) {
            if let Some(edited) = edited {
                *order = edited;
            }
        }
        for service in difference.services {
            self.set_programmed(&service.name, service.ports, large, service.rules);
        }
    }

    fn render_difference(&self, names: &[NamespacedName], desired: &Desired, large: bool) -> RulesDifference {
        let mut restore = Restore::default();
        let mut orders = EditedOrders::default();
        let mut services = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            let old = self.programmed_rules(name);
            let ports = self.ports_to_program(desired, name);
            let new = ports.as_ref().map(|ports| self.renderer.service(ports, large)).unwrap_or_default();
            restore.owner(Some(i));
            let (old_chains, new_chains) = (old.by_name(), new.by_name());
            let changed: Vec<(ChainName, &str)> =
                new.chains().filter(|(chain, lines)| old_chains.get(chain) != Some(lines)).collect();
            // All chains are declared before any rule jumps to one.
            changed.iter().for_each(|(chain, _)| restore.nat.declare(chain));
            changed.iter().for_each(|(_, lines)| restore.nat.lines(lines));
            for chain in SharedChain::ALL {
                self.edit_shared(chain, name, &old, &new, &mut restore, &mut orders);
            }
            let gone = old.chains().filter(|(chain, _)| !new_chains.contains_key(chain));
            for (chain, _) in gone {
                restore.nat.declare(chain);
                self.in_use.delete(&mut restore.nat, chain);
            }
            services.push(DesiredService { name: name.clone(), ports, rules: new.count() });
        }
        RulesDifference { restore, orders, services }
    }

    fn edit_shared(
        &self,
        chain: SharedChain,
        name: &NamespacedName,
        old: &ServiceRules,
        new: &ServiceRules,
        restore: &mut Restore,
        orders: &mut EditedOrders,
    ) {
        // A Service that a search left to later syncs after a restart may have rules of the last process.
        let has_unknown_rules =
            || !self.programmed.contains_key(name) && self.orders[chain.index()].find(name).is_some();
        if old.shared(chain).eq(new.shared(chain)) && !has_unknown_rules() {
            return;
        }
        let order = orders[chain.index()].get_or_insert_with(|| self.orders[chain.index()].clone());
        let (position, count) = order.find(name).unwrap_or_else(|| (order.end(), 0));
        let script = restore.table(chain.table());
        for _ in 0..count {
            script.delete_at(chain, position);
        }
        // The tail must stay last in its chain.
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

//! Writing much at once: the first sync, taking over from another proxy, repair, and great changes.
//!
//! The chains of the Services come first, then the shared chains that lead to them, then what nobody wants
//! any more goes. With the legacy tool all of that is one restore, since each costs the whole table; with the
//! nft tool it is one for some Services each, since a restore costs more than in proportion to its chains.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::Range;
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::Desired;

use super::chain::{ChainName, SharedChain, Table};
use super::family_sync::{FamilySync, Knowledge, Progress, blames_rules};
use super::incremental::named_line;
use super::kernel::Flavour;
use super::plan::{Known, Plan, Target, base_differs};
use super::script::Script;
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use super::snapshot::Snapshot;
use crate::mode::SyncError;

/// About how many lines one restore with the nft tool has.
const NFT_LINES: usize = 20_000;

/// How many chains one restore with the nft tool deletes.
const NFT_REMOVALS: usize = 2_000;

/// The text held back before it is handed to the tool, in bytes.
const STREAM_BYTES: usize = 64 * 1024;

/// Parts of a plan that go into one restore.
#[derive(Clone, Default)]
struct Parts<'a> {
    base: bool,
    /// By their numbers in the plan.
    services: Range<usize>,
    shared: bool,
    removals: &'a [ChainName],
}

/// A plan being carried out.
struct Execution<'a> {
    plan: &'a Plan,
    refused: BTreeSet<NamespacedName>,
    now: Instant,
    lines: usize,
}

impl FamilySync {
    /// Compares everything with the kernel and writes what differs.
    pub(super) fn reconcile(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let first = self.knowledge == Knowledge::None;
        let snapshot = Snapshot::read(&*self.kernel)?;
        let plan = self.plan_from(snapshot, desired, large, now);
        let repairs = if first { 0 } else { self.count_repairs(&plan) };
        self.execute(&plan, now, progress)?;
        progress.repaired += repairs;
        self.knowledge = Knowledge::Known;
        self.positions_unsure = false;
        Ok(())
    }

    /// Writes many changed Services, and the shared chains anew.
    pub(super) fn bulk_changes(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        let plan = self.plan_for_pending(desired, large, now);
        let result = self.execute(&plan, now, progress);
        if result.is_err() {
            // Part of it may be written; only the kernel knows.
            self.suspect();
        }
        result
    }

    fn execute(&mut self, plan: &Plan, now: Instant, progress: &mut Progress) -> Result<(), SyncError> {
        let mut execution = Execution { plan, refused: BTreeSet::new(), now, lines: 0 };
        let base = matches!(plan.known, Known::Read(_));
        let result = match self.kernel.flavour() {
            Flavour::Legacy => {
                let parts =
                    Parts { base, services: 0..plan.services.len(), shared: true, removals: &plan.removals };
                self.write_parts(&mut execution, parts)
            }
            Flavour::Nft => self.execute_in_pieces(&mut execution, base),
        };
        progress.lines += execution.lines;
        result
    }

    fn execute_in_pieces(&mut self, execution: &mut Execution<'_>, base: bool) -> Result<(), SyncError> {
        let plan = execution.plan;
        self.write_parts(execution, Parts { base, ..Parts::default() })?;
        for services in pieces(&plan.services) {
            self.write_parts(execution, Parts { services, ..Parts::default() })?;
        }
        self.write_parts(execution, Parts { shared: true, ..Parts::default() })?;
        for removals in plan.removals.chunks(NFT_REMOVALS) {
            self.write_parts(execution, Parts { removals, ..Parts::default() })?;
        }
        self.remove_chains_of(&plan.services, execution)
    }

    /// With the nft tool, chains that changed Services no longer need go once nothing leads to them.
    fn remove_chains_of(
        &mut self,
        services: &[Target],
        execution: &mut Execution<'_>,
    ) -> Result<(), SyncError> {
        let kept = services.iter().filter(|s| !execution.refused.contains(&s.name));
        let chains: Vec<ChainName> = kept.flat_map(|s| s.removals.iter().copied()).collect();
        for removals in chains.chunks(NFT_REMOVALS) {
            self.write_parts(execution, Parts { removals, ..Parts::default() })?;
        }
        Ok(())
    }

    /// Writes parts in one restore. If they are refused, finds out by which Service.
    fn write_parts(&mut self, execution: &mut Execution<'_>, parts: Parts<'_>) -> Result<(), SyncError> {
        let mut script = Script::default();
        let written = if self.nothing_to_do(execution, &parts) {
            Ok(())
        } else {
            self.kernel.restore(&mut |out| {
                script = Script::default();
                self.compose(execution, &parts, &mut script, out)
            })
        };
        let error = match written {
            Ok(()) => {
                self.note_written(execution, &parts);
                execution.lines += script.count();
                return Ok(());
            }
            Err(error) if !blames_rules(&error) || parts.services.is_empty() => return Err(error),
            Err(error) => error,
        };
        if let Some(guilty) = named_line(&error).and_then(|line| script.owner_of(line - 1)) {
            self.refuse(execution, &execution.plan.services[guilty].name, &error);
            return self.write_parts(execution, parts);
        }
        let Range { start, end } = parts.services;
        if end - start == 1 {
            // Without it the rest must pass; else it is not to blame.
            self.write_parts(execution, Parts { services: 0..0, ..parts })?;
            self.refuse(execution, &execution.plan.services[start].name, &error);
            return Ok(());
        }
        let middle = start + (end - start) / 2;
        self.write_parts(execution, Parts { services: start..middle, removals: &[], ..parts })?;
        self.write_parts(execution, Parts { services: middle..end, ..parts })
    }

    fn refuse(&mut self, execution: &mut Execution<'_>, service: &NamespacedName, error: &SyncError) {
        execution.refused.insert(service.clone());
        self.isolations.add(service, error, execution.now);
        self.pending.remove(service);
        if !self.programmed.contains_key(service) {
            self.orders.iter_mut().for_each(|order| order.set(service, 0));
        }
    }

    fn note_written(&mut self, execution: &Execution<'_>, parts: &Parts<'_>) {
        let services = &execution.plan.services[parts.services.clone()];
        for service in services.iter().filter(|s| !execution.refused.contains(&s.name)) {
            let held = self.isolations.holds(&service.name, execution.now);
            if !held {
                self.note_programmed(&service.name, service.ports.clone(), service.large);
            }
        }
        for chain in SharedChain::ALL {
            if parts.shared && execution.plan.shared[chain.at()] && !execution.plan.fresh {
                self.orders[chain.at()] = self.order_written(execution, parts, chain);
            }
        }
    }

    fn nothing_to_do(&self, execution: &Execution<'_>, parts: &Parts<'_>) -> bool {
        let plan = execution.plan;
        let refused = |s: &&Target| execution.refused.contains(&s.name);
        let base = match (&plan.known, parts.base) {
            (Known::Read(snapshot), true) => self.base_needs_writing(snapshot),
            _ => false,
        };
        let services = plan.services[parts.services.clone()].iter().filter(|s| !refused(s));
        let mut services = services.filter(|s| s.weight > 0 || plan.fresh || !s.removals.is_empty());
        let shared = parts.shared && plan.shared.contains(&true);
        !base && services.next().is_none() && !shared && parts.removals.is_empty()
    }

    fn base_needs_writing(&self, snapshot: &Snapshot) -> bool {
        self.base.jumps.iter().any(|j| !snapshot.has_rule(j.table, j.from, &j.rule))
            || self.base.chains.iter().any(|c| base_differs(c, snapshot))
            || SharedChain::ALL.iter().any(|c| snapshot.chain(c.table(), c.name()).is_none())
    }

    fn compose(
        &self,
        execution: &Execution<'_>,
        parts: &Parts<'_>,
        script: &mut Script,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        for table in [Table::Mangle, Table::Filter, Table::Nat] {
            script.begin_table(table);
            script.owner(None);
            if let (Known::Read(snapshot), true) = (&execution.plan.known, parts.base) {
                self.compose_base(table, snapshot, script);
            }
            self.compose_services(table, execution, parts, script, out)?;
            script.owner(None);
            for chain in SharedChain::ALL.into_iter().filter(|c| c.table() == table && parts.shared) {
                self.compose_shared(chain, execution, parts, script, out)?;
            }
            if table == Table::Nat {
                compose_removals(execution, parts, self.kernel.flavour(), script);
            }
            script.end_table();
            script.drain(out)?;
        }
        Ok(())
    }

    fn compose_base(&self, table: Table, snapshot: &Snapshot, script: &mut Script) {
        for chain in SharedChain::ALL.into_iter().filter(|c| c.table() == table) {
            if snapshot.chain(table, chain.name()).is_none() {
                script.declare(chain.name());
            }
        }
        for chain in self.base.chains.iter().filter(|c| c.table == table && base_differs(c, snapshot)) {
            script.declare(chain.name);
            script.lines(&chain.lines);
        }
        // Each goes to the top, so the last written is the first.
        for jump in self.base.jumps.iter().rev().filter(|j| j.table == table) {
            if !snapshot.has_rule(table, jump.from, &jump.rule) {
                script.insert_first(jump.from, &jump.rule);
            }
        }
    }

    fn compose_services(
        &self,
        table: Table,
        execution: &Execution<'_>,
        parts: &Parts<'_>,
        script: &mut Script,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let plan = execution.plan;
        // The legacy tool keeps chains sorted: to declare them so is a fifth of the time.
        let legacy = self.kernel.flavour() == Flavour::Legacy;
        if table == Table::Nat && legacy {
            for (chain, i) in plan.declared.iter().filter(|(_, i)| parts.services.contains(i)) {
                if !execution.refused.contains(&plan.services[*i].name) {
                    script.owner(Some(*i));
                    script.declare(chain);
                }
            }
        }
        for i in parts.services.clone() {
            let service = &plan.services[i];
            if execution.refused.contains(&service.name) || (service.weight == 0 && !plan.fresh) {
                continue;
            }
            let Some(ports) = &service.ports else { continue };
            let rules = self.renderer.service(ports, service.large);
            script.owner(Some(i));
            if table == Table::Nat {
                let old = match &plan.known {
                    Known::Read(_) => ServiceRules::default(),
                    Known::Programmed => self.programmed_rules(&service.name),
                };
                let right = |chain: ChainName, lines: &str| match &plan.known {
                    Known::Read(snapshot) => snapshot.holds(chain, lines),
                    Known::Programmed => old.chain(chain) == Some(lines),
                };
                let wrong: Vec<_> = rules.chains().filter(|(chain, lines)| !right(*chain, lines)).collect();
                if !legacy {
                    wrong.iter().for_each(|(chain, _)| script.declare(chain));
                }
                wrong.iter().for_each(|(_, lines)| script.lines(lines));
            }
            for chain in SharedChain::ALL.into_iter().filter(|c| c.table() == table && plan.fresh) {
                rules.shared(chain).for_each(|rule| script.append(chain.name(), rule));
            }
            if script.bytes() > STREAM_BYTES {
                script.drain(out)?;
            }
        }
        Ok(())
    }

    fn compose_shared(
        &self,
        chain: SharedChain,
        execution: &Execution<'_>,
        parts: &Parts<'_>,
        script: &mut Script,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if !execution.plan.shared[chain.at()] {
            return Ok(());
        }
        if !execution.plan.fresh {
            script.declare(chain.name());
            for rules in self.shared_rules_to_write(execution, parts, chain).map(|(_, rules)| rules) {
                rules.shared(chain).for_each(|rule| script.append(chain.name(), rule));
                if script.bytes() > STREAM_BYTES {
                    script.drain(out)?;
                }
            }
        }
        if chain == SharedChain::NatServices {
            self.base.tail.iter().for_each(|rule| script.append(chain.name(), rule));
        }
        Ok(())
    }

    /// The Services of a shared chain in the order in which it is written: as it was, new ones at the end.
    fn shared_rules_to_write<'s>(
        &'s self,
        execution: &'s Execution<'_>,
        parts: &'s Parts<'s>,
        chain: SharedChain,
    ) -> impl Iterator<Item = (&'s NamespacedName, ServiceRules)> {
        let old: BTreeSet<&NamespacedName> = self.orders[chain.at()].services().collect();
        let new = execution.plan.services.iter().map(|s| &s.name).filter(move |name| !old.contains(name));
        self.orders[chain.at()].services().chain(new).map(move |name| {
            let services = &execution.plan.services[parts.services.clone()];
            let being_written = services.binary_search_by(|s| s.name.cmp(name)).ok().map(|i| &services[i]);
            let ports = match being_written.filter(|s| !execution.refused.contains(&s.name)) {
                Some(service) => service.ports.as_ref(),
                None => self.programmed.get(name).map(|p| &p.ports),
            };
            (name, ports.map(|p| self.renderer.shared(p)).unwrap_or_default())
        })
    }

    fn order_written(&self, execution: &Execution<'_>, parts: &Parts<'_>, chain: SharedChain) -> SharedOrder {
        let mut order = SharedOrder::default();
        for (name, rules) in self.shared_rules_to_write(execution, parts, chain) {
            order.push(name, rules.shared(chain).count());
        }
        order
    }
}

fn compose_removals(execution: &Execution<'_>, parts: &Parts<'_>, flavour: Flavour, script: &mut Script) {
    // What a refused Service last had may still be led to, and is not known by name after a restart.
    let unsure = matches!(execution.plan.known, Known::Read(_)) && !execution.refused.is_empty();
    let mut chains: Vec<ChainName> = if unsure { Vec::new() } else { parts.removals.to_vec() };
    if flavour == Flavour::Legacy {
        let services = &execution.plan.services[parts.services.clone()];
        let kept = services.iter().filter(|s| !execution.refused.contains(&s.name));
        chains.extend(kept.flat_map(|s| s.removals.iter().copied()));
    }
    // All are emptied before any is deleted, as they may refer to each other.
    chains.iter().for_each(|chain| script.declare(chain));
    chains.iter().for_each(|chain| script.delete_chain(*chain));
}

/// Services in groups that one restore with the nft tool takes.
fn pieces(services: &[Target]) -> Vec<Range<usize>> {
    let (mut pieces, mut start, mut lines) = (Vec::new(), 0, 0);
    for (i, service) in services.iter().enumerate() {
        lines += service.weight;
        if lines >= NFT_LINES || i + 1 == services.len() {
            pieces.push(start..i + 1);
            (start, lines) = (i + 1, 0);
        }
    }
    pieces
}

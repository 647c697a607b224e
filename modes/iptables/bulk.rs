//! Writing much at once: the first sync, taking over from another proxy, repair, and great changes.
//!
//! The chains of the Services come first, then the shared chains that lead to them, then what nobody wants
//! any more goes. With the legacy tool all of that is one restore, since each costs the whole table; with the
//! nft tool it is one for some Services each, since a restore costs more than in proportion to its chains.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServicePort};

use super::chain::{ChainName, SharedChain};
use super::family_sync::{IptablesFamilySync, Progress, blames_rules};
use super::incremental::named_line;
use super::kernel::Flavour;
use super::plan::{Known, Plan, Target, base_differs, weight};
use super::script::{RuleCount, Script};
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use super::snapshot::Snapshot;
use crate::mode::SyncError;
use crate::sync_state::SyncState;

/// About how many lines one restore with the nft tool has. Measured at 430,000 lines: from 4,000 to 12,000 the
/// whole costs the least; pieces of 1,000 or of 40,000 cost half as much again.
pub(super) const NFT_LINES: usize = 6_000;

/// How many chains one restore with the nft tool deletes.
const NFT_REMOVALS: usize = 2_000;

/// Parts of a plan that go into one restore.
#[derive(Clone, Default)]
pub(super) struct Parts<'a> {
    pub(super) base: bool,
    /// By their numbers in the plan.
    pub(super) services: Range<usize>,
    /// Of a single Service that is too large for one restore: these of its ports.
    pub(super) ports: Option<Range<usize>>,
    pub(super) shared: bool,
    pub(super) removals: &'a [ChainName],
}

/// A plan being carried out.
pub(super) struct Execution<'a> {
    pub(super) plan: &'a Plan,
    pub(super) refused: BTreeSet<NamespacedName>,
    pub(super) now: Instant,
    pub(super) lines: usize,
    written: RuleCount,
    /// A Service was rejected after some of its ports were written.
    half_written: bool,
}

impl Parts<'_> {
    /// Those of a Service's ports that are written.
    pub(super) fn ports_of<'p>(&self, ports: &'p [ServicePort]) -> &'p [ServicePort] {
        self.ports.as_ref().and_then(|part| ports.get(part.clone())).unwrap_or(ports)
    }

    /// Whether these are the first ports of their Service.
    fn begins_service(&self) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.start == 0)
    }

    /// Whether these are the last ports of their Service.
    fn ends_service(&self, ports: &[ServicePort]) -> bool {
        self.ports.as_ref().is_none_or(|part| part.end >= ports.len())
    }
}

impl IptablesFamilySync {
    /// Compares everything with the kernel and writes what differs.
    pub(super) fn reconcile(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), SyncError> {
        self.progress.rest();
        let progressed = Arc::clone(&self.progress);
        self.refresh_chains_in_use()?;
        let snapshot = Snapshot::read(&*self.kernel, &|| progressed.read())?;
        if self.sync_state != SyncState::NotSynced && !self.write_failed {
            self.drift = self.count_drift(&snapshot);
        }
        let plan = self.plan_from(snapshot, desired, large, now);
        self.execute(&plan, now, progress).inspect_err(|_| self.write_failed = true)?;
        progress.repaired += std::mem::take(&mut self.drift);
        (self.written_with, self.write_failed) = (None, false);
        self.sync_state = SyncState::InSync;
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
            self.note_failed_write();
        }
        result
    }

    fn execute(&mut self, plan: &Plan, now: Instant, progress: &mut Progress) -> Result<(), SyncError> {
        let mut execution = Execution {
            plan,
            refused: BTreeSet::new(),
            now,
            lines: 0,
            written: RuleCount::default(),
            half_written: false,
        };
        self.progress.begin(plan.services.len());
        let base = matches!(plan.known, Known::Read(_));
        // The base stands alone: jumps are inserted, and must not be once more when a Service is refused.
        let mut result = self.write_parts(&mut execution, Parts { base, ..Parts::default() });
        if result.is_ok() {
            let services = 0..plan.services.len();
            result = match self.kernel.flavour() {
                Flavour::Legacy => {
                    let removals = &plan.removals[..];
                    let parts = Parts { services, shared: true, removals, ..Parts::default() };
                    self.write_parts(&mut execution, parts)
                }
                Flavour::Nft => self.execute_in_pieces(&mut execution),
            };
        }
        progress.lines += execution.lines;
        progress.written += execution.written;
        if execution.half_written {
            self.note_failed_write();
        }
        result
    }

    fn execute_in_pieces(&mut self, execution: &mut Execution<'_>) -> Result<(), SyncError> {
        let plan = execution.plan;
        for piece in self.pieces(execution) {
            self.write_parts(execution, piece)?;
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
                let whole = |s: &Target| s.ports.as_ref().is_none_or(|ports| parts.ends_service(ports));
                let services = &execution.plan.services[parts.services.clone()];
                let written = if services.last().is_none_or(whole) { parts.services.end } else { 0 };
                self.progress.step(written, script.count());
                execution.lines += script.count();
                execution.written += script.rules();
                return Ok(());
            }
            Err(error) if blames_rules(&error) && self.notes_chains_in_use()? => {
                return self.write_parts(execution, parts);
            }
            Err(error) if !blames_rules(&error) || parts.services.is_empty() => return Err(error),
            Err(error) => error,
        };
        if let Some(guilty) = named_line(&error).and_then(|line| script.owner_of(line.checked_sub(1)?)) {
            self.refuse(execution, &parts, guilty, &error);
            return self.write_parts(execution, parts);
        }
        let Range { start, end } = parts.services.clone();
        if end - start == 1 {
            // Without it the rest must pass; else it is not to blame.
            self.write_parts(execution, Parts { services: 0..0, ..parts.clone() })?;
            self.refuse(execution, &parts, start, &error);
            return Ok(());
        }
        let middle = start + (end - start) / 2;
        self.write_parts(execution, Parts { services: start..middle, removals: &[], ..parts.clone() })?;
        self.write_parts(execution, Parts { services: middle..end, ..parts })
    }

    fn refuse(
        &mut self,
        execution: &mut Execution<'_>,
        parts: &Parts<'_>,
        service: usize,
        error: &SyncError,
    ) {
        let service = &execution.plan.services[service].name;
        execution.half_written |= !parts.begins_service();
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
            if !held && service.ports.as_ref().is_none_or(|ports| parts.ends_service(ports)) {
                self.note_programmed(&service.name, service.ports.clone(), service.large, service.rules);
            }
        }
        // A plan from what was read knows the order already, unless somebody was refused.
        let known = matches!(execution.plan.known, Known::Read(_)) && execution.refused.is_empty();
        for chain in SharedChain::ALL {
            if parts.shared && execution.plan.shared[chain.at()] && !known {
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
        let legacy = self.kernel.flavour() == Flavour::Legacy;
        let removes = |s: &Target| legacy && !s.removals.is_empty();
        let mut services = services.filter(|s| self.has_lines(execution, s) || removes(s));
        let shared = parts.shared && plan.shared.contains(&true);
        !base && services.next().is_none() && !shared && parts.removals.is_empty()
    }

    /// Whether a Service has lines in a restore of Services: wrong chains, or shared rules to be led to or to
    /// be tried.
    pub(super) fn has_lines(&self, execution: &Execution<'_>, service: &Target) -> bool {
        service.weight > 0 || self.tries_shared(execution)
    }

    /// Whether the rules for shared chains are tried Service by Service, before the chains are written anew
    /// with those of all: then a refusal would not tell whose they are. The legacy tool writes both at once.
    pub(super) fn tries_shared(&self, execution: &Execution<'_>) -> bool {
        execution.plan.shared.contains(&true) && self.kernel.flavour() == Flavour::Nft
    }

    fn base_needs_writing(&self, snapshot: &Snapshot) -> bool {
        self.base.jumps.iter().any(|j| !snapshot.has_rule(j.table, j.from, &j.rule))
            || self.base.chains.iter().any(|c| base_differs(c, snapshot))
            || SharedChain::ALL.iter().any(|c| snapshot.chain(c.table(), c.name()).is_none())
    }

    /// The Services of a shared chain in the order in which it is written: as it was, new ones at the end.
    pub(super) fn shared_rules_to_write<'s>(
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

    /// The Services in groups that one restore with the nft tool takes. A Service that is too large for one is divided by
    /// its ports, each of which has chains of its own.
    fn pieces(&self, execution: &Execution<'_>) -> Vec<Parts<'static>> {
        let services = &execution.plan.services;
        let (mut pieces, mut start, mut lines) = (Vec::new(), 0, 0);
        let part = |services: Range<usize>, ports| Parts { services, ports, ..Parts::default() };
        for (i, service) in services.iter().enumerate() {
            let size = self.lines_of(execution, service);
            if size > NFT_LINES {
                pieces.push(part(start..i, None));
                let ports = service.ports.as_deref().unwrap_or_default();
                pieces.extend(self.divide(ports, service.large).map(|ports| part(i..i + 1, Some(ports))));
                (start, lines) = (i + 1, 0);
                continue;
            }
            lines += size;
            if lines >= NFT_LINES || i + 1 == services.len() {
                pieces.push(part(start..i + 1, None));
                (start, lines) = (i + 1, 0);
            }
        }
        pieces.push(part(start..services.len(), None));
        pieces.retain(|piece| !piece.services.is_empty());
        pieces
    }

    /// About how many lines a restore has for a Service.
    fn lines_of(&self, execution: &Execution<'_>, service: &Target) -> usize {
        let tried = service.rules.filter + service.rules.nat;
        if self.tries_shared(execution) { service.weight.max(tried) } else { service.weight }
    }

    /// A Service's ports in groups that one restore with the nft tool takes.
    fn divide(&self, ports: &[ServicePort], large: bool) -> impl Iterator<Item = Range<usize>> {
        let (mut groups, mut start, mut lines) = (Vec::new(), 0, 0);
        for (i, port) in ports.iter().enumerate() {
            let rules = self.renderer.service(std::slice::from_ref(port), large);
            let shared = SharedChain::ALL.into_iter().map(|chain| rules.shared(chain).count());
            lines += weight(&rules) + shared.sum::<usize>();
            if lines >= NFT_LINES || i + 1 == ports.len() {
                groups.push(start..i + 1);
                (start, lines) = (i + 1, 0);
            }
        }
        groups.into_iter()
    }
}

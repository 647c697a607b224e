//! Bulk writes: the first sync, takeover from another proxy, restoring after external changes, and large changes.
//!
//! Service chains are written first, then the shared chains that jump to them; then chains that no Service needs are
//! deleted. With the legacy tool this is a single restore, since each restore costs the whole table; with the nft tool
//! each restore has a batch of Services, since its cost grows faster than its number of chains.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServicePort};

use super::chain::{ChainName, SharedChain};
use super::error::ToolError;
use super::family_proxier::{IptablesFamilyProxier, WriteCounts};
use super::kernel::{Flavour, IptablesKernel};
use super::plan::{Baseline, Plan, PlannedService, base_differs};
use super::script::{RuleCount, Script};
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use super::snapshot::Snapshot;
use crate::sync_state::SyncState;

/// Number of chains that one restore with the nft tool deletes.
const NFT_REMOVALS: usize = 2_000;

/// The parts of a plan that one restore writes.
#[derive(Clone, Default)]
pub(super) struct RestoreParts<'a> {
    pub(super) base: bool,
    /// Indices into the plan's Services, sorted.
    pub(super) services: Vec<usize>,
    /// For a single Service that is too large for one restore: the range of its ports.
    pub(super) ports: Option<Range<usize>>,
    pub(super) shared: bool,
    pub(super) removals: &'a [ChainName],
}

/// Services that the last process wrote and that this one has not written yet: while Services are searched for that the kernel
/// rejects, rules in shared chains still jump to their chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptServices {
    /// None. Without a search, all Services are written.
    None,
    /// Those whose chains are in the kernel as they are to be.
    Unchanged,
    /// All whose chains are in the kernel.
    All,
}

/// The execution of a plan.
pub(super) struct Execution<'a> {
    pub(super) plan: &'a Plan,
    /// The Services that are not written: rejected, or left to the search of the next syncs.
    pub(super) rejected: BTreeSet<NamespacedName>,
    /// The indices of Services that were found to be the cause of a rejection, and are tried once more before they are isolated.
    pub(super) suspects: BTreeSet<usize>,
    /// The time that the search for rejected Services has taken.
    pub(super) search_time: Duration,
    /// The number of Services that are written.
    written: usize,
    pub(super) now: Instant,
    pub(super) lines: usize,
    rules: RuleCount,
    /// The Services that are not written yet and keep their rules in shared chains.
    pub(super) kept: KeptServices,
    /// The kernel and its tool were seen to accept rules that belong to no Service.
    pub(super) accepts_rules: bool,
    /// A Service was rejected after some of its ports were written.
    pub(super) half_written: bool,
}

/// A rejected restore.
pub(super) struct Rejection {
    pub(super) error: ToolError,
    /// The index of the Service whose line the tool named.
    pub(super) service: Option<usize>,
}

impl Execution<'_> {
    /// Returns the Services that a restore writes, with their indices: without the rejected ones.
    pub(super) fn services_of<'s>(
        &'s self,
        parts: &'s RestoreParts<'_>,
    ) -> impl Iterator<Item = (usize, &'s PlannedService)> {
        let services = parts.services.iter().map(|i| (*i, &self.plan.services[*i]));
        services.filter(|(_, service)| !self.rejected.contains(&service.name))
    }
}

impl RestoreParts<'_> {
    /// Returns those of a Service's ports that are written.
    pub(super) fn ports_of<'p>(&self, ports: &'p [ServicePort]) -> &'p [ServicePort] {
        self.ports.as_ref().and_then(|part| ports.get(part.clone())).unwrap_or(ports)
    }

    /// Returns true if these are the first ports of their Service.
    pub(super) fn begins_service(&self) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.start == 0)
    }

    /// Returns true if these are the last ports of their Service.
    fn ends_service(&self, ports: &[ServicePort]) -> bool {
        self.ports.as_ref().is_none_or(|part| part.end >= ports.len())
    }
}

impl IptablesFamilyProxier {
    /// Compares all rules with the kernel and writes the differences.
    pub(super) fn reconcile(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        counts: &mut WriteCounts,
    ) -> Result<(), ToolError> {
        self.progress.reset();
        let start = Instant::now();
        let progressed = Arc::clone(&self.progress);
        self.in_use.refresh(&self.kernel)?;
        let snapshot = Snapshot::read(&self.kernel, &|| progressed.read())?;
        if self.sync_state != SyncState::NotSynced && !self.write_failed {
            self.drift = self.count_drift(&snapshot);
        }
        if self.drift > 0 {
            // The changes of the other process may be why a Service was rejected.
            self.isolations.retry_now(now);
        }
        if self.drift > 0 || self.written_with.is_some() {
            self.search.clear();
        }
        let plan = self.plan_from_snapshot(snapshot, desired, large, now);
        self.comparison_took = start.elapsed();
        let written = counts.lines;
        let result = self.execute(&plan, now, counts).inspect_err(|_| self.write_failed = true);
        if counts.lines > written {
            self.record_uncounted_write();
        }
        result?;
        counts.restored += std::mem::take(&mut self.drift);
        (self.written_with, self.write_failed) = (None, false);
        self.sync_state = SyncState::InSync;
        self.positions_unreliable = false;
        Ok(())
    }

    /// Writes many changed Services, and the shared chains completely.
    pub(super) fn bulk_changes(
        &mut self,
        desired: &Desired,
        large: bool,
        now: Instant,
        counts: &mut WriteCounts,
    ) -> Result<(), ToolError> {
        if self.positions_unreliable {
            // An incremental write could not continue the search.
            self.search.clear();
        }
        let plan = self.plan_for_pending(desired, large, now);
        let result = self.execute(&plan, now, counts);
        if result.is_err() {
            self.record_failed_write();
        }
        result
    }

    fn execute(&mut self, plan: &Plan, now: Instant, counts: &mut WriteCounts) -> Result<(), ToolError> {
        let mut execution = Execution {
            plan,
            rejected: BTreeSet::new(),
            suspects: BTreeSet::new(),
            search_time: Duration::ZERO,
            written: 0,
            now,
            lines: 0,
            rules: RuleCount::default(),
            kept: KeptServices::None,
            accepts_rules: false,
            half_written: false,
        };
        self.progress.begin(plan.services.len());
        self.leave_to_search(&mut execution);
        let base = matches!(plan.baseline, Baseline::Snapshot(_));
        // The base rules have a restore of their own: jumps are inserted, and must not be inserted again when a Service
        // is rejected.
        let mut result = self.write_parts(&mut execution, RestoreParts { base, ..RestoreParts::default() });
        if result.is_ok() {
            let services = (0..plan.services.len()).collect();
            result = match self.kernel.flavour() {
                Flavour::Legacy => {
                    let removals = &plan.removals[..];
                    let parts = RestoreParts { services, shared: true, removals, ..RestoreParts::default() };
                    self.write_parts(&mut execution, parts)
                }
                Flavour::Nft => self.execute_in_batches(&mut execution),
            };
        }
        counts.lines += execution.lines;
        counts.rules += execution.rules;
        if execution.half_written {
            self.record_failed_write();
        }
        result
    }

    fn execute_in_batches(&mut self, execution: &mut Execution<'_>) -> Result<(), ToolError> {
        let plan = execution.plan;
        for batch in self.batches(execution) {
            self.write_parts(execution, batch)?;
        }
        let shared = RestoreParts { shared: true, ..RestoreParts::default() };
        if !execution.rejected.is_empty() {
            self.keep_unwritten(execution, &shared)?;
        }
        self.write_parts(execution, shared)?;
        for removals in plan.removals.chunks(NFT_REMOVALS) {
            self.write_parts(execution, RestoreParts { removals, ..RestoreParts::default() })?;
        }
        self.remove_chains_of(&plan.services, execution)
    }

    /// With the nft tool, deletes the unneeded chains of changed Services once no rule jumps to them.
    fn remove_chains_of(
        &mut self,
        services: &[PlannedService],
        execution: &mut Execution<'_>,
    ) -> Result<(), ToolError> {
        let kept = services.iter().filter(|s| !execution.rejected.contains(&s.name));
        let chains: Vec<ChainName> = kept.flat_map(|s| s.removals.iter().copied()).collect();
        for removals in chains.chunks(NFT_REMOVALS) {
            self.write_parts(execution, RestoreParts { removals, ..RestoreParts::default() })?;
        }
        Ok(())
    }

    /// Writes parts of a plan in one restore. Returns the rejection if the kernel or its tool rejects a rule.
    pub(super) fn try_parts(
        &mut self,
        execution: &mut Execution<'_>,
        parts: &RestoreParts<'_>,
    ) -> Result<Option<Rejection>, ToolError> {
        let mut script = Script::default();
        let written = if self.nothing_to_do(execution, parts) {
            Ok(())
        } else {
            self.kernel.restore(&mut |out| {
                script = Script::default();
                self.compose(execution, parts, &mut script, out)
            })
        };
        match written {
            Ok(()) => {
                let whole =
                    |s: &PlannedService| s.ports.as_ref().is_none_or(|ports| parts.ends_service(ports));
                let is_whole = execution.services_of(parts).all(|(_, service)| whole(service));
                execution.written += if is_whole { parts.services.len() } else { 0 };
                self.record_written(execution, parts);
                self.progress.step(execution.written, script.count());
                execution.lines += script.count();
                execution.rules += script.rules();
                Ok(None)
            }
            Err(error) if !error.rejects_rules() => Err(error),
            Err(_) if self.in_use.find_new(&self.kernel, self.family)? => self.try_parts(execution, parts),
            Err(error) => {
                // Nothing was written, but the tool has ended.
                self.progress.step(0, 0);
                let line = error.rejected_line().and_then(|line| line.checked_sub(1));
                let service = line.and_then(|line| script.owner_of(line));
                Ok(Some(Rejection { error, service }))
            }
        }
    }

    fn record_written(&mut self, execution: &Execution<'_>, parts: &RestoreParts<'_>) {
        for (_, service) in execution.services_of(parts) {
            let awaits_retry = self.isolations.is_awaiting_retry(&service.name, execution.now);
            if !awaits_retry && service.ports.as_ref().is_none_or(|ports| parts.ends_service(ports)) {
                self.set_programmed(&service.name, service.ports.clone(), service.large, service.rules);
            }
        }
        // A plan from a snapshot has set the order already, unless Services are left out.
        let is_order_known = matches!(execution.plan.baseline, Baseline::Snapshot(_))
            && execution.rejected.is_empty()
            && execution.written >= execution.plan.services.len();
        for chain in SharedChain::ALL {
            if parts.shared && execution.plan.shared[chain.index()] && !is_order_known {
                self.orders[chain.index()] = self.order_written(execution, parts, chain);
            }
        }
    }

    fn nothing_to_do(&self, execution: &Execution<'_>, parts: &RestoreParts<'_>) -> bool {
        let plan = execution.plan;
        let base = match (&plan.baseline, parts.base) {
            (Baseline::Snapshot(snapshot), true) => self.base_needs_writing(snapshot),
            _ => false,
        };
        let services = execution.services_of(parts).map(|(_, service)| service);
        let legacy = self.kernel.flavour() == Flavour::Legacy;
        let removes = |s: &PlannedService| legacy && !s.removals.is_empty();
        let mut services = services.filter(|s| self.needs_writing(execution, s) || removes(s));
        let shared = parts.shared && plan.shared.contains(&true);
        !base && services.next().is_none() && !shared && parts.removals.is_empty()
    }

    /// Returns true if a Service has lines in a restore of Services: changed chains, or rules for shared chains.
    pub(super) fn needs_writing(&self, execution: &Execution<'_>, service: &PlannedService) -> bool {
        service.max_lines > 0 || self.checks_shared_rules(execution)
    }

    /// Returns true if rules for shared chains are checked Service by Service before the shared chains are rewritten. A
    /// rejection of the rewritten chains would not tell the Service. The legacy tool writes both in one restore.
    pub(super) fn checks_shared_rules(&self, execution: &Execution<'_>) -> bool {
        execution.plan.shared.contains(&true) && self.kernel.flavour() == Flavour::Nft
    }

    fn base_needs_writing(&self, snapshot: &Snapshot) -> bool {
        self.base.jumps.iter().any(|j| !snapshot.has_rule(j.table, j.from, &j.rule))
            || self.base.chains.iter().any(|c| base_differs(c, snapshot))
            || SharedChain::ALL.iter().any(|c| snapshot.chain(c.table(), c.name()).is_none())
    }

    /// Returns the Services of a shared chain in the order in which it is written: the present order, then new
    /// Services.
    pub(super) fn shared_rules_to_write<'s>(
        &'s self,
        execution: &'s Execution<'_>,
        parts: &'s RestoreParts<'s>,
        chain: SharedChain,
    ) -> impl Iterator<Item = (&'s NamespacedName, ServiceRules)> {
        let old: BTreeSet<&NamespacedName> = self.orders[chain.index()].services().collect();
        let new = execution.plan.services.iter().map(|s| &s.name).filter(move |name| !old.contains(name));
        self.orders[chain.index()].services().chain(new).map(move |name| {
            let plan = execution.plan;
            let being_written = parts.services.binary_search_by(|i| plan.services[*i].name.cmp(name)).ok();
            let being_written = being_written.map(|at| &plan.services[parts.services[at]]);
            let ports = match being_written.filter(|s| !execution.rejected.contains(&s.name)) {
                Some(service) => service.ports.as_ref(),
                None => match self.programmed.get(name) {
                    Some(programmed) => Some(&programmed.ports),
                    None => self.unwritten_ports(execution, name),
                },
            };
            (name, ports.map(|p| self.renderer.shared(p)).unwrap_or_default())
        })
    }

    /// Returns the ports of a Service that is left to a search, if its chains are in the kernel, written by the last process: the
    /// rules that jump to them stay.
    fn unwritten_ports<'s>(
        &self,
        execution: &'s Execution<'_>,
        name: &NamespacedName,
    ) -> Option<&'s Arc<[ServicePort]>> {
        if execution.kept == KeptServices::None || self.isolations.is_awaiting_retry(name, execution.now) {
            return None;
        }
        let services = &execution.plan.services;
        let service =
            services.binary_search_by(|service| service.name.cmp(name)).ok().map(|i| &services[i])?;
        let is_kept = service.is_in_kernel && (execution.kept == KeptServices::All || service.max_lines == 0);
        service.ports.as_ref().filter(|_| is_kept)
    }

    fn order_written(
        &self,
        execution: &Execution<'_>,
        parts: &RestoreParts<'_>,
        chain: SharedChain,
    ) -> SharedOrder {
        let mut order = SharedOrder::default();
        for (name, rules) in self.shared_rules_to_write(execution, parts, chain) {
            order.push(name, rules.shared(chain).count());
        }
        order
    }
}

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

use super::chain::{ChainName, SharedChain, Table};
use super::error::ToolError;
use super::family_proxier::{IptablesFamilyProxier, WriteCounts};
use super::kernel::{Flavour, IptablesKernel};
use super::plan::{Baseline, Plan, PlannedService, base_differs, max_lines};
use super::script::{NFT_LINES, RuleCount, Script};
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use super::snapshot::Snapshot;
use crate::sync_state::SyncState;
use portcullis_cluster::{Bisect, BisectOrder};

/// Number of chains that one restore with the nft tool deletes.
const NFT_REMOVALS: usize = 2_000;

/// The time for which one bulk write searches for rejected Services. Longer than that of an incremental write: with the legacy tool,
/// no Service of a first sync is served before the search has found the rejected ones, or is deferred.
const MAX_SEARCH_TIME: Duration = Duration::from_secs(10);

/// The parts of a plan that one restore writes.
#[derive(Clone, Default)]
pub(super) struct RestoreParts<'a> {
    pub(super) base: bool,
    /// Indices into the plan's Services.
    pub(super) services: Range<usize>,
    /// For a single Service that is too large for one restore: the range of its ports.
    pub(super) ports: Option<Range<usize>>,
    pub(super) shared: bool,
    pub(super) removals: &'a [ChainName],
}

/// The execution of a plan.
pub(super) struct Execution<'a> {
    pub(super) plan: &'a Plan,
    /// The Services that are not written: rejected, or left to the search of the next syncs.
    pub(super) rejected: BTreeSet<NamespacedName>,
    /// The time that the search for rejected Services has taken.
    search_time: Duration,
    pub(super) now: Instant,
    pub(super) lines: usize,
    rules: RuleCount,
    /// A Service was rejected after some of its ports were written.
    half_written: bool,
}

/// A rejected restore.
struct Rejection {
    error: ToolError,
    /// The index of the Service whose line the tool named.
    service: Option<usize>,
}

impl RestoreParts<'_> {
    /// Returns those of a Service's ports that are written.
    pub(super) fn ports_of<'p>(&self, ports: &'p [ServicePort]) -> &'p [ServicePort] {
        self.ports.as_ref().and_then(|part| ports.get(part.clone())).unwrap_or(ports)
    }

    /// Returns true if these are the first ports of their Service.
    fn begins_service(&self) -> bool {
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
            search_time: Duration::ZERO,
            now,
            lines: 0,
            rules: RuleCount::default(),
            half_written: false,
        };
        self.progress.begin(plan.services.len());
        // The plan has the Services of an earlier search.
        self.search.clear();
        let base = matches!(plan.baseline, Baseline::Snapshot(_));
        // The base rules have a restore of their own: jumps are inserted, and must not be inserted again when a Service
        // is rejected.
        let mut result = self.write_parts(&mut execution, RestoreParts { base, ..RestoreParts::default() });
        if result.is_ok() {
            let services = 0..plan.services.len();
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
        self.write_parts(execution, RestoreParts { shared: true, ..RestoreParts::default() })?;
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

    /// Writes parts of a plan in one restore. If that is rejected, bisects its Services and isolates the rejected ones. When the time
    /// for the search is over, it is left to the next syncs.
    fn write_parts(
        &mut self,
        execution: &mut Execution<'_>,
        parts: RestoreParts<'_>,
    ) -> Result<(), ToolError> {
        if parts.services.is_empty() {
            return match self.try_parts(execution, &parts)? {
                Some(rejection) => Err(rejection.error),
                None => Ok(()),
            };
        }
        let mut bisect = Bisect::with_batch(BisectOrder::DepthFirst, parts.services.clone().collect());
        let (mut is_search, mut is_deferred) = (false, false);
        while let Some(batch) = bisect.next_batch() {
            if is_search && execution.search_time >= MAX_SEARCH_TIME {
                self.defer(execution, &batch);
                is_deferred = true;
                continue;
            }
            let start = Instant::now();
            let (Some(first), Some(last)) = (batch.first(), batch.last()) else { continue };
            let services = *first..last + 1;
            // Chains are removed with the last batch, when no rule jumps to them.
            let removals = if services.end == parts.services.end { parts.removals } else { &[] };
            let part = RestoreParts { services, removals, ..parts.clone() };
            let rejection = self.try_parts(execution, &part)?;
            execution.search_time += if is_search { start.elapsed() } else { Duration::ZERO };
            is_search = true;
            let Some(Rejection { error, service }) = rejection else { continue };
            let named = service.inspect(|_| bisect.push(batch.clone()));
            let Some(service) = named.or_else(|| bisect.reject(batch, None)) else { continue };
            // The rest must be accepted without this Service; otherwise it is not the cause.
            if execution.rejected.is_empty() {
                self.check_accepts_rules([Table::Nat, Table::Filter])?;
            }
            if named.is_none() {
                self.write_parts(execution, RestoreParts { services: 0..0, ..part.clone() })?;
            }
            self.isolate(execution, &part, service, &error);
        }
        if is_deferred {
            // What does not belong to the deferred Services. If that is rejected, too, no Service is the cause.
            self.write_parts(execution, RestoreParts { services: 0..0, ..parts })?;
        }
        Ok(())
    }

    /// Leaves Services to the search of the next syncs. Each keeps its last rules.
    fn defer(&mut self, execution: &mut Execution<'_>, batch: &[usize]) {
        let names: Vec<NamespacedName> =
            batch.iter().map(|service| execution.plan.services[*service].name.clone()).collect();
        for name in &names {
            execution.rejected.insert(name.clone());
            self.pending.insert(name.clone());
            if !self.programmed.contains_key(name) {
                self.orders.iter_mut().for_each(|order| order.set(name, 0));
            }
        }
        self.search.push_last(names);
    }

    /// Writes parts of a plan in one restore. Returns the rejection if the kernel or its tool rejects a rule.
    fn try_parts(
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
                self.record_written(execution, parts);
                let whole =
                    |s: &PlannedService| s.ports.as_ref().is_none_or(|ports| parts.ends_service(ports));
                let services = &execution.plan.services[parts.services.clone()];
                let written = if services.last().is_none_or(whole) { parts.services.end } else { 0 };
                self.progress.step(written, script.count());
                execution.lines += script.count();
                execution.rules += script.rules();
                Ok(None)
            }
            Err(error) if !error.rejects_rules() => Err(error),
            Err(_) if self.in_use.find_new(&self.kernel, self.family)? => self.try_parts(execution, parts),
            Err(error) => {
                let line = error.rejected_line().and_then(|line| line.checked_sub(1));
                let service = line.and_then(|line| script.owner_of(line));
                Ok(Some(Rejection { error, service }))
            }
        }
    }

    fn isolate(
        &mut self,
        execution: &mut Execution<'_>,
        parts: &RestoreParts<'_>,
        service: usize,
        error: &ToolError,
    ) {
        let service = &execution.plan.services[service].name;
        execution.half_written |= !parts.begins_service();
        execution.rejected.insert(service.clone());
        self.isolations.add(service, error, execution.now);
        self.pending.remove(service);
        if !self.programmed.contains_key(service) {
            self.orders.iter_mut().for_each(|order| order.set(service, 0));
        }
    }

    fn record_written(&mut self, execution: &Execution<'_>, parts: &RestoreParts<'_>) {
        let services = &execution.plan.services[parts.services.clone()];
        for service in services.iter().filter(|s| !execution.rejected.contains(&s.name)) {
            let awaits_retry = self.isolations.is_awaiting_retry(&service.name, execution.now);
            if !awaits_retry && service.ports.as_ref().is_none_or(|ports| parts.ends_service(ports)) {
                self.set_programmed(&service.name, service.ports.clone(), service.large, service.rules);
            }
        }
        // A plan from a snapshot has set the order already, unless a Service was rejected.
        let is_order_known =
            matches!(execution.plan.baseline, Baseline::Snapshot(_)) && execution.rejected.is_empty();
        for chain in SharedChain::ALL {
            if parts.shared && execution.plan.shared[chain.index()] && !is_order_known {
                self.orders[chain.index()] = self.order_written(execution, parts, chain);
            }
        }
    }

    fn nothing_to_do(&self, execution: &Execution<'_>, parts: &RestoreParts<'_>) -> bool {
        let plan = execution.plan;
        let is_rejected = |s: &&PlannedService| execution.rejected.contains(&s.name);
        let base = match (&plan.baseline, parts.base) {
            (Baseline::Snapshot(snapshot), true) => self.base_needs_writing(snapshot),
            _ => false,
        };
        let services = plan.services[parts.services.clone()].iter().filter(|s| !is_rejected(s));
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
            let services = &execution.plan.services[parts.services.clone()];
            let being_written = services.binary_search_by(|s| s.name.cmp(name)).ok().map(|i| &services[i]);
            let ports = match being_written.filter(|s| !execution.rejected.contains(&s.name)) {
                Some(service) => service.ports.as_ref(),
                None => self.programmed.get(name).map(|p| &p.ports),
            };
            (name, ports.map(|p| self.renderer.shared(p)).unwrap_or_default())
        })
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

    /// Divides the Services into batches for single restores with the nft tool. A Service that is too large for one is
    /// divided by its ports, each of which has chains of its own.
    fn batches(&self, execution: &Execution<'_>) -> Vec<RestoreParts<'static>> {
        let services = &execution.plan.services;
        let (mut batches, mut start, mut lines) = (Vec::new(), 0, 0);
        let part =
            |services: Range<usize>, ports| RestoreParts { services, ports, ..RestoreParts::default() };
        for (i, service) in services.iter().enumerate() {
            let size = self.estimated_lines(execution, service);
            if size > NFT_LINES {
                batches.push(part(start..i, None));
                let ports = service.ports.as_deref().unwrap_or_default();
                batches.extend(self.divide(ports, service.large).map(|ports| part(i..i + 1, Some(ports))));
                (start, lines) = (i + 1, 0);
                continue;
            }
            lines += size;
            if lines >= NFT_LINES || i + 1 == services.len() {
                batches.push(part(start..i + 1, None));
                (start, lines) = (i + 1, 0);
            }
        }
        batches.push(part(start..services.len(), None));
        batches.retain(|batch| !batch.services.is_empty());
        batches
    }

    /// Estimates the lines of a restore for a Service.
    fn estimated_lines(&self, execution: &Execution<'_>, service: &PlannedService) -> usize {
        let shared = service.rules.filter + service.rules.nat;
        if self.checks_shared_rules(execution) { service.max_lines.max(shared) } else { service.max_lines }
    }

    /// Divides a Service's ports into groups for single restores with the nft tool.
    fn divide(&self, ports: &[ServicePort], large: bool) -> impl Iterator<Item = Range<usize>> {
        let (mut groups, mut start, mut lines) = (Vec::new(), 0, 0);
        for (i, port) in ports.iter().enumerate() {
            let rules = self.renderer.service(std::slice::from_ref(port), large);
            let shared = SharedChain::ALL.into_iter().map(|chain| rules.shared(chain).count());
            lines += max_lines(&rules) + shared.sum::<usize>();
            if lines >= NFT_LINES || i + 1 == ports.len() {
                groups.push(start..i + 1);
                (start, lines) = (i + 1, 0);
            }
        }
        groups.into_iter()
    }
}

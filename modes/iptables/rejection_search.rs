//! The search for rejected Services in a bulk write.
//!
//! ```text
//! restore ─► accepted: done
//!         └► rejected ─ the tool named a Service ─► it is isolated; first the Services of other kinds, then those of its kind
//!                     ├ several kinds of Services ─► the most common kind, then the rest
//!                     ├ one kind ──────────────────► both halves
//!                     └ one Service ───────────────► it is isolated
//! ```
//! A Service that is found is tried once more before it is isolated: the reason for the rejection may have ended. With the legacy tool
//! this is done only for the first one.
//!
//! With the legacy tool each restore writes the whole table again, and no Service is served before its batch is accepted, so large
//! batches come first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis_cluster::{Bisect, BisectOrder, NamespacedName};

use super::bulk::{Execution, KeptServices, Rejection, RestoreParts};
use super::chain::Table;
use super::error::ToolError;
use super::family_proxier::IptablesFamilyProxier;
use super::kernel::{Flavour, IptablesKernel};
use super::rule_kinds::RuleKinds;

/// The time for which one bulk write searches for rejected Services. Longer than that of an incremental write: with the legacy tool,
/// an attempt takes seconds on a large cluster.
const MAX_SEARCH_TIME: Duration = Duration::from_secs(10);

/// The kinds of the Services of a search, by index.
type Kinds = BTreeMap<usize, Option<RuleKinds>>;

impl IptablesFamilyProxier {
    /// Writes parts of a plan in one restore. If that is rejected, searches for the rejected Services and isolates them. When the time
    /// for the search is over, it is left to the next syncs.
    pub(super) fn write_parts(
        &mut self,
        execution: &mut Execution<'_>,
        parts: RestoreParts<'_>,
    ) -> Result<(), ToolError> {
        let first = match self.try_parts(execution, &parts)? {
            None => return Ok(()),
            Some(rejection) if parts.services.is_empty() => return Err(rejection.error),
            Some(rejection) => rejection,
        };
        self.search(execution, parts, first)
    }

    fn search(
        &mut self,
        execution: &mut Execution<'_>,
        parts: RestoreParts<'_>,
        first: Rejection,
    ) -> Result<(), ToolError> {
        let services = execution.services_of(&parts).map(|(i, _)| i).collect();
        let parts = RestoreParts { services, ..parts };
        let kinds = self.kinds_of(execution, &parts);
        self.keep_unwritten(execution, &parts)?;
        if parts.services.is_empty() {
            return self.write_parts(execution, parts);
        }
        let mut bisect = Bisect::new(BisectOrder::BreadthFirst);
        self.divide_rejected(execution, &parts, &kinds, first, &mut bisect)?;
        let mut is_deferred = false;
        while let Some(batch) = bisect.next_batch() {
            if execution.search_time >= MAX_SEARCH_TIME {
                self.defer(execution, &batch);
                is_deferred = true;
                continue;
            }
            let start = Instant::now();
            // Chains are removed with the last batch, when no rule jumps to them.
            let removals = if bisect.is_empty() { parts.removals } else { &[] };
            let part = RestoreParts { services: batch, removals, ..parts.clone() };
            let rejection = self.try_parts(execution, &part)?;
            execution.search_time += start.elapsed();
            if let Some(rejection) = rejection {
                self.divide_rejected(execution, &part, &kinds, rejection, &mut bisect)?;
            }
        }
        if is_deferred {
            // What does not belong to the deferred Services. If that is rejected, too, no Service is the cause.
            self.write_parts(execution, RestoreParts { services: Vec::new(), ..parts })?;
        }
        Ok(())
    }

    /// Leaves the Services of a search that earlier syncs have begun to the next syncs: a restore with all of them would be rejected
    /// again.
    pub(super) fn leave_to_search(&mut self, execution: &mut Execution<'_>) {
        self.search.retain(|name| self.pending.contains(name));
        execution.rejected.extend(self.search.items().cloned());
        if !self.search.is_empty() {
            execution.kept = KeptServices::All;
        }
    }

    /// Returns the kinds of Services. Those whose chains are in the kernel as they are to be are one kind.
    fn kinds_of(&self, execution: &Execution<'_>, parts: &RestoreParts<'_>) -> Kinds {
        let kinds = execution.services_of(parts).map(|(i, service)| {
            let ports = service.ports.as_deref().map(|ports| parts.ports_of(ports)).unwrap_or_default();
            let kinds = (service.max_lines > 0 || !service.removals.is_empty())
                .then(|| RuleKinds::of(&self.renderer.service(ports, service.large)));
            (i, kinds)
        });
        kinds.collect()
    }

    /// Rewrites the shared chains so that Services which the search has not written keep the rules of the last process there, unless
    /// these rules are rejected.
    pub(super) fn keep_unwritten(
        &mut self,
        execution: &mut Execution<'_>,
        parts: &RestoreParts<'_>,
    ) -> Result<(), ToolError> {
        if !parts.shared || !execution.plan.services.iter().any(|service| service.is_in_kernel) {
            return Ok(());
        }
        let rest = RestoreParts { services: Vec::new(), removals: &[], ..parts.clone() };
        for kept in [KeptServices::All, KeptServices::Unchanged] {
            execution.kept = kept;
            if self.try_parts(execution, &rest)?.is_none() {
                return Ok(());
            }
        }
        execution.kept = KeptServices::None;
        Ok(())
    }

    /// Divides a rejected batch. Isolates the Service that was found to be the cause.
    fn divide_rejected(
        &mut self,
        execution: &mut Execution<'_>,
        part: &RestoreParts<'_>,
        kinds: &Kinds,
        Rejection { error, service: named }: Rejection,
        bisect: &mut Bisect<usize>,
    ) -> Result<(), ToolError> {
        let batch = &part.services;
        let Some(service) = named.or((batch.len() == 1).then_some(batch[0])) else {
            let (first, second) = halves(batch, kinds);
            bisect.push_last(first);
            bisect.push_last(second);
            return Ok(());
        };
        // The rest must be accepted without this Service; otherwise it is not the cause.
        let is_first = !std::mem::replace(&mut execution.accepts_rules, true);
        if is_first {
            self.check_accepts_rules([Table::Nat, Table::Filter])?;
        }
        let rest = batch.iter().copied().filter(|i| *i != service);
        let (same, others): (Vec<usize>, Vec<usize>) =
            rest.partition(|i| kinds.get(i) == kinds.get(&service));
        let is_last = same.is_empty() && others.is_empty();
        bisect.push(others);
        bisect.push_last(same);
        let is_confirmed = !is_first && self.kernel.flavour() == Flavour::Legacy;
        if !is_confirmed && execution.suspects.insert(service) {
            bisect.push_last(vec![service]);
            return Ok(());
        }
        execution.rejected.insert(execution.plan.services[service].name.clone());
        if is_last {
            self.write_parts(execution, RestoreParts { services: Vec::new(), ..part.clone() })?;
        }
        self.isolate(execution, part, service, &error);
        Ok(())
    }

    /// Leaves Services to the search of the next syncs. Each keeps its last rules.
    fn defer(&mut self, execution: &mut Execution<'_>, batch: &[usize]) {
        let names: Vec<NamespacedName> =
            batch.iter().map(|service| execution.plan.services[*service].name.clone()).collect();
        for name in &names {
            execution.rejected.insert(name.clone());
            self.pending.insert(name.clone());
        }
        self.search.push_last(names);
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
        self.isolations.add(service, error, execution.now);
        self.pending.remove(service);
    }
}

/// Divides a rejected batch of several Services: the most common kind and the rest, or two halves of one kind.
fn halves(batch: &[usize], kinds: &Kinds) -> (Vec<usize>, Vec<usize>) {
    let kind_of = |i: &usize| kinds.get(i).copied().flatten();
    let mut counts: BTreeMap<Option<RuleKinds>, usize> = BTreeMap::new();
    batch.iter().for_each(|i| *counts.entry(kind_of(i)).or_default() += 1);
    if counts.len() == 1 {
        let (first, second) = batch.split_at(batch.len() / 2);
        return (first.to_vec(), second.to_vec());
    }
    let common = counts.into_iter().max_by_key(|(_, count)| *count).and_then(|(kind, _)| kind);
    batch.iter().partition(|i| kind_of(i) == common)
}

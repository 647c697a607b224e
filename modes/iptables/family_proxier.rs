//! The proxier of one IP family: keeps its rules in the kernel equal to the desired ones.
//!
//! ```text
//! changes ─► pending ─┬─ few, in sync ────► incremental: one restore of the changed chains
//!                     └─ many, or not ───► bulk: compared with the kernel, written in batches
//! ```
//!
//! Written rules are remembered as the resolved Services (shared with `Desired`) and rendered again for comparisons:
//! rendering is cheap, and the text takes much memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Bisect, BisectOrder, Family, NamespacedName};

use super::base_rules::{self, BaseChain, Jump};
use super::chain::{SharedChain, Table};
use super::chains_in_use::ChainsInUse;
use super::kernel::{Flavour, IptablesKernel};
use super::own_writes::{self, CountingKernel, OwnWrites, WriteInterval};
use super::rule_set::is_large_cluster;
use super::script::{NFT_LINES, RuleCount};
use super::service_renderer::Renderer;
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use crate::error::{SyncError, SyncErrorKind};
use crate::isolation::Isolations;
use crate::mode::{SyncResult, TableRuleCounts};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::progress::SyncProgress;
use crate::sync_state::SyncState;

/// Up to this many changed Services are written by position; above, shared chains are rewritten completely.
const INCREMENTAL_SERVICES: usize = 250;

/// A Service as it is programmed in the kernel.
#[derive(Clone)]
pub(super) struct ProgrammedService {
    pub(super) ports: Arc<[ServicePort]>,
    /// It was written without comments on endpoints.
    pub(super) large: bool,
    rules: RuleCount,
}

/// The rules of one family, and the state of the kernel's.
pub(super) struct IptablesFamilyProxier {
    pub(super) family: Family,
    pub(super) kernel: CountingKernel,
    /// The current sync.
    interval: WriteInterval,
    /// The number of comparisons that wrote: what they added to legacy tables is not counted.
    uncounted_writes: u32,
    /// The duration of the last comparison, without writing.
    pub(super) comparison_took: Duration,
    pub(super) renderer: Renderer,
    pub(super) base: BaseRules,
    /// The renderer and base rules of the last write, if options or node facts have changed since.
    pub(super) written_with: Option<(Renderer, BaseRules)>,
    /// A write failed since the last comparison. The kernel may hold part of it, so a difference does not prove an
    /// external change.
    pub(super) write_failed: bool,
    /// The number of chains and jumps that another process changed and that are not restored yet.
    pub(super) drift: usize,
    pub(super) sync_state: SyncState,
    pub(super) programmed: BTreeMap<NamespacedName, ProgrammedService>,
    /// The number of rules of all programmed Services.
    rules: RuleCount,
    pub(super) orders: [SharedOrder; SharedChain::ALL.len()],
    pub(super) pending: BTreeSet<NamespacedName>,
    /// Batches of pending Services that are left to try, because a restore with them was rejected.
    pub(super) search: Bisect<NamespacedName>,
    pub(super) isolations: Isolations,
    pub(super) in_use: ChainsInUse,
    pub(super) progress: Arc<SyncProgress>,
    /// Another process wrote since the last write, so positions in shared chains are unreliable.
    pub(super) positions_unreliable: bool,
}

/// The rules that do not depend on Services.
pub(super) struct BaseRules {
    pub(super) jumps: Vec<Jump>,
    pub(super) chains: Vec<BaseChain>,
    pub(super) tail: Vec<String>,
}

impl BaseRules {
    fn new(family: Family, options: &Options, facts: &NodeFacts) -> Self {
        BaseRules {
            jumps: base_rules::jumps(),
            chains: base_rules::chains(family, options, facts),
            tail: base_rules::node_port_tail(family, options, facts),
        }
    }

    /// Returns the last rules of a shared chain, which belong to no Service.
    pub(super) fn tail_of(&self, chain: SharedChain) -> &[String] {
        if chain == SharedChain::NatServices { &self.tail } else { &[] }
    }
}

/// The numbers of lines, rules and restored objects that a sync has written so far.
#[derive(Default)]
pub(super) struct WriteCounts {
    pub(super) lines: usize,
    pub(super) rules: RuleCount,
    pub(super) restored: usize,
}

impl IptablesFamilyProxier {
    pub(super) fn new(
        family: Family,
        kernel: Box<dyn IptablesKernel>,
        progress: Arc<SyncProgress>,
        options: &Options,
        facts: &NodeFacts,
    ) -> Self {
        let interval = WriteInterval::new(None, Vec::new());
        // Each restore with the legacy tool takes as long as the whole table, so large batches come first.
        let search_order = match kernel.flavour() {
            Flavour::Nft => BisectOrder::DepthFirst,
            Flavour::Legacy => BisectOrder::BreadthFirst,
        };
        IptablesFamilyProxier {
            family,
            kernel: CountingKernel::new(kernel),
            interval,
            uncounted_writes: 0,
            comparison_took: Duration::ZERO,
            renderer: Renderer::new(family, options, facts),
            base: BaseRules::new(family, options, facts),
            written_with: None,
            write_failed: false,
            drift: 0,
            sync_state: SyncState::NotSynced,
            programmed: BTreeMap::new(),
            rules: RuleCount::default(),
            orders: Default::default(),
            pending: BTreeSet::new(),
            search: Bisect::new(search_order),
            isolations: Isolations::default(),
            in_use: ChainsInUse::default(),
            progress,
            positions_unreliable: false,
        }
    }

    /// Sets new options and node facts. The next sync compares all rules with the kernel.
    pub(super) fn reconfigure(&mut self, options: &Options, facts: &NodeFacts) {
        let renderer = std::mem::replace(&mut self.renderer, Renderer::new(self.family, options, facts));
        let base = std::mem::replace(&mut self.base, BaseRules::new(self.family, options, facts));
        if self.sync_state != SyncState::NotSynced {
            self.written_with.get_or_insert((renderer, base));
        }
        self.mark_unverified();
    }

    /// Makes the next sync compare all rules with the kernel.
    pub(super) fn mark_unverified(&mut self) {
        if self.sync_state == SyncState::InSync {
            self.sync_state = SyncState::Unverified;
        }
    }

    /// Returns true if another process has written since the sync began.
    pub(super) fn is_disturbed(&self) -> bool {
        let now = self.kernel.fingerprint();
        self.interval.is_disturbed(now.as_ref().map(std::slice::from_ref), &[self.own_writes()])
    }

    /// Returns the writes of this family until now.
    pub(super) fn own_writes(&self) -> OwnWrites {
        let (tables, partial) = self.kernel.writes();
        let uncertain = partial.wrapping_add(self.uncounted_writes);
        OwnWrites { tables, uncertain, entries: own_writes::entries(self.rules) }
    }

    /// Records that a comparison has written. It deletes chains of any Service and inserts jumps, so that the size of a legacy table
    /// does not tell whether another process has written, too.
    pub(super) fn record_uncounted_write(&mut self) {
        if self.kernel.flavour() == Flavour::Legacy {
            self.uncounted_writes = self.uncounted_writes.wrapping_add(1);
        }
    }

    /// Records a failed write, of which the kernel may hold any part.
    pub(super) fn record_failed_write(&mut self) {
        self.write_failed = true;
        self.mark_unverified();
    }

    pub(super) fn sync(&mut self, desired: &Desired, changes: &[ServiceChange], now: Instant) -> SyncResult {
        let start = Instant::now();
        let before = self.kernel.fingerprint().map(|fingerprint| vec![fingerprint]);
        self.interval = WriteInterval::new(before, vec![self.own_writes()]);
        for change in changes {
            if !self.is_same(&change.before, &change.after) {
                self.isolations.remove(&change.name);
                self.pending.insert(change.name.clone());
            }
        }
        if !self.search.is_empty() {
            let changed: HashSet<&NamespacedName> = changes.iter().map(|change| &change.name).collect();
            self.search.retain(|name| !changed.contains(name));
        }
        self.pending.extend(self.isolations.due(now));
        self.in_use.begin();
        let mut counts = WriteCounts::default();
        let is_full = self.sync_state != SyncState::InSync;
        let large = is_large_cluster(desired, self.family);
        let had_search = !self.search.is_empty();
        let mut result = if is_full {
            self.reconcile(desired, large, now, &mut counts)
        } else if self.pending.len().saturating_sub(self.search.len()) > INCREMENTAL_SERVICES
            || self.pending_rules(desired) > self.incremental_rules()
            || (self.positions_unreliable && !self.pending.is_empty())
        {
            self.bulk_changes(desired, large, now, &mut counts)
        } else {
            self.incremental(desired, large, now, &mut counts)
        };
        if result.is_ok() && is_full && had_search && !self.search.is_empty() {
            // However often all rules are compared, the search goes on.
            result = self.incremental(desired, large, now, &mut counts);
        }
        // Others were written or isolated by a bulk write.
        self.search.retain(|name| self.pending.contains(name));
        let error = result.err().map(SyncError::from).or_else(|| self.search_error());
        SyncResult {
            family: self.family,
            is_full,
            duration: start.elapsed().max(Duration::from_nanos(1)),
            written: counts.lines,
            tables: self.rule_counts(counts.rules),
            restored: counts.restored,
            deferred: Vec::new(),
            isolated: self.isolations.all(|service| self.programmed.contains_key(service)).collect(),
            error,
        }
    }

    /// Returns the error of a sync whose search for rejected Services is not complete.
    fn search_error(&self) -> Option<SyncError> {
        let count = self.search.len();
        (count > 0).then(|| {
            let reason = format!(
                "the kernel or its tool rejects some of {count} Services; the search for them continues, keeping their last good \
                 rules"
            );
            SyncError::new(SyncErrorKind::SearchIncomplete, reason)
        })
    }

    /// Returns the ports to program for a Service, or `None` if it has none in this family.
    pub(super) fn ports_to_program(
        &self,
        desired: &Desired,
        name: &NamespacedName,
    ) -> Option<Arc<[ServicePort]>> {
        let ports = desired.services().get(name)?;
        ports.iter().any(|p| p.family == self.family).then(|| Arc::clone(ports))
    }

    /// Returns the programmed rules of a Service.
    pub(super) fn programmed_rules(&self, name: &NamespacedName) -> ServiceRules {
        match self.programmed.get(name) {
            Some(programmed) => self.renderer.service(&programmed.ports, programmed.large),
            None => ServiceRules::default(),
        }
    }

    /// Estimates the number of rules of the pending Services that are in no search, without rendering them.
    fn pending_rules(&self, desired: &Desired) -> usize {
        let rules_of = |ports: &[ServicePort]| ports.iter().map(estimated_rules).sum::<usize>();
        let of = |name: &NamespacedName| {
            let (old, new) = (self.programmed.get(name), desired.services().get(name));
            let old = old.map_or(0, |programmed| rules_of(&programmed.ports));
            old.max(new.map_or(0, |ports| rules_of(ports)))
        };
        let in_search: HashSet<&NamespacedName> = self.search.items().collect();
        self.pending.iter().filter(|name| !in_search.contains(name)).map(of).sum()
    }

    /// Returns the largest number of rules of changed Services that is written in one incremental restore.
    fn incremental_rules(&self) -> usize {
        match self.kernel.flavour() {
            Flavour::Nft => NFT_LINES,
            // Each restore takes as long as the whole table does, whatever its size.
            Flavour::Legacy => usize::MAX,
        }
    }

    /// Records that a Service was written.
    pub(super) fn set_programmed(
        &mut self,
        name: &NamespacedName,
        ports: Option<Arc<[ServicePort]>>,
        large: bool,
        rules: RuleCount,
    ) {
        let before = match ports {
            Some(ports) => {
                self.rules += rules;
                self.programmed.insert(name.clone(), ProgrammedService { ports, large, rules })
            }
            None => self.programmed.remove(name),
        };
        if let Some(before) = before {
            self.rules -= before.rules;
        }
        self.pending.remove(name);
        self.isolations.remove(name);
    }

    fn rule_counts(&self, written: RuleCount) -> Vec<TableRuleCounts> {
        let base = |table: Table| {
            let chains = self.base.chains.iter().filter(|c| c.table == table);
            chains.map(|c| c.lines.lines().count()).sum::<usize>()
        };
        let filter = base(Table::Filter) + self.rules.filter;
        let nat = base(Table::Nat) + self.base.tail.len() + self.rules.nat;
        vec![
            TableRuleCounts { table: Table::Filter.as_str(), in_kernel: filter, written: written.filter },
            TableRuleCounts { table: Table::Nat.as_str(), in_kernel: nat, written: written.nat },
        ]
    }

    fn is_same(&self, a: &[ServicePort], b: &[ServicePort]) -> bool {
        let of_family = |p: &&ServicePort| p.family == self.family;
        a.iter().filter(of_family).eq(b.iter().filter(of_family))
    }
}

/// Estimates the number of rules of a port: two and a jump for each endpoint, and two for each address.
fn estimated_rules(port: &ServicePort) -> usize {
    3 * port.endpoints.serving().len() + 2 * (1 + port.external_ips.len() + port.load_balancer_vips.len())
}

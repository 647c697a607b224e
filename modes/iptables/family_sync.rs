//! Keeps one family's rules in the kernel equal to what is desired.
//!
//! ```text
//! changes ─► pending ─┬─ few, kernel known ──► incremental: one restore of the changed chains
//!                     └─ many, or unknown ───► bulk: compared with the kernel, written in parts
//! ```
//!
//! What was written is remembered as the resolved Services themselves (shared with `Desired`), and rendered
//! again when it must be compared: rules are cheap to render and dear to keep.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, NamespacedName};

use super::base_rules::{self, BaseChain, Jump};
use super::bulk::NFT_LINES;
use super::chain::{SharedChain, Table};
use super::chains_in_use::ChainsInUse;
use super::kernel::{Flavour, IptablesKernel};
use super::rule_set::is_large;
use super::script::RuleCount;
use super::service_renderer::Renderer;
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use crate::isolation::Isolations;
use crate::mode::{SyncError, SyncResult, TableRuleCounts};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::progress::SyncProgress;
use crate::sync_state::SyncState;

/// As many changed Services as are written by position; above, shared chains are written anew.
const INCREMENTAL_SERVICES: usize = 250;

/// A Service as it stands in the kernel.
#[derive(Clone)]
pub(super) struct Programmed {
    pub(super) ports: Arc<[ServicePort]>,
    /// It was written without comments on endpoints.
    pub(super) large: bool,
    rules: RuleCount,
}

/// The rules of one family.
pub(super) struct IptablesFamilySync {
    pub(super) family: Family,
    pub(super) kernel: Box<dyn IptablesKernel>,
    pub(super) renderer: Renderer,
    pub(super) base: Base,
    /// What the rules in the kernel were rendered with, where options or node facts have changed since.
    pub(super) written_with: Option<(Renderer, Base)>,
    /// A write failed since the kernel was last compared. It may hold part of that write, so that differences do not
    /// prove an external change.
    pub(super) write_failed: bool,
    /// Chains and jumps that another process changed and that are not restored yet.
    pub(super) drift: usize,
    pub(super) sync_state: SyncState,
    pub(super) programmed: BTreeMap<NamespacedName, Programmed>,
    /// The rules of all Services that are programmed.
    rules: RuleCount,
    pub(super) orders: [SharedOrder; SharedChain::ALL.len()],
    pub(super) pending: BTreeSet<NamespacedName>,
    pub(super) isolations: Isolations,
    pub(super) in_use: ChainsInUse,
    pub(super) progress: Arc<SyncProgress>,
    /// Somebody wrote since we last did, so positions in shared chains cannot be relied on.
    pub(super) positions_unsure: bool,
}

/// The rules that do not depend on Services.
pub(super) struct Base {
    pub(super) jumps: Vec<Jump>,
    pub(super) chains: Vec<BaseChain>,
    pub(super) tail: Vec<String>,
}

impl Base {
    fn new(family: Family, options: &Options, on: &NodeFacts) -> Self {
        Base {
            jumps: base_rules::jumps(),
            chains: base_rules::chains(family, options, on),
            tail: base_rules::node_port_tail(family, options, on),
        }
    }
}

impl Base {
    /// The rules that end a shared chain.
    pub(super) fn tail_of(&self, chain: SharedChain) -> &[String] {
        if chain == SharedChain::NatServices { &self.tail } else { &[] }
    }
}

/// What a sync has done so far.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) lines: usize,
    pub(super) written: RuleCount,
    pub(super) repaired: usize,
}

impl IptablesFamilySync {
    pub(super) fn new(
        family: Family,
        kernel: Box<dyn IptablesKernel>,
        progress: Arc<SyncProgress>,
        options: &Options,
        on: &NodeFacts,
    ) -> Self {
        IptablesFamilySync {
            family,
            kernel,
            renderer: Renderer::new(family, options, on),
            base: Base::new(family, options, on),
            written_with: None,
            write_failed: false,
            drift: 0,
            sync_state: SyncState::NotSynced,
            programmed: BTreeMap::new(),
            rules: RuleCount::default(),
            orders: Default::default(),
            pending: BTreeSet::new(),
            isolations: Isolations::default(),
            in_use: ChainsInUse::default(),
            progress,
            positions_unsure: false,
        }
    }

    /// Takes new options or facts of the host. Everything is compared with the kernel at the next sync.
    pub(super) fn reconfigure(&mut self, options: &Options, on: &NodeFacts) {
        let renderer = std::mem::replace(&mut self.renderer, Renderer::new(self.family, options, on));
        let base = std::mem::replace(&mut self.base, Base::new(self.family, options, on));
        if self.sync_state != SyncState::NotSynced {
            self.written_with.get_or_insert((renderer, base));
        }
        self.suspect();
    }

    /// Makes the next sync compare everything with the kernel.
    pub(super) fn suspect(&mut self) {
        if self.sync_state == SyncState::InSync {
            self.sync_state = SyncState::Unverified;
        }
    }

    /// Notes that a write failed and that only the kernel knows which part of it was written.
    pub(super) fn note_failed_write(&mut self) {
        self.write_failed = true;
        self.suspect();
    }

    pub(super) fn sync(&mut self, desired: &Desired, changes: &[ServiceChange], now: Instant) -> SyncResult {
        let start = Instant::now();
        for change in changes {
            if !self.same(&change.before, &change.after) {
                self.isolations.forget(&change.name);
                self.pending.insert(change.name.clone());
            }
        }
        self.pending.extend(self.isolations.due(now));
        self.in_use.begin();
        let mut progress = Progress::default();
        let full = self.sync_state != SyncState::InSync;
        let large = is_large(desired, self.family);
        let result = if full {
            self.reconcile(desired, large, now, &mut progress)
        } else if self.pending.len() > INCREMENTAL_SERVICES
            || self.pending_rules(desired) > self.incremental_rules()
            || (self.positions_unsure && !self.pending.is_empty())
        {
            self.bulk_changes(desired, large, now, &mut progress)
        } else {
            self.incremental(desired, large, now, &mut progress)
        };
        SyncResult {
            family: self.family,
            is_full: full,
            duration: start.elapsed().max(Duration::from_nanos(1)),
            written: progress.lines,
            tables: self.table_rules(progress.written),
            restored: progress.repaired,
            isolated: self.isolations.all().collect(),
            error: result.err(),
        }
    }

    /// What is to be written of a Service: what is desired, or nothing.
    pub(super) fn wanted(&self, desired: &Desired, name: &NamespacedName) -> Option<Arc<[ServicePort]>> {
        let ports = desired.services().get(name)?;
        ports.iter().any(|p| p.family == self.family).then(|| Arc::clone(ports))
    }

    /// The rules of a Service as it stands in the kernel.
    pub(super) fn programmed_rules(&self, name: &NamespacedName) -> ServiceRules {
        match self.programmed.get(name) {
            Some(programmed) => self.renderer.service(&programmed.ports, programmed.large),
            None => ServiceRules::default(),
        }
    }

    /// The rules of those of a Service's ports that have the same names as these, as they stand in the kernel.
    pub(super) fn programmed_rules_of(&self, name: &NamespacedName, ports: &[ServicePort]) -> ServiceRules {
        let Some(programmed) = self.programmed.get(name) else { return ServiceRules::default() };
        let names: HashSet<_> = ports.iter().map(|port| &port.name).collect();
        let old = programmed.ports.iter().filter(|port| names.contains(&port.name)).cloned();
        self.renderer.service(&old.collect::<Vec<_>>(), programmed.large)
    }

    /// About how many rules the pending Services have or had. Costs nothing for each rule.
    fn pending_rules(&self, desired: &Desired) -> usize {
        let rules_of = |ports: &[ServicePort]| ports.iter().map(about_rules).sum::<usize>();
        let of = |name: &NamespacedName| {
            let (old, new) = (self.programmed.get(name), desired.services().get(name));
            let old = old.map_or(0, |programmed| rules_of(&programmed.ports));
            old.max(new.map_or(0, |ports| rules_of(ports)))
        };
        self.pending.iter().map(of).sum()
    }

    /// As many rules of changed Services are written in one restore of exactly the chains that differ.
    fn incremental_rules(&self) -> usize {
        match self.kernel.flavour() {
            Flavour::Nft => NFT_LINES,
            // Each restore costs the whole table, whatever is in it.
            Flavour::Legacy => usize::MAX,
        }
    }

    /// Notes that a Service was written.
    pub(super) fn note_programmed(
        &mut self,
        name: &NamespacedName,
        ports: Option<Arc<[ServicePort]>>,
        large: bool,
        rules: RuleCount,
    ) {
        let before = match ports {
            Some(ports) => {
                self.rules += rules;
                self.programmed.insert(name.clone(), Programmed { ports, large, rules })
            }
            None => self.programmed.remove(name),
        };
        if let Some(before) = before {
            self.rules -= before.rules;
        }
        self.pending.remove(name);
        self.isolations.forget(name);
    }

    fn table_rules(&self, written: RuleCount) -> Vec<TableRuleCounts> {
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

    fn same(&self, a: &[ServicePort], b: &[ServicePort]) -> bool {
        let of_family = |p: &&ServicePort| p.family == self.family;
        a.iter().filter(of_family).eq(b.iter().filter(of_family))
    }
}

/// About how many rules a port has: two and a jump for each endpoint, and two for each address.
fn about_rules(port: &ServicePort) -> usize {
    3 * port.endpoints.serving().len() + 2 * (1 + port.external_ips.len() + port.load_balancer_vips.len())
}

/// Whether an error means that the rules themselves are refused, so that some of them may be to blame.
pub(super) fn blames_rules(error: &SyncError) -> bool {
    matches!(error, SyncError::Rejected { .. })
}

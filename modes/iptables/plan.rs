//! The plan of a bulk write: the difference between the desired rules and the kernel's.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServicePort};

use super::base_rules::BaseChain;
use super::chain::{ChainName, SharedChain, Table, is_service_chain};
use super::family_proxier::IptablesFamilyProxier;
use super::script::RuleCount;
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use super::snapshot::{Snapshot, hash_of, hash_of_rule};

/// The kernel's rules that a plan starts from.
pub(super) enum Baseline {
    /// A snapshot just read from the kernel.
    Snapshot(Box<Snapshot>),
    /// The rules as last written.
    Programmed,
}

/// A Service to be written.
pub(super) struct PlannedService {
    pub(super) name: NamespacedName,
    /// Its desired ports; `None` if it is to be removed.
    pub(super) ports: Option<Arc<[ServicePort]>>,
    pub(super) large: bool,
    /// The largest number of lines that must be written for it; 0 if its chains are unchanged.
    pub(super) max_lines: usize,
    /// The number of its rules.
    pub(super) rules: RuleCount,
    /// Its chains that it no longer needs.
    pub(super) removals: Vec<ChainName>,
    /// The chains to which its rules in shared chains jump are in the kernel, as the snapshot shows.
    pub(super) is_in_kernel: bool,
}

/// The changes of a bulk write.
pub(super) struct Plan {
    pub(super) baseline: Baseline,
    /// Sorted by name.
    pub(super) services: Vec<PlannedService>,
    /// The chains of Services to be written, sorted by name.
    pub(super) declared: Vec<DeclaredChain>,
    /// The shared chains to be rewritten, indexed as [`SharedChain::ALL`].
    pub(super) shared: [bool; SharedChain::ALL.len()],
    /// Chains of Services that are not desired.
    pub(super) removals: Vec<ChainName>,
}

/// A chain of a Service, in 24 bytes: the first sync of a large cluster writes a hundred thousand. Sorted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeclaredChain {
    /// The name without [`PREFIX`], filled with zeros.
    name: [u8; 20],
    service: u32,
}

/// The prefix of all names of Service chains.
const PREFIX: &str = "KUBE-";

impl DeclaredChain {
    fn new(chain: ChainName, service: usize) -> Self {
        let text = chain.as_str().strip_prefix(PREFIX).expect("all chains of Services have the prefix");
        let mut name = [0; 20];
        name[..text.len()].copy_from_slice(text.as_bytes());
        DeclaredChain { name, service: service.try_into().expect("memory holds fewer than 2³² Services") }
    }

    /// Returns the index of the Service.
    pub(super) fn service(&self) -> usize {
        self.service as usize
    }
}

impl fmt::Display for DeclaredChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        write!(f, "{PREFIX}{}", std::str::from_utf8(&self.name[..length]).expect("made from text"))
    }
}

/// The hashes of the rules that Services have in a shared chain, by the index of the Service.
#[derive(Default)]
pub(super) struct RuleHashes {
    hashes: Vec<u64>,
    /// The number of hashes up to the end of each Service.
    ends: Vec<usize>,
}

impl RuleHashes {
    /// Adds the rules of the next Service.
    pub(super) fn push<'r>(&mut self, rules: impl Iterator<Item = &'r str>) {
        self.hashes.extend(rules.map(hash_of_rule));
        self.ends.push(self.hashes.len());
    }

    fn of(&self, service: usize) -> &[u64] {
        let start = service.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.hashes[start..self.ends[service]]
    }
}

impl Plan {
    /// Returns true if a chain of the Service with this index is to be written.
    pub(super) fn writes_chain(&self, chain: ChainName, service: usize) -> bool {
        self.declared.binary_search(&DeclaredChain::new(chain, service)).is_ok()
    }
}

impl IptablesFamilyProxier {
    /// Plans the changes from a snapshot of the kernel to the desired rules.
    pub(super) fn plan_from_snapshot(
        &mut self,
        snapshot: Snapshot,
        desired: &Desired,
        large: bool,
        now: Instant,
    ) -> Plan {
        // The hashes of each Service's rules in each shared chain.
        let mut shared_rules = [(); SharedChain::ALL.len()].map(|()| RuleHashes::default());
        let mut declared = Vec::new();
        // Those that no Service needs, after all Services. Small at the first sync, when the kernel has none.
        let is_of_service = |chain: &ChainName| is_service_chain(chain.as_str());
        let mut stale: HashSet<ChainName> = snapshot.chains_of(Table::Nat).filter(is_of_service).collect();
        let names: BTreeSet<&NamespacedName> =
            desired.services().keys().chain(self.programmed.keys()).collect();
        let mut services = Vec::with_capacity(names.len());
        for name in names {
            let Some((ports, large)) = self.version_to_write(desired, name, large, now) else { continue };
            let rules = ports.as_ref().map(|p| self.renderer.service(p, large)).unwrap_or_default();
            let before = declared.len();
            let changed = rules.chains().filter(|(chain, lines)| !snapshot.holds(*chain, lines));
            declared.extend(changed.map(|(chain, _)| DeclaredChain::new(chain, services.len())));
            let max_lines = if declared.len() > before { max_lines(&rules) } else { 0 };
            if !stale.is_empty() {
                rules.chains().for_each(|(chain, _)| _ = stale.remove(&chain));
            }
            for chain in SharedChain::ALL {
                shared_rules[chain.index()].push(rules.shared(chain));
            }
            let is_in_kernel = is_in_kernel(&rules, &snapshot);
            let (name, rules, removals) = (name.clone(), rules.count(), Vec::new());
            services.push(PlannedService { name, ports, large, max_lines, rules, removals, is_in_kernel });
        }
        let mut removals: Vec<ChainName> = stale.into_iter().collect();
        // Chains that jump to endpoint chains are deleted before these.
        removals.sort_by_key(|chain| (chain.as_str().starts_with("KUBE-SEP-"), *chain));
        let names: Vec<&NamespacedName> = services.iter().map(|s: &PlannedService| &s.name).collect();
        let shared = SharedChain::ALL.map(|chain| {
            let rules = &shared_rules[chain.index()];
            let exists = snapshot.chain(chain.table(), chain.name()).is_some();
            let tail = self.base.tail_of(chain);
            let order = order_in_kernel(snapshot.shared_rules(chain), &names, rules, tail);
            let unchanged = order.is_some() && exists;
            self.orders[chain.index()] =
                order.unwrap_or_else(|| self.order_to_write(chain, &services, rules));
            !unchanged
        });
        declared.sort_unstable();
        Plan { baseline: Baseline::Snapshot(Box::new(snapshot)), services, declared, shared, removals }
    }

    /// Plans the changes from the written to the desired rules, for the pending Services.
    pub(super) fn plan_for_pending(&self, desired: &Desired, large: bool, now: Instant) -> Plan {
        let mut plan = Plan {
            baseline: Baseline::Programmed,
            services: Vec::new(),
            declared: Vec::new(),
            shared: Default::default(),
            removals: Vec::new(),
        };
        for name in self.pending.iter().filter(|name| !self.isolations.is_awaiting_retry(name, now)) {
            let ports = self.ports_to_program(desired, name);
            let old = self.programmed_rules(name);
            let new = ports.as_ref().map(|p| self.renderer.service(p, large)).unwrap_or_default();
            for chain in SharedChain::ALL {
                plan.shared[chain.index()] |= !old.shared(chain).eq(new.shared(chain));
            }
            let (old_chains, new_chains) = (old.by_name(), new.by_name());
            let changed = new.chains().filter(|(chain, lines)| old_chains.get(chain) != Some(lines));
            plan.declared.extend(changed.map(|(chain, _)| DeclaredChain::new(chain, plan.services.len())));
            let removals =
                old.chains().map(|(chain, _)| chain).filter(|chain| !new_chains.contains_key(chain));
            let removals = removals.collect();
            let (name, max_lines, rules) = (name.clone(), max_lines(&new), new.count());
            let is_in_kernel = false;
            plan.services.push(PlannedService {
                name,
                max_lines,
                ports,
                large,
                rules,
                removals,
                is_in_kernel,
            });
        }
        plan.declared.sort_unstable();
        plan
    }

    /// Returns the version of a Service to write: the desired one, or, while that is held back, the programmed one.
    /// `None` if it is held back and was never programmed.
    fn version_to_write(
        &self,
        desired: &Desired,
        name: &NamespacedName,
        large: bool,
        now: Instant,
    ) -> Option<(Option<Arc<[ServicePort]>>, bool)> {
        let wanted = self.ports_to_program(desired, name);
        match self.programmed.get(name) {
            Some(old) if self.isolations.is_awaiting_retry(name, now) => {
                Some((Some(Arc::clone(&old.ports)), old.large))
            }
            None if self.isolations.is_awaiting_retry(name, now) => None,
            // A change of comments on endpoints alone does not rewrite a Service.
            Some(old) if wanted.as_ref() == Some(&old.ports) => Some((wanted, old.large)),
            _ => Some((wanted, large)),
        }
    }

    /// Returns the order in which a shared chain is written: as last written, then new Services.
    fn order_to_write(
        &self,
        chain: SharedChain,
        services: &[PlannedService],
        rules: &RuleHashes,
    ) -> SharedOrder {
        let find = |name: &NamespacedName| services.binary_search_by(|s| s.name.cmp(name)).ok();
        let mut order: Vec<usize> = self.orders[chain.index()].services().filter_map(find).collect();
        let known: HashSet<usize> = order.iter().copied().collect();
        order.extend((0..services.len()).filter(|i| !known.contains(i)));
        let mut counted = SharedOrder::default();
        order.into_iter().for_each(|i| counted.push(&services[i].name, rules.of(i).len()));
        counted
    }
}

/// Returns true if a Service has chains, and the kernel has those to which rules of other chains jump: all but those of endpoints.
fn is_in_kernel(rules: &ServiceRules, snapshot: &Snapshot) -> bool {
    let mut chains = rules.chains().map(|(chain, _)| chain).peekable();
    chains.peek().is_some()
        && chains
            .filter(|chain| !chain.as_str().starts_with("KUBE-SEP-"))
            .all(|chain| snapshot.chain(Table::Nat, chain.as_str()).is_some())
}

/// Returns the order in which the kernel holds the rules of these Services in a shared chain that ends with `tail`, if
/// it holds exactly those. The order of Services has no meaning.
pub(super) fn order_in_kernel(
    found: &[u64],
    services: &[&NamespacedName],
    rules: &RuleHashes,
    tail: &[String],
) -> Option<SharedOrder> {
    let tail: Vec<u64> = tail.iter().map(|rule| hash_of_rule(rule)).collect();
    let mut found = found.strip_suffix(&*tail)?;
    let first_rules = (0..services.len()).filter_map(|i| Some((*rules.of(i).first()?, i)));
    let mut left: HashMap<u64, usize> = first_rules.collect();
    let mut order = SharedOrder::default();
    while let Some(first) = found.first() {
        let i = left.remove(first)?;
        found = found.strip_prefix(rules.of(i))?;
        order.push(services[i], rules.of(i).len());
    }
    left.is_empty().then_some(order)
}

impl Snapshot {
    /// Returns true if a chain of table nat has exactly these lines.
    pub(super) fn holds(&self, chain: ChainName, lines: &str) -> bool {
        self.chain(Table::Nat, chain.as_str()).is_some_and(|hash| hash == hash_of(chain.as_str(), lines))
    }
}

/// Returns true if a base chain differs from the kernel's.
pub(crate) fn base_differs(chain: &BaseChain, snapshot: &Snapshot) -> bool {
    snapshot.chain(chain.table, chain.name) != Some(hash_of(chain.name, &chain.lines))
}

/// Returns the number of lines of a Service's chains.
pub(super) fn max_lines(rules: &ServiceRules) -> usize {
    rules.chains().map(|(_, lines)| 1 + lines.bytes().filter(|b| *b == b'\n').count()).sum::<usize>().max(1)
}

//! What a bulk write has to do: the difference between what is wanted and what the kernel holds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::desired::{Desired, ServicePort};

use super::base_rules::BaseChain;
use super::chain::{ChainName, SharedChain, Table, belongs_to_a_service};
use super::family_sync::IptablesFamilySync;
use super::script::RuleCount;
use super::service_rules::ServiceRules;
use super::shared_order::SharedOrder;
use super::snapshot::{Snapshot, hash_of, hash_of_rule};

/// What the kernel holds, as far as a plan relies on it.
pub(super) enum Known {
    /// What was just read from it.
    Read(Box<Snapshot>),
    /// What we wrote.
    Programmed,
}

/// A Service to be written.
pub(super) struct Target {
    pub(super) name: NamespacedName,
    /// How it is to be served; `None` if not at all.
    pub(super) ports: Option<Arc<[ServicePort]>>,
    pub(super) large: bool,
    /// At most how many lines must be written for it; 0 where its chains are right.
    pub(super) weight: usize,
    /// How many rules it has.
    pub(super) rules: RuleCount,
    /// Chains of its own that it no longer needs.
    pub(super) removals: Vec<ChainName>,
}

/// All that is to be written.
pub(super) struct Plan {
    pub(super) known: Known,
    /// By name.
    pub(super) services: Vec<Target>,
    /// The chains of Services to be written, sorted by name, each with the number of its Service.
    pub(super) declared: Vec<(ChainName, usize)>,
    /// Shared chains to be written anew, as in [`SharedChain::ALL`].
    pub(super) shared: [bool; SharedChain::ALL.len()],
    /// Chains to be deleted of Services that are not wanted.
    pub(super) removals: Vec<ChainName>,
}

impl IptablesFamilySync {
    /// A plan that takes the kernel from what was read to what is wanted.
    pub(super) fn plan_from(
        &mut self,
        snapshot: Snapshot,
        desired: &Desired,
        large: bool,
        now: Instant,
    ) -> Plan {
        let mut services = Vec::new();
        // What the rules of each Service in each shared chain hash to.
        let mut shared_rules: [Vec<Vec<u64>>; SharedChain::ALL.len()] = Default::default();
        let (mut wanted_chains, mut declared) = (HashSet::new(), Vec::new());
        let names: BTreeSet<&NamespacedName> =
            desired.services().keys().chain(self.programmed.keys()).collect();
        for name in names {
            let Some((ports, large)) = self.version_to_write(desired, name, large, now) else { continue };
            let rules = ports.as_ref().map(|p| self.renderer.service(p, large)).unwrap_or_default();
            let before = declared.len();
            let wrong = rules.chains().filter(|(chain, lines)| !snapshot.holds(*chain, lines));
            declared.extend(wrong.map(|(chain, _)| (chain, services.len())));
            let weight = if declared.len() > before { weight(&rules) } else { 0 };
            wanted_chains.extend(rules.chains().map(|(chain, _)| chain));
            for chain in SharedChain::ALL {
                shared_rules[chain.at()].push(rules.shared(chain).map(hash_of_rule).collect());
            }
            let (name, rules) = (name.clone(), rules.count());
            services.push(Target { name, ports, large, weight, rules, removals: Vec::new() });
        }
        let stale =
            |chain: &ChainName| belongs_to_a_service(chain.as_str()) && !wanted_chains.contains(chain);
        let mut removals: Vec<ChainName> = snapshot.chains_of(Table::Nat).filter(stale).collect();
        // What refers to others goes before them.
        removals.sort_by_key(|chain| (chain.as_str().starts_with("KUBE-SEP-"), *chain));
        let names: Vec<&NamespacedName> = services.iter().map(|s: &Target| &s.name).collect();
        let shared = SharedChain::ALL.map(|chain| {
            let rules = &shared_rules[chain.at()];
            let exists = snapshot.chain(chain.table(), chain.name()).is_some();
            let tail = self.base.tail_of(chain);
            let order = order_in_kernel(snapshot.shared_rules(chain), &names, rules, tail);
            let right = order.is_some() && exists;
            self.orders[chain.at()] = order.unwrap_or_else(|| self.order_to_write(chain, &services, rules));
            !right
        });
        declared.sort_unstable();
        Plan { known: Known::Read(Box::new(snapshot)), services, declared, shared, removals }
    }

    /// A plan that takes what we wrote to what is wanted, for the Services that are pending.
    pub(super) fn plan_for_pending(&self, desired: &Desired, large: bool, now: Instant) -> Plan {
        let mut plan = Plan {
            known: Known::Programmed,
            services: Vec::new(),
            declared: Vec::new(),
            shared: Default::default(),
            removals: Vec::new(),
        };
        for name in self.pending.iter().filter(|name| !self.isolations.holds(name, now)) {
            let ports = self.wanted(desired, name);
            let old = self.programmed_rules(name);
            let new = ports.as_ref().map(|p| self.renderer.service(p, large)).unwrap_or_default();
            for chain in SharedChain::ALL {
                plan.shared[chain.at()] |= !old.shared(chain).eq(new.shared(chain));
            }
            let (old_chains, new_chains) = (old.by_name(), new.by_name());
            let wrong = new.chains().filter(|(chain, lines)| old_chains.get(chain) != Some(lines));
            plan.declared.extend(wrong.map(|(chain, _)| (chain, plan.services.len())));
            let removals =
                old.chains().map(|(chain, _)| chain).filter(|chain| !new_chains.contains_key(chain));
            let removals = removals.collect();
            let (name, weight, rules) = (name.clone(), weight(&new), new.count());
            plan.services.push(Target { name, weight, ports, large, rules, removals });
        }
        plan.declared.sort_unstable();
        plan
    }

    /// How a Service is to be written: as desired, or, while it is refused so, as it last was. `None` if it
    /// is refused and never was.
    fn version_to_write(
        &self,
        desired: &Desired,
        name: &NamespacedName,
        large: bool,
        now: Instant,
    ) -> Option<(Option<Arc<[ServicePort]>>, bool)> {
        let wanted = self.wanted(desired, name);
        match self.programmed.get(name) {
            Some(old) if self.isolations.holds(name, now) => Some((Some(Arc::clone(&old.ports)), old.large)),
            None if self.isolations.holds(name, now) => None,
            // Whether endpoints bear comments is no reason to write a Service anew.
            Some(old) if wanted.as_ref() == Some(&old.ports) => Some((wanted, old.large)),
            _ => Some((wanted, large)),
        }
    }

    /// The order in which a shared chain is to be written: as we last wrote it, new Services at the end.
    fn order_to_write(&self, chain: SharedChain, services: &[Target], rules: &[Vec<u64>]) -> SharedOrder {
        let find = |name: &NamespacedName| services.binary_search_by(|s| s.name.cmp(name)).ok();
        let mut order: Vec<usize> = self.orders[chain.at()].services().filter_map(find).collect();
        let known: HashSet<usize> = order.iter().copied().collect();
        order.extend((0..services.len()).filter(|i| !known.contains(i)));
        let mut counted = SharedOrder::default();
        order.into_iter().for_each(|i| counted.push(&services[i].name, rules[i].len()));
        counted
    }
}

/// The order in which the kernel holds the rules of these Services in a shared chain that ends with `tail`, if it holds
/// exactly those: any order of the Services will do.
pub(super) fn order_in_kernel(
    found: &[u64],
    services: &[&NamespacedName],
    rules: &[Vec<u64>],
    tail: &[String],
) -> Option<SharedOrder> {
    let tail: Vec<u64> = tail.iter().map(|rule| hash_of_rule(rule)).collect();
    let mut found = found.strip_suffix(&*tail)?;
    let mut left: HashMap<u64, usize> =
        rules.iter().enumerate().filter_map(|(i, rules)| Some((*rules.first()?, i))).collect();
    let mut order = SharedOrder::default();
    while let Some(first) = found.first() {
        let i = left.remove(first)?;
        found = found.strip_prefix(&*rules[i])?;
        order.push(services[i], rules[i].len());
    }
    left.is_empty().then_some(order)
}

impl Snapshot {
    /// Whether a chain of table nat holds exactly these lines.
    pub(super) fn holds(&self, chain: ChainName, lines: &str) -> bool {
        self.chain(Table::Nat, chain.as_str()).is_some_and(|hash| hash == hash_of(chain.as_str(), lines))
    }
}

/// Whether a base chain is not as it should be.
pub(crate) fn base_differs(chain: &BaseChain, snapshot: &Snapshot) -> bool {
    snapshot.chain(chain.table, chain.name) != Some(hash_of(chain.name, &chain.lines))
}

/// How many lines the chains of a Service take.
pub(super) fn weight(rules: &ServiceRules) -> usize {
    rules.chains().map(|(_, lines)| 1 + lines.bytes().filter(|b| *b == b'\n').count()).sum::<usize>().max(1)
}

//! Detection of external changes: differences between the kernel and the rules as last written.
//!
//! The kernel is compared with the rules as they were written, not with the desired rules: new options, node facts or
//! changed Services are no external changes.

use portcullis_cluster::NamespacedName;

use super::chain::{ChainName, SharedChain, Table};
use super::family_proxier::IptablesFamilyProxier;
use super::plan::{RuleHashes, base_differs, order_in_kernel};
use super::snapshot::Snapshot;

impl IptablesFamilyProxier {
    /// Counts the jumps, base chains, shared chains and Services whose rules in the kernel differ from the written
    /// ones.
    pub(super) fn count_drift(&self, snapshot: &Snapshot) -> usize {
        let (renderer, base) = match &self.written_with {
            Some((renderer, base)) => (renderer, base),
            None => (&self.renderer, &self.base),
        };
        let jumps = base.jumps.iter().filter(|j| !snapshot.has_rule(j.table, j.from, &j.rule)).count();
        let base_chains = base
            .chains
            .iter()
            .filter(|c| !snapshot.lacks_rules_of(c.table, c.name) && base_differs(c, snapshot))
            .count();
        let mut services = 0;
        let mut names: Vec<&NamespacedName> = Vec::with_capacity(self.programmed.len());
        let mut shared_rules = [(); SharedChain::ALL.len()].map(|()| RuleHashes::default());
        for (name, programmed) in &self.programmed {
            let rules = renderer.service(&programmed.ports, programmed.large);
            let differs = |(chain, lines): (ChainName, &str)| {
                !snapshot.lacks_rules_of(Table::Nat, chain.as_str()) && !snapshot.holds(chain, lines)
            };
            services += usize::from(rules.chains().any(differs));
            names.push(name);
            for chain in SharedChain::ALL {
                shared_rules[chain.index()].push(rules.shared(chain));
            }
        }
        let differs = |chain: &SharedChain| {
            if snapshot.lacks_rules_of(chain.table(), chain.name()) {
                return false;
            }
            let exists = snapshot.chain(chain.table(), chain.name()).is_some();
            let (found, rules) = (snapshot.shared_rules(*chain), &shared_rules[chain.index()]);
            !exists || order_in_kernel(found, &names, rules, base.tail_of(*chain)).is_none()
        };
        jumps + base_chains + services + SharedChain::ALL.iter().filter(|chain| differs(chain)).count()
    }
}

//! The rules of a profile by the groups of peers that they match.

use std::collections::{BTreeSet, HashMap};

use super::chains::{ClassChains, MatchedRule};
use super::dispatch_key::DispatchKey;
use crate::compile::{CompiledPolicies, PolicyTier, RulesId};
use crate::table::options::PolicyOptions;
use crate::table::peers::{GroupIndex, Peers};

/// The rules of a dispatch, with the groups that each matches.
pub(super) struct DispatchRules<'a> {
    key: &'a DispatchKey,
    ids: Vec<(PolicyTier, RulesId)>,
    compiled: &'a CompiledPolicies,
    /// For each rule: position in `ids`, index in the policy's rules, and the families that it matches whatever the peer.
    rules: Vec<(usize, usize, [bool; 2])>,
    /// Positions in `rules` by group.
    by_group: HashMap<GroupIndex, Vec<usize>>,
    /// Positions of rules that match any peer of a family.
    any: Vec<usize>,
}

impl<'a> DispatchRules<'a> {
    pub(super) fn new(key: &'a DispatchKey, peers: &Peers, compiled: &'a CompiledPolicies) -> Self {
        let mut this = DispatchRules {
            key,
            ids: Vec::new(),
            compiled,
            rules: Vec::new(),
            by_group: HashMap::new(),
            any: Vec::new(),
        };
        for (tier, id) in key.rules() {
            for (index, rule) in compiled.rules_of(&id).iter().enumerate() {
                let groups = peers.groups_of_rule(&id, rule);
                let blocks = &rule.peers.blocks;
                let whole = [blocks.is_whole_v4(), blocks.is_whole_v6()].map(|whole| whole || rule.peers.any);
                let at = this.rules.len();
                groups.iter().for_each(|group| this.by_group.entry(*group).or_default().push(at));
                if whole.contains(&true) {
                    this.any.push(at);
                }
                this.rules.push((this.ids.len(), index, whole));
            }
            this.ids.push((tier, id));
        }
        this
    }

    /// Returns the groups that rules match, sorted.
    pub(super) fn groups(&self) -> Vec<GroupIndex> {
        let mut groups: Vec<GroupIndex> = self.by_group.keys().copied().collect();
        groups.sort_unstable();
        groups
    }

    /// Renders the class of peers in these groups.
    pub(super) fn render(&self, groups: &[GroupIndex], options: &PolicyOptions) -> ClassChains {
        let of_groups = groups.iter().filter_map(|group| self.by_group.get(group)).flatten();
        // Those of the groups match in both families.
        let of_groups: BTreeSet<usize> = of_groups.copied().collect();
        let all: BTreeSet<usize> = of_groups.iter().chain(&self.any).copied().collect();
        let matched = all.into_iter().map(|at| {
            let (id, index, whole) = self.rules[at];
            let (tier, id) = &self.ids[id];
            let families = if of_groups.contains(&at) { [true; 2] } else { whole };
            MatchedRule { tier: *tier, id, rule: &self.compiled.rules_of(id)[index], families }
        });
        let matched: Vec<MatchedRule<'_>> = matched.collect();
        ClassChains::render(self.key.profile.direction, &matched, options)
    }
}

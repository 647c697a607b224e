//! Chains of tiers: the ClusterNetworkPolicies of a tier in their order. A rule with action Pass returns from the chain,
//! and so skips the rest of the tier.

use sha2::{Digest, Sha256};

use super::edit::ChainWithSets;
use super::options::PolicyOptions;
use super::rules::chain_of_rules;
use crate::compile::{
    CompiledPolicies, Direction, PolicyId, PolicyTier, Profile, ReferenceCounts, RulesId, suffix,
};

/// A tier of a profile. Profiles with the same policies in a tier share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TierKey {
    tier: PolicyTier,
    direction: Direction,
    policies: Box<[PolicyId]>,
}

impl TierKey {
    /// Returns a tier of a profile, if it has policies.
    pub(super) fn from_profile(profile: &Profile, tier: PolicyTier) -> Option<Self> {
        let policies: Box<[PolicyId]> = profile.tier(tier).into();
        (!policies.is_empty()).then_some(TierKey { tier, direction: profile.direction, policies })
    }

    /// Returns the name of its chain.
    pub(super) fn name(&self) -> String {
        let mut hash = Sha256::new();
        for policy in &self.policies {
            let name = policy.to_string();
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name.as_bytes());
        }
        let hash = suffix(&hash.finalize());
        format!("{}-{}-{hash}", self.tier.to_string().to_lowercase(), self.direction)
    }

    /// Returns a description for a comment.
    fn describe(&self) -> String {
        let names: Vec<String> = self.policies.iter().map(PolicyId::to_string).collect();
        format!("{} {} of {}", self.tier, self.direction, names.join(", "))
    }

    /// Returns its chain.
    pub(super) fn chain(&self, compiled: &CompiledPolicies, options: &PolicyOptions) -> ChainWithSets {
        let ids = self.policies.iter();
        let ids: Vec<RulesId> =
            ids.map(|policy| RulesId { policy: policy.clone(), direction: self.direction }).collect();
        let policies = ids.iter().map(|id| (id, compiled.rules_of(id)));
        chain_of_rules(self.name().into(), &self.describe(), policies, options)
    }
}

/// Tiers of all profiles, with the number of profiles that use each.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    counts: ReferenceCounts<TierKey>,
}

impl Tiers {
    /// Adds a profile.
    pub(super) fn add_profile(&mut self, profile: &Profile) {
        tiers_of(profile).for_each(|key| self.counts.add(&key));
    }

    /// Removes a profile.
    pub(super) fn remove_profile(&mut self, profile: &Profile) {
        tiers_of(profile).for_each(|key| self.counts.remove(&key));
    }

    /// Returns the tiers that have become used since the last call, and those that have become unused.
    pub(super) fn take_changes(&mut self) -> (Vec<TierKey>, Vec<TierKey>) {
        self.counts.take_changes()
    }

    /// Returns the tiers that contain a policy's rules.
    pub(super) fn with_rules(&self, rules: &RulesId) -> Vec<TierKey> {
        let contains =
            |key: &&TierKey| key.direction == rules.direction && key.policies.contains(&rules.policy);
        self.counts.keys().filter(contains).cloned().collect()
    }
}

fn tiers_of(profile: &Profile) -> impl Iterator<Item = TierKey> {
    [PolicyTier::Admin, PolicyTier::Baseline]
        .into_iter()
        .filter_map(|tier| TierKey::from_profile(profile, tier))
}

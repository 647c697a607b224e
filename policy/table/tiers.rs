//! The ClusterNetworkPolicies of a tier in one chain, in their order: a rule that passes leaves the chain, and with it
//! the tier.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::compile::{Direction, PolicyId, PolicyTier, Profile, RulesId};

/// A tier of a profile. Profiles with the same policies in it share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TierKey {
    tier: PolicyTier,
    direction: Direction,
    policies: Box<[PolicyId]>,
}

impl TierKey {
    /// A tier of a profile, if it has policies there.
    pub(super) fn of(profile: &Profile, tier: PolicyTier) -> Option<Self> {
        let policies: Box<[PolicyId]> = profile.tier(tier).into();
        (!policies.is_empty()).then_some(TierKey { tier, direction: profile.direction, policies })
    }

    /// The name of its chain.
    pub(super) fn name(&self) -> String {
        let mut hash = Sha256::new();
        for policy in &self.policies {
            let name = policy.to_string();
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name.as_bytes());
        }
        let hash = BASE32_NOPAD.encode(&hash.finalize()[..10]).to_lowercase();
        format!("{}-{}-{hash}", self.tier.to_string().to_lowercase(), self.direction)
    }

    /// What it is, in words.
    pub(super) fn describe(&self) -> String {
        let names: Vec<String> = self.policies.iter().map(PolicyId::to_string).collect();
        format!("{} {} of {}", self.tier, self.direction, names.join(", "))
    }

    /// The rules in it, in their order.
    pub(super) fn rules(&self) -> impl Iterator<Item = RulesId> + '_ {
        self.policies.iter().map(|policy| RulesId { policy: policy.clone(), direction: self.direction })
    }
}

/// How many profiles have each tier.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    users: BTreeMap<TierKey, usize>,
}

impl Tiers {
    /// A profile has come: the tiers that no other had.
    pub(super) fn enter(&mut self, profile: &Arc<Profile>) -> Vec<TierKey> {
        let mut new = Vec::new();
        for key in of_profile(profile) {
            let users = self.users.entry(key.clone()).or_default();
            *users += 1;
            if *users == 1 {
                new.push(key);
            }
        }
        new
    }

    /// A profile is gone: the tiers that no other has.
    pub(super) fn leave(&mut self, profile: &Arc<Profile>) -> Vec<TierKey> {
        let mut gone = Vec::new();
        for key in of_profile(profile) {
            let Some(users) = self.users.get_mut(&key) else { continue };
            *users -= 1;
            if *users == 0 {
                self.users.remove(&key);
                gone.push(key);
            }
        }
        gone
    }

    /// The tiers in which a policy's rules are.
    pub(super) fn with<'a>(&'a self, rules: &'a RulesId) -> impl Iterator<Item = &'a TierKey> {
        self.users
            .keys()
            .filter(move |key| key.direction == rules.direction && key.policies.contains(&rules.policy))
    }
}

fn of_profile(profile: &Profile) -> impl Iterator<Item = TierKey> {
    [PolicyTier::Admin, PolicyTier::Baseline].into_iter().filter_map(|tier| TierKey::of(profile, tier))
}

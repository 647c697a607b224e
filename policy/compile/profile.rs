//! Profiles: the policies that apply to a pod in one direction.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::identifier::{Digest, comment, identifier};
use super::policy_id::{Direction, PolicyId, PolicyTier, RulesId};

/// The policies that apply to a pod in one direction, shared by all pods that the same policies select. Profiles with
/// equal content are identical. A pod that no policy selects in a direction has no profile there.
///
/// Profiles are compared and sorted by a hash of their content: hundreds of policies may select a pod.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The direction.
    pub direction: Direction,
    /// ClusterNetworkPolicies of tier Admin with a rule in this direction, by priority, then by name.
    pub admin: Box<[PolicyId]>,
    /// NetworkPolicies that isolate the pod, by name; empty if the pod is not isolated.
    pub network: Box<[PolicyId]>,
    /// ClusterNetworkPolicies of tier Baseline with a rule in this direction, by priority, then by name.
    /// Empty if there is a NetworkPolicy, which always decides before this tier.
    pub baseline: Box<[PolicyId]>,
    digest: [u8; 16],
}

impl Profile {
    /// Returns the profile of these policies, each list in the order of evaluation.
    pub(crate) fn new(
        direction: Direction,
        admin: Box<[PolicyId]>,
        network: Box<[PolicyId]>,
        baseline: Box<[PolicyId]>,
    ) -> Self {
        let mut profile = Profile { direction, admin, network, baseline, digest: [0; 16] };
        let mut digest = Digest::new("profile");
        digest.part(direction.as_str());
        for tier in [PolicyTier::Admin, PolicyTier::Network, PolicyTier::Baseline] {
            digest.part(&tier.to_string());
            profile.tier(tier).iter().for_each(|policy| policy.feed(&mut digest));
        }
        profile.digest = digest.finish();
        profile
    }

    /// Returns the policies of a tier in the order of evaluation.
    pub fn tier(&self, tier: PolicyTier) -> &[PolicyId] {
        match tier {
            PolicyTier::Admin => &self.admin,
            PolicyTier::Network => &self.network,
            PolicyTier::Baseline => &self.baseline,
        }
    }

    /// Returns all policies in the order of evaluation.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyId> {
        self.admin.iter().chain(&self.network).chain(&self.baseline)
    }

    /// Returns the rules of all policies in the order of evaluation.
    pub fn rules(&self) -> impl Iterator<Item = RulesId> + '_ {
        self.policies().map(|policy| RulesId { policy: policy.clone(), direction: self.direction })
    }

    /// Returns the name of the nf_tables chain.
    pub fn name(&self) -> String {
        let mut readable = self.policies().next().map(PolicyId::short).unwrap_or_default();
        let more = self.policies().count().saturating_sub(1);
        if more > 0 {
            // After a long name, the number would be truncated.
            readable.truncate(readable.floor_char_boundary(60));
            readable.push_str(&format!("-and-{more}-more"));
        }
        identifier(&format!("profile-{}", self.direction.short()), &readable, &self.digest)
    }

    /// Returns a description for a comment, of at most 128 bytes.
    pub fn describe(&self) -> String {
        let mut words = format!("{} by", self.direction);
        for tier in [PolicyTier::Admin, PolicyTier::Network, PolicyTier::Baseline] {
            let names: Vec<String> = self.tier(tier).iter().map(PolicyId::short).collect();
            if !names.is_empty() {
                words.push_str(&format!(" {tier} {}", names.join(", ")));
            }
        }
        comment(words)
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Profile {}

impl Hash for Profile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl Ord for Profile {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl PartialOrd for Profile {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

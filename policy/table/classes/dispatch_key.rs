//! Identity of a chain that evaluates a profile by classes, and the profiles that have one.

use std::sync::Arc;

use crate::compile::{CompiledPolicies, PolicyTier, Profile, RulePorts, RulesId};

/// A profile whose evaluation rule by rule takes more steps than this is evaluated by classes.
const STEPS: usize = 8;

/// Returns true if a chain evaluates by classes.
pub(in crate::table) fn has_classes(key: &DispatchKey, compiled: &CompiledPolicies) -> bool {
    let mut steps = 0;
    for (_, id) in key.rules() {
        // A jump to the policy, then each combination of peers and ports.
        steps += 1;
        for rule in compiled.rules_of(&id) {
            let peers = usize::from(rule.peers.pods.is_some()) + usize::from(!rule.peers.blocks.is_empty());
            let ports = match &rule.ports {
                RulePorts::Any => 1,
                RulePorts::Listed { numeric, named } => {
                    let protocols = [&numeric.tcp, &numeric.udp, &numeric.sctp];
                    protocols.into_iter().filter(|ports| !ports.is_empty()).count() + 2 * named.len()
                }
            };
            steps += peers.max(1) * ports;
        }
        if steps > STEPS {
            return true;
        }
    }
    false
}

/// A chain that evaluates a profile by classes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::table) struct DispatchKey {
    pub(in crate::table) profile: Arc<Profile>,
    /// For connections to the pods' own node, which no NetworkPolicy restricts.
    pub(in crate::table) to_node: bool,
}

impl DispatchKey {
    /// Returns the dispatches that a profile may have: for all connections, and for those to the node.
    pub(in crate::table) fn of(profile: &Arc<Profile>) -> [Self; 2] {
        [false, true].map(|to_node| DispatchKey { profile: Arc::clone(profile), to_node })
    }

    /// Returns the name of the chain, and of the map of identities to classes.
    pub(in crate::table) fn name(&self) -> String {
        let kind = if self.to_node { "node-dispatch" } else { "dispatch" };
        format!("{kind}-{}", self.profile.name())
    }

    /// Returns the name of the map of numbers of classes to verdicts.
    pub(in crate::table) fn verdicts(&self) -> String {
        let kind = if self.to_node { "node-classes" } else { "classes" };
        format!("{kind}-{}", self.profile.name())
    }

    /// Returns the rules in the order of evaluation.
    pub(in crate::table) fn rules(&self) -> impl Iterator<Item = (PolicyTier, RulesId)> {
        let tiers = [PolicyTier::Admin, PolicyTier::Network, PolicyTier::Baseline];
        let tiers = tiers.into_iter().filter(|tier| !self.to_node || *tier != PolicyTier::Network);
        tiers.flat_map(move |tier| {
            let policies = self.profile.tier(tier).iter();
            policies.map(move |policy| {
                (tier, RulesId { policy: policy.clone(), direction: self.profile.direction })
            })
        })
    }
}

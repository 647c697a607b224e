//! Chains of a profile: one for all connections of its pods, and one for connections to their own node.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Chain, Field, Rule, Verdict};

use super::classes::DispatchKey;
use super::layouts::Layout;
use super::names::{IDENTIFY_DESTINATION, IDENTIFY_SOURCE, ITSELF, of_family};
use super::options::PolicyOptions;
use super::rules::{allowed, denied};
use super::tiers::TierKey;
use crate::compile::{Direction, PolicyTier, Profile, RulesId};

/// Returns the chains of a profile by name.
pub(super) fn profile_chains(
    profile: &Arc<Profile>,
    layout: Layout,
    options: &PolicyOptions,
) -> Vec<(Arc<str>, Chain)> {
    let mut chains = vec![(profile.name().into(), profile_chain(profile, layout, options))];
    chains.extend(node_chain_name(profile).map(|name| (name.into(), node_chain(profile, layout))));
    chains
}

/// Returns the names of the chains of a profile.
pub(super) fn names(profile: &Profile) -> impl Iterator<Item = String> {
    std::iter::once(profile.name()).chain(node_chain_name(profile))
}

/// Returns the name of the chain for connections of an egress profile's pods to their own node; `None` if none is ever
/// denied, as with NetworkPolicies alone.
pub(super) fn node_chain_name(profile: &Profile) -> Option<String> {
    has_node_chain(profile).then(|| format!("node-{}", profile.name()))
}

/// Returns true if connections of a profile's pods to their own node may be denied.
pub(super) fn has_node_chain(profile: &Profile) -> bool {
    let has_cluster_policies = !profile.admin.is_empty() || !profile.baseline.is_empty();
    profile.direction == Direction::Egress && has_cluster_policies
}

fn profile_chain(profile: &Arc<Profile>, layout: Layout, options: &PolicyOptions) -> Chain {
    let direction = profile.direction;
    let [dispatch, _] = DispatchKey::of(profile);
    let mut rules = vec![Rule::new().then(Verdict::jump(identify(direction)))];
    if layout.by_classes {
        rules.push(Rule::new().then(Verdict::jump(dispatch.name())));
    } else {
        rules.extend(jump_to_tier(profile, PolicyTier::Admin));
    }
    if profile.network.is_empty() {
        if !layout.by_classes {
            rules.extend(jump_to_tier(profile, PolicyTier::Baseline));
        }
        rules.push(Rule::new().then(allowed()));
    } else {
        for family in Family::ALL {
            let both = [Field::Source(family), Field::Destination(family)];
            let itself = Rule::new().family(family).is_in(&both, of_family(ITSELF, family));
            rules.push(itself.then(allowed()));
        }
        if !layout.by_classes {
            for policy in &profile.network {
                let policy_rules = RulesId { policy: policy.clone(), direction };
                rules.push(Rule::new().then(Verdict::jump(policy_rules.name())));
            }
        }
        let description = profile.describe();
        let policies = description.split_once(" by ").map_or(description.as_str(), |(_, policies)| policies);
        rules.extend(denied(&Rule::new(), direction, &profile.name(), policies, options));
    }
    Chain::new(rules).with_comment(&profile.describe())
}

/// Returns the chain for connections to the pods' own node. NetworkPolicies always allow these, and if there is one, the
/// Baseline tier is not evaluated.
fn node_chain(profile: &Arc<Profile>, layout: Layout) -> Chain {
    let [_, dispatch] = DispatchKey::of(profile);
    let mut rules = vec![Rule::new().then(Verdict::jump(identify(profile.direction)))];
    if layout.node_by_classes {
        rules.push(Rule::new().then(Verdict::jump(dispatch.name())));
    } else {
        rules.extend(jump_to_tier(profile, PolicyTier::Admin));
        if profile.network.is_empty() {
            rules.extend(jump_to_tier(profile, PolicyTier::Baseline));
        }
    }
    rules.push(Rule::new().then(Verdict::Accept));
    Chain::new(rules).with_comment(&format!("to this node, {}", profile.describe()))
}

/// Returns the chain that looks up the identity of the peer.
fn identify(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => IDENTIFY_SOURCE,
        Direction::Egress => IDENTIFY_DESTINATION,
    }
}

fn jump_to_tier(profile: &Profile, tier: PolicyTier) -> impl Iterator<Item = Rule> {
    let key = TierKey::from_profile(profile, tier);
    key.map(|key| Rule::new().then(Verdict::jump(key.name()))).into_iter()
}

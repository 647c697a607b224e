//! A profile as a chain, and as the chain for what its pods send to this node itself.

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Chain, Field, Rule, Verdict};

use super::names::of_family;
use super::options::PolicyOptions;
use super::rules::{allowed, denied};
use super::tiers::TierKey;
use crate::compile::{Direction, PolicyTier, Profile, RulesId};

/// The set of pairs of one address: a pod that talks to itself, through a Service.
pub(super) const ITSELF: &str = "itself";

/// The name of the chain for what the pods of an egress profile send to this node; `None` if nothing is ever denied
/// there, as with NetworkPolicies alone.
pub(super) fn towards_node(profile: &Profile) -> Option<String> {
    let judged = !profile.admin.is_empty() || !profile.baseline.is_empty();
    (profile.direction == Direction::Egress && judged).then(|| format!("node-{}", profile.name()))
}

/// The chain that judges the pods of a profile.
pub(super) fn judging(profile: &Profile, options: &PolicyOptions) -> Chain {
    let direction = profile.direction;
    let allow = || Rule::new().then(allowed(direction));
    let mut lines: Vec<Rule> = tier(profile, PolicyTier::Admin).collect();
    if profile.network.is_empty() {
        lines.extend(tier(profile, PolicyTier::Baseline));
        lines.push(allow());
    } else {
        for family in Family::ALL {
            let both = [Field::Source(family), Field::Destination(family)];
            let itself = Rule::new().family(family).is_in(&both, of_family(ITSELF, family));
            lines.push(itself.then(allowed(direction)));
        }
        for policy in &profile.network {
            let rules = RulesId { policy: policy.clone(), direction };
            lines.push(Rule::new().then(Verdict::jump(rules.name())));
        }
        let about = profile.describe();
        let about = about.split_once(" by ").map_or(about.as_str(), |(_, policies)| policies);
        lines.extend(denied(&Rule::new(), direction, &profile.name(), about, options));
    }
    Chain::new(lines).with_comment(&profile.describe())
}

/// The chain that judges what the pods of a profile send to the node that they are on. NetworkPolicies always let that
/// pass, and where there is one, Baseline is not asked.
pub(super) fn judging_towards_node(profile: &Profile) -> Chain {
    let mut lines: Vec<Rule> = tier(profile, PolicyTier::Admin).collect();
    if profile.network.is_empty() {
        lines.extend(tier(profile, PolicyTier::Baseline));
    }
    lines.push(Rule::new().then(Verdict::Accept));
    Chain::new(lines).with_comment(&format!("to this node, {}", profile.describe()))
}

fn tier(profile: &Profile, tier: PolicyTier) -> impl Iterator<Item = Rule> {
    let key = TierKey::of(profile, tier);
    key.map(|key| Rule::new().then(Verdict::jump(key.name()))).into_iter()
}

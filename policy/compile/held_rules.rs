//! Rules that are held back because the kernel rejects them, and the rules that apply instead.
//!
//! ```text
//! compiled ─► changed ─ accepted by the kernel ─► accepted
//!                └───── rejected ───────────────► held back: the accepted version applies, or all connections are denied
//! ```
//! The accepted version applies only if the policy selects the same pods as it did then: with other pods it might allow
//! connections that neither version of the policy allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_cluster::cluster_network_policy::{NamespacedPods, Tier};
use portcullis_cluster::label_selector::LabelSelector;
use portcullis_cluster::{Index, Name, NamespacedName};

use super::policy_id::{PolicyId, RulesId};
use super::ports::RulePorts;
use super::rule::{PolicyRule, RuleAction, RulePeers};

/// A version of a policy's rules in one direction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RulesVersion {
    pub(super) rules: Arc<[PolicyRule]>,
    pub(super) subject: Subject,
}

/// The pods that a policy selects, and its order among other policies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subject {
    Network(LabelSelector),
    Cluster(Tier, u16, NamespacedPods),
    /// The policy does not exist.
    None,
}

impl Subject {
    pub(super) fn new(index: &Index, policy: &PolicyId) -> Self {
        let found = match policy {
            PolicyId::Network(key) => {
                index.network_policy(key).map(|policy| Subject::Network(policy.pod_selector.clone()))
            }
            PolicyId::Cluster(name) => {
                let key = NamespacedName { namespace: Name::new(""), name: name.clone() };
                let policy = index.cluster_network_policy(&key);
                policy.map(|policy| Subject::Cluster(policy.tier, policy.priority, policy.subject.clone()))
            }
        };
        found.unwrap_or(Subject::None)
    }
}

/// The rules that the kernel accepted, and those that are held back.
#[derive(Default)]
pub(super) struct HeldRules {
    /// The versions that the kernel accepted last.
    accepted: BTreeMap<RulesId, RulesVersion>,
    /// The versions that were compiled since; `None` for rules that are not used any more.
    changed: BTreeMap<RulesId, Option<RulesVersion>>,
    held_back: BTreeMap<RulesId, HeldBack>,
    /// The rules that the next update compiles again.
    dirty: BTreeSet<RulesId>,
}

struct HeldBack {
    rejected: RulesVersion,
    instead: Arc<[PolicyRule]>,
}

impl HeldRules {
    /// Returns the rules that apply if these were compiled: others if this version is held back.
    pub(super) fn apply(
        &mut self,
        id: &RulesId,
        compiled: Option<RulesVersion>,
    ) -> Option<Arc<[PolicyRule]>> {
        if let (Some(compiled), Some(held)) = (&compiled, self.held_back.get(id))
            && held.rejected == *compiled
        {
            return Some(Arc::clone(&held.instead));
        }
        self.held_back.remove(id);
        let rules = compiled.as_ref().map(|version| Arc::clone(&version.rules));
        self.changed.insert(id.clone(), compiled);
        rules
    }

    /// Records that the kernel accepted everything that was compiled.
    pub(super) fn accept_changes(&mut self) {
        for (id, version) in std::mem::take(&mut self.changed) {
            match version {
                Some(version) => _ = self.accepted.insert(id, version),
                None => _ = self.accepted.remove(&id),
            }
        }
    }

    /// Holds back all rules that changed since the last accepted version, with effect from the next update. Returns them.
    pub(super) fn hold_back_changes(&mut self) -> Vec<RulesId> {
        let mut held_back = Vec::new();
        for (id, version) in std::mem::take(&mut self.changed) {
            let Some(rejected) = version else {
                self.accepted.remove(&id);
                continue;
            };
            let accepted = self.accepted.get(&id).filter(|accepted| accepted.subject == rejected.subject);
            let instead = match accepted {
                Some(accepted) if accepted.rules == rejected.rules => continue,
                Some(accepted) => Arc::clone(&accepted.rules),
                None => isolating_rules(&id, &rejected.rules),
            };
            self.dirty.insert(id.clone());
            self.held_back.insert(id.clone(), HeldBack { rejected, instead });
            held_back.push(id);
        }
        held_back
    }

    /// Ends the holding back of rules, with effect from the next update.
    pub(super) fn release(&mut self, id: &RulesId) {
        if self.held_back.remove(id).is_some() {
            self.dirty.insert(id.clone());
        }
    }

    pub(super) fn is_held_back(&self, id: &RulesId) -> bool {
        self.held_back.contains_key(id)
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes the rules to compile again.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<RulesId> {
        std::mem::take(&mut self.dirty)
    }
}

/// Returns rules that allow nothing that the rejected rules might deny. A NetworkPolicy without rules isolates its pods.
fn isolating_rules(id: &RulesId, rejected: &[PolicyRule]) -> Arc<[PolicyRule]> {
    let only_accepts = rejected.iter().all(|rule| rule.action == RuleAction::Accept);
    match &id.policy {
        PolicyId::Cluster(_) if !only_accepts => Arc::new([PolicyRule {
            index: 0,
            name: None,
            action: RuleAction::Deny,
            peers: RulePeers { any: true, ..RulePeers::default() },
            ports: RulePorts::Any,
        }]),
        _ => Arc::default(),
    }
}

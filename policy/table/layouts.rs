//! Layouts of profiles: rule by rule, or by classes of peers.
//!
//! ```text
//! profile ─► identity of the peer ─┬─ few rules ─► tiers and policies in their order, rule by rule
//!                                  └─ many ──────► dispatch ─► class of the peer
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::classes::{Classes, DispatchKey, has_classes};
use super::edit::{ChainWithSets, TableEdit, TableEdits};
use super::options::PolicyOptions;
use super::peers::{IdentityChanges, Peers};
use super::profile_chain::{has_node_chain, profile_chains};
use super::rules::policy_chain;
use super::tiers::Tiers;
use crate::compile::{
    CompiledPolicies, Direction, PolicyChanges, PolicyId, Profile, ReferenceCounts, RulesId,
};

/// The layout of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The chain for all connections evaluates by classes.
    pub(super) by_classes: bool,
    /// The chain for connections to the pods' own node evaluates by classes.
    pub(super) node_by_classes: bool,
    /// The profile has too many classes, so it is evaluated rule by rule.
    pub(super) exceeds_limit: bool,
}

/// Numbers of profiles by their evaluation, and of identities and classes of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvaluationCounts {
    /// Profiles that are evaluated rule by rule, since they have few rules.
    pub by_rules: usize,
    /// Profiles that are evaluated by classes of peers.
    pub by_classes: usize,
    /// Profiles with too many classes, which are evaluated rule by rule.
    pub over_limit: usize,
    /// Identities of peers.
    pub identities: usize,
    /// Classes of peers.
    pub classes: usize,
}

/// What layouts are rendered from.
pub(super) struct LayoutContext<'a> {
    pub(super) peers: &'a Peers,
    pub(super) compiled: &'a CompiledPolicies,
    pub(super) options: &'a PolicyOptions,
}

/// Profiles and rules whose chains may have changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    rules: BTreeSet<RulesId>,
    profiles: BTreeSet<Arc<Profile>>,
}

/// The layouts of all profiles, and what their chains use.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    layouts: BTreeMap<Arc<Profile>, Layout>,
    tiers: Tiers,
    /// NetworkPolicies that are evaluated rule by rule, with the number of profiles.
    policies: ReferenceCounts<RulesId>,
    classes: Classes,
}

impl Layouts {
    /// Returns what changes of compiled policies affect.
    pub(super) fn changed(changes: &PolicyChanges, compiled: &CompiledPolicies) -> Changed {
        let mut profiles: BTreeSet<Arc<Profile>> = changes.profiles_added.iter().cloned().collect();
        let ids = changes.rules.iter().map(|change| &change.id);
        let policies: BTreeSet<(Direction, &PolicyId)> = ids.map(|id| (id.direction, &id.policy)).collect();
        if !policies.is_empty() {
            let is_changed = |profile: &&Arc<Profile>| {
                profile.policies().any(|policy| policies.contains(&(profile.direction, policy)))
            };
            profiles.extend(compiled.profiles().filter(is_changed).cloned());
        }
        Changed { rules: changes.rules.iter().map(|change| change.id.clone()).collect(), profiles }
    }

    /// Updates the chains of profiles.
    pub(super) fn apply(
        &mut self,
        changed: &Changed,
        removed: &[Arc<Profile>],
        identities: &IdentityChanges,
        context: &LayoutContext<'_>,
        edits: &mut TableEdits,
    ) {
        for profile in removed {
            self.remove(profile, edits);
        }
        for profile in &changed.profiles {
            self.put(profile, context, edits);
        }
        if !identities.is_empty() {
            self.change_identities(identities, context, edits);
        }
        self.classes.remove_unused(edits);
        self.update_chains(&changed.rules, context, edits);
    }

    /// Updates the classes for changed identities, and the layouts of profiles that have too many classes now, or not any longer.
    fn change_identities(
        &mut self,
        identities: &IdentityChanges,
        context: &LayoutContext<'_>,
        edits: &mut TableEdits,
    ) {
        self.classes.change_identities(identities, context, edits);
        let is_beyond = |profile: &Arc<Profile>| {
            DispatchKey::of(profile).iter().any(|key| self.classes.exceeds_limit(key))
        };
        let beyond = |(profile, layout): (&Arc<Profile>, &Layout)| {
            let may_end = layout.exceeds_limit && !identities.deleted.is_empty();
            (may_end || is_beyond(profile)).then(|| Arc::clone(profile))
        };
        let beyond: Vec<Arc<Profile>> = self.layouts.iter().filter_map(beyond).collect();
        for profile in beyond {
            self.put(&profile, context, edits);
        }
    }

    /// Returns the numbers of profiles by their evaluation, and of classes. Identities are not counted.
    pub(super) fn counts(&self) -> EvaluationCounts {
        let mut counts = EvaluationCounts { classes: self.classes.total(), ..EvaluationCounts::default() };
        for layout in self.layouts.values() {
            match layout {
                Layout { exceeds_limit: true, .. } => counts.over_limit += 1,
                Layout { by_classes: true, .. } => counts.by_classes += 1,
                _ => counts.by_rules += 1,
            }
        }
        counts
    }

    fn put(&mut self, profile: &Arc<Profile>, context: &LayoutContext<'_>, edits: &mut TableEdits) {
        let [all, to_node] = DispatchKey::of(profile);
        let mut layout = Layout {
            by_classes: has_classes(&all, context.compiled),
            node_by_classes: has_node_chain(profile) && has_classes(&to_node, context.compiled),
            exceeds_limit: false,
        };
        let mut has_too_many = |key, is_used: bool| is_used && !self.classes.put(key, context, edits);
        if has_too_many(&all, layout.by_classes) || has_too_many(&to_node, layout.node_by_classes) {
            layout = Layout { exceeds_limit: true, ..Layout::default() };
        }
        let before = self.layouts.insert(Arc::clone(profile), layout);
        self.count(profile, Some(layout), true);
        self.count(profile, before, false);
        if !layout.by_classes {
            self.classes.remove(&all, edits);
        }
        if !layout.node_by_classes {
            self.classes.remove(&to_node, edits);
        }
        for (name, chain) in profile_chains(profile, layout, context.options) {
            edits.edits.push(TableEdit::PutChain(ChainWithSets::without_sets(name, chain)));
        }
    }

    fn remove(&mut self, profile: &Arc<Profile>, edits: &mut TableEdits) {
        let layout = self.layouts.remove(profile);
        self.count(profile, layout, false);
        for key in DispatchKey::of(profile) {
            self.classes.remove(&key, edits);
        }
        for name in super::profile_chain::names(profile) {
            edits.edits.push(TableEdit::RemoveChain(name.into()));
        }
    }

    /// Adds or removes a profile's use of the chains of tiers and policies.
    fn count(&mut self, profile: &Arc<Profile>, layout: Option<Layout>, add: bool) {
        let Some(layout) = layout else { return };
        if !layout.by_classes {
            for policy in &profile.network {
                let id = RulesId { policy: policy.clone(), direction: profile.direction };
                if add { self.policies.add(&id) } else { self.policies.remove(&id) }
            }
        }
        if !layout.by_classes || (has_node_chain(profile) && !layout.node_by_classes) {
            if add { self.tiers.add_profile(profile) } else { self.tiers.remove_profile(profile) }
        }
    }

    /// Updates the chains of tiers and policies that have become used or unused, or whose rules changed.
    fn update_chains(
        &mut self,
        rules: &BTreeSet<RulesId>,
        context: &LayoutContext<'_>,
        edits: &mut TableEdits,
    ) {
        let (added, removed) = self.tiers.take_changes();
        let changed = rules.iter().filter(|id| matches!(id.policy, PolicyId::Cluster(_)));
        let changed: BTreeSet<_> = changed.flat_map(|id| self.tiers.with_rules(id)).chain(added).collect();
        for tier in changed {
            edits.edits.push(TableEdit::PutChain(tier.chain(context.compiled, context.options)));
        }
        edits.edits.extend(removed.iter().map(|tier| TableEdit::RemoveChain(tier.name().into())));
        let (added, removed) = self.policies.take_changes();
        let changed = rules.iter().filter(|id| self.policies.contains(id)).cloned();
        let changed: BTreeSet<RulesId> = changed.chain(added).collect();
        for id in changed {
            let chain = policy_chain(&id, context.compiled.rules_of(&id), context.options);
            edits.edits.push(TableEdit::PutChain(chain));
        }
        edits.edits.extend(removed.iter().map(|id| TableEdit::RemoveChain(id.name().into())));
    }
}

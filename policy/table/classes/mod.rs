//! Classes of peers: peers for which the same rules of a profile match.
//!
//! ```text
//! profile ─► dispatch ─┬─ map of identities to classes ─► class ─► admin tier, allowed ports, baseline tier
//!                      └─ no element ───────────────────► class of all other peers
//! ```
//! A profile with few rules is evaluated rule by rule. With many, the rules for each class are merged, so that the number of
//! lookups does not depend on the number of policies, rules, peers or ports.
//!
//! A class is named by one of the combinations of groups in it, not by its rules: if a policy changes, the rules of classes change,
//! and the classes of most identities stay.

mod chains;
mod decisions;
mod dispatch;
mod dispatch_key;
mod dispatch_rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, DataType, Element, Key, Rule, Set, SetSpec, Verdict};

use self::dispatch::{Class, Dispatch};
use super::edit::{ChainWithSets, SetEdit, TableEdit, TableEdits};
use super::layouts::LayoutContext;
use super::numbers::{Numbered, Numbers};
use super::peers::IdentityChanges;
use super::priority::PRIORITY;
use crate::compile::ReferenceCounts;

pub(super) use self::dispatch_key::{DispatchKey, has_classes};

/// All classes.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: Numbers,
    /// Numbers of class chains.
    by_chain: BTreeMap<Arc<str>, u32>,
    dispatches: BTreeMap<DispatchKey, Dispatch>,
    /// Chains to which class chains jump, with the number of class chains.
    parts: ReferenceCounts<Arc<str>>,
}

impl Default for Classes {
    fn default() -> Self {
        Classes {
            numbers: Numbers::new(Numbered::Class),
            by_chain: BTreeMap::new(),
            dispatches: BTreeMap::new(),
            parts: ReferenceCounts::new(),
        }
    }
}

impl Classes {
    /// Returns true if a dispatch has too many classes.
    pub(super) fn exceeds_limit(&self, key: &DispatchKey) -> bool {
        self.dispatches.get(key).is_some_and(Dispatch::exceeds_limit)
    }

    /// Returns the number of classes of all dispatches.
    pub(super) fn total(&self) -> usize {
        self.dispatches.values().map(|dispatch| dispatch.classes.len()).sum()
    }

    /// Adds a dispatch, or updates it after a change of its rules. Returns false and changes nothing if it would have too many
    /// classes.
    pub(super) fn put(
        &mut self,
        key: &DispatchKey,
        context: &LayoutContext<'_>,
        edits: &mut TableEdits,
    ) -> bool {
        let Some(mut dispatch) = Dispatch::new(key, context) else { return false };
        let (map, verdicts): (Arc<str>, Arc<str>) = (key.name().into(), key.verdicts().into());
        let before = self.dispatches.remove(key);
        if before.is_none() {
            let by_identity = SetSpec::new(&[DataType::ClassId]).with_data(&[DataType::ClassId]);
            let set = Set::new(by_identity.with_comment("classes of peers by identity"));
            edits.set(SetEdit::Put(Arc::clone(&map), set));
            let set = SetSpec::verdict_map(&[DataType::ClassId]).with_comment("classes of peers by number");
            edits.set(SetEdit::Put(Arc::clone(&verdicts), Set::new(set)));
        }
        let old = before.unwrap_or_default();
        let old_classes: BTreeMap<&Arc<str>, &Arc<str>> =
            old.classes.iter().map(|(content, class)| (&class.chain, content)).collect();
        for (content, class) in &dispatch.classes {
            let old_content = old_classes.get(&class.chain);
            class.parts.iter().for_each(|part| self.parts.add(part));
            if old_content != Some(&content) {
                self.put_chains(class, edits);
            }
            if old_content.is_none() && !class.is_default {
                self.put_verdict(&verdicts, &class.chain, edits);
            }
        }
        let old_numbers = old.numbers(&self.by_chain);
        let new_numbers = dispatch.numbers(&self.by_chain);
        for (identity, number) in &new_numbers {
            if old_numbers.get(identity) != Some(number) {
                put_identity(&map, *identity, *number, edits);
            }
        }
        for identity in old_numbers.keys().filter(|identity| !new_numbers.contains_key(identity)) {
            match context.peers.groups_of(*identity) {
                [] => edits.retire(Arc::clone(&map), Key::new().number(*identity)),
                _ => edits.element(&map, Key::new().number(*identity), None),
            }
        }
        let used: BTreeSet<&Arc<str>> = dispatch.classes.values().map(|class| &class.chain).collect();
        for class in old.classes.values() {
            class.parts.iter().for_each(|part| self.parts.remove(part));
            if !used.contains(&class.chain) {
                self.remove_chain(class, &verdicts, edits);
            }
        }
        let rules = vec![
            Rule::new().set_priority_from_map(&[PRIORITY], Arc::clone(&map)),
            Rule::new().verdict_map(&[PRIORITY], verdicts),
            Rule::new().then(Verdict::goto(&*dispatch.default_chain())).with_comment("all other peers"),
        ];
        let chain = Chain::new(rules).with_comment(&format!("classes of {}", key.profile.describe()));
        edits.edits.push(TableEdit::PutChain(ChainWithSets::without_sets(map, chain)));
        dispatch.forget_rendered();
        self.dispatches.insert(key.clone(), dispatch);
        true
    }

    /// Removes a dispatch.
    pub(super) fn remove(&mut self, key: &DispatchKey, edits: &mut TableEdits) {
        let Some(dispatch) = self.dispatches.remove(key) else { return };
        let (map, verdicts): (Arc<str>, Arc<str>) = (key.name().into(), key.verdicts().into());
        for class in dispatch.classes.values() {
            class.parts.iter().for_each(|part| self.parts.remove(part));
            self.remove_chain(class, &verdicts, edits);
        }
        edits.edits.push(TableEdit::RemoveChain(Arc::clone(&map)));
        edits.set(SetEdit::Remove(map));
        edits.set(SetEdit::Remove(verdicts));
    }

    /// Adds and removes identities of peers.
    pub(super) fn change_identities(
        &mut self,
        changes: &IdentityChanges,
        context: &LayoutContext<'_>,
        edits: &mut TableEdits,
    ) {
        let keys: Vec<DispatchKey> = self.dispatches.keys().cloned().collect();
        for key in keys {
            let Some(dispatch) = self.dispatches.get_mut(&key) else { continue };
            let change = dispatch.change_identities(&key, changes, context);
            if change.joined.is_empty() && change.left.is_empty() && !change.needs_rebuild {
                continue;
            }
            let (map, verdicts): (Arc<str>, Arc<str>) = (key.name().into(), key.verdicts().into());
            for class in &change.added {
                class.parts.iter().for_each(|part| self.parts.add(part));
                self.put_chains(class, edits);
                self.put_verdict(&verdicts, &class.chain, edits);
            }
            for (identity, chain) in &change.joined {
                put_identity(&map, *identity, self.number(chain), edits);
            }
            for identity in &change.left {
                edits.retire(Arc::clone(&map), Key::new().number(*identity));
            }
            if change.needs_rebuild {
                // If there are too many classes now, the layout changes after this.
                self.put(&key, context, edits);
            }
        }
    }

    /// Removes chains that class chains do not use any longer, after all other changes.
    pub(super) fn remove_unused(&mut self, edits: &mut TableEdits) {
        let (_, removed) = self.parts.take_changes();
        edits.edits.extend(removed.into_iter().map(TableEdit::RemoveChain));
    }

    /// Adds or replaces the chain of a class, and the chains to which it jumps.
    fn put_chains(&mut self, class: &Class, edits: &mut TableEdits) {
        let (numbers, chain) = (&mut self.numbers, &class.chain);
        self.by_chain.entry(Arc::clone(chain)).or_insert_with(|| numbers.take_for(chain));
        edits.edits.extend(class.rendered.iter().cloned().map(TableEdit::PutChain));
    }

    fn remove_chain(&mut self, class: &Class, verdicts: &Arc<str>, edits: &mut TableEdits) {
        let Some(number) = self.by_chain.remove(&class.chain) else { return };
        self.numbers.release(number);
        edits.edits.push(TableEdit::RemoveChain(Arc::clone(&class.chain)));
        if !class.is_default {
            edits.retire(Arc::clone(verdicts), Key::new().number(number));
        }
    }

    /// Returns the number of a class chain.
    fn number(&self, chain: &Arc<str>) -> u32 {
        self.by_chain.get(chain).copied().unwrap_or_default()
    }

    /// Adds the element of a class to the map of verdicts.
    fn put_verdict(&self, map: &Arc<str>, chain: &Arc<str>, edits: &mut TableEdits) {
        let verdict = Element::verdict(Verdict::goto(&**chain));
        edits.element(map, Key::new().number(self.number(chain)), Some(verdict));
    }
}

/// Adds the element of an identity to the map of classes.
fn put_identity(map: &Arc<str>, identity: u32, class: u32, edits: &mut TableEdits) {
    edits.element(map, Key::new().number(identity), Some(Element::value(Key::new().number(class))));
}

//! The diff between two versions of a table, and the changes that it adds to a transaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::element::{Element, ElementData, Key};
use super::elements::Elements;
use super::set::SetSpec;
use super::table::{Chain, Set, Table};
use super::transaction::Transaction;
use crate::error::Result;

/// A value before and after; `None` where it does not exist.
#[derive(Debug)]
pub(super) struct Change<T> {
    pub(super) before: Option<T>,
    pub(super) after: Option<T>,
}

/// A set with some of its elements.
pub(super) type SetWithElements<'a> = (&'a str, &'a SetSpec, Vec<&'a (Key, Element)>);

/// The elements of a set to delete and to add.
#[derive(Debug, Default)]
pub(super) struct ElementChanges<'a> {
    pub(super) deleted: Vec<(Key, Element)>,
    pub(super) added: Vec<(Key, Element)>,
    /// All elements of a new set, which are not copied.
    new: Option<&'a Elements>,
    /// The set has unknown elements, which cannot be deleted individually: the set is flushed and filled again.
    pub(super) refill: Option<Refill<'a>>,
}

/// The replacement of all elements of a set.
#[derive(Debug)]
pub(super) struct Refill<'a> {
    /// The number of unknown elements.
    unknown: usize,
    desired: &'a Set,
}

impl<'a> ElementChanges<'a> {
    /// Returns the elements of a set that does not exist.
    pub(super) fn of_new_set(set: &'a Set) -> Self {
        ElementChanges { new: Some(&set.elements), ..Self::default() }
    }

    /// Compares the elements of two sets.
    pub(super) fn between(before: &'a Set, after: &'a Set) -> Self {
        let lacks = |set: &'a Set| {
            move |(key, element): &(Key, Element)| set.elements.get(key).as_ref() != Some(element)
        };
        ElementChanges {
            new: None,
            deleted: before.elements.iter().filter(lacks(after)).collect(),
            added: after.elements.iter().filter(lacks(before)).collect(),
            refill: (!before.unknown.is_empty())
                .then_some(Refill { unknown: before.unknown.len(), desired: after }),
        }
    }

    /// Returns true if nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.added.is_empty() && self.refill.is_none()
    }

    /// Returns true if elements are deleted.
    fn has_deletions(&self) -> bool {
        !self.deleted.is_empty() || self.refill.is_some()
    }
}

/// The diff between two versions of a table.
#[derive(Debug, Default)]
pub(super) struct TableDiff<'a> {
    pub(super) chains: BTreeMap<&'a Arc<str>, Change<&'a Chain>>,
    pub(super) sets: BTreeMap<&'a Arc<str>, (Change<&'a SetSpec>, ElementChanges<'a>)>,
    pub(super) counters: BTreeMap<&'a Arc<str>, Change<Option<&'a str>>>,
}

/// The number of changed objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Chains that were added, deleted or got other rules.
    pub chains: usize,
    /// Sets and maps that were added or deleted.
    pub sets: usize,
    /// Elements of existing sets.
    pub elements: usize,
    /// Counters that were added or deleted.
    pub counters: usize,
}

impl std::ops::AddAssign for ChangeCounts {
    fn add_assign(&mut self, more: Self) {
        self.chains += more.chains;
        self.sets += more.sets;
        self.elements += more.elements;
        self.counters += more.counters;
    }
}

impl ChangeCounts {
    /// Returns true if nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == ChangeCounts::default()
    }

    /// Returns the sum.
    pub fn total(&self) -> usize {
        self.chains + self.sets + self.elements + self.counters
    }
}

/// Returns true if `before` can be changed into `after`: the kernel cannot change the hook of a chain or the specification
/// of a set, nor the comment of a table.
pub(super) fn is_compatible(before: &Table, after: &Table) -> bool {
    let chains = after
        .chains
        .iter()
        .all(|(name, chain)| before.chains.get(name).is_none_or(|there| there.base == chain.base));
    let sets = after.sets.iter().all(|(name, set)| {
        before.sets.get(name).is_none_or(|there| is_compatible_spec(&there.spec, &set.spec))
    });
    chains && sets && !is_of_another_process(before, after)
}

/// Returns true if another process added this table, after it had deleted ours: it has another comment. Kernels before 5.10 store none, so a
/// table without a comment is ours if it has one of our chains.
fn is_of_another_process(found: &Table, desired: &Table) -> bool {
    let has_own_chain = || desired.chains.keys().any(|name| found.chains.contains_key(name));
    found.comment != desired.comment && (found.comment.is_some() || !has_own_chain())
}

/// Ignores comments, and sizes that the kernel chose.
fn is_compatible_spec(found: &SetSpec, desired: &SetSpec) -> bool {
    let plain = |spec: &SetSpec| SetSpec { comment: None, size: None, ..spec.clone() };
    plain(found) == plain(desired) && (desired.size.is_none() || found.size == desired.size)
}

impl<'a> TableDiff<'a> {
    /// Compares two versions; `before` is `None` if the table does not exist.
    pub(super) fn between(before: Option<&'a Table>, after: &'a Table) -> Self {
        let mut diff = TableDiff::default();
        for (name, before, after) in pairs(before.map(|table| &table.chains), &after.chains) {
            if before.map(|chain| &chain.rules) != after.map(|chain| &chain.rules)
                || before.is_some() != after.is_some()
            {
                diff.chains.insert(name, Change { before, after });
            }
        }
        for (name, before, after) in pairs(before.map(|table| &table.sets), &after.sets) {
            let mut changes = ElementChanges::default();
            match (before, after) {
                (None, Some(after)) => changes = ElementChanges::of_new_set(after),
                (Some(before), Some(after)) => {
                    changes = ElementChanges::between(before, after);
                    if changes.is_empty() {
                        continue;
                    }
                }
                (_, None) => {}
            }
            diff.sets.insert(name, (spec_change(before, after), changes));
        }
        for (name, before, after) in pairs(before.map(|table| &table.counters), &after.counters) {
            if before.is_some() != after.is_some() {
                let text = |comment: Option<&'a Option<Arc<str>>>| comment.map(Option::as_deref);
                diff.counters.insert(name, Change { before: text(before), after: text(after) });
            }
        }
        diff
    }

    /// Returns the number of changed objects.
    pub(super) fn counts(&self) -> ChangeCounts {
        let whole = |change: &Change<&SetSpec>| change.before.is_some() != change.after.is_some();
        let mut extent = ChangeCounts {
            chains: self.chains.len(),
            counters: self.counters.len(),
            ..ChangeCounts::default()
        };
        for (change, elements) in self.sets.values() {
            if whole(change) {
                extent.sets += 1;
            } else {
                // An element with other data is deleted and added, and counts once.
                let deleted: HashSet<&Key> = elements.deleted.iter().map(|(key, _)| key).collect();
                let new = elements.added.iter().filter(|(key, _)| !deleted.contains(key)).count();
                let unknown = elements.refill.as_ref().map_or(0, |refill| refill.unknown);
                extent.elements += deleted.len() + new + unknown;
            }
        }
        extent
    }

    /// Returns the number of elements to add and delete.
    pub(super) fn elements(&self) -> usize {
        let of_set = |changes: &ElementChanges<'_>| {
            let refilled = changes.refill.as_ref().map_or(0, |refill| refill.desired.elements.len());
            changes.new.map_or(0, Elements::len) + changes.added.len() + changes.deleted.len() + refilled
        };
        self.sets.values().map(|(_, changes)| of_set(changes)).sum()
    }

    /// Returns true if existing sets lose elements and get verdicts to new chains. A packet in progress during such a
    /// transaction would find the new verdict, but the chain without its rules. So the chains need a transaction before.
    pub(super) fn has_verdicts_to_new_chains(&self) -> bool {
        let existing = || self.sets.values().filter(|(change, _)| change.before.is_some());
        let is_new = |chain: &Arc<str>| self.chains.get(chain).is_some_and(|change| change.before.is_none());
        let targets_new = |(_, element): &(Key, Element)| match &element.data {
            Some(ElementData::Verdict(verdict)) => verdict.chain().is_some_and(is_new),
            _ => false,
        };
        self.deletes_elements() && existing().any(|(_, elements)| elements.added.iter().any(targets_new))
    }

    /// Returns true if existing sets lose elements and existing chains change. A packet in progress during such a transaction
    /// would find the new elements by the old rules.
    pub(super) fn changes_rules_and_deletes_elements(&self) -> bool {
        let is_changed = |change: &Change<&Chain>| change.before.is_some() && change.after.is_some();
        self.deletes_elements() && self.chains.values().any(is_changed)
    }

    /// Returns true if existing sets lose elements.
    fn deletes_elements(&self) -> bool {
        self.sets.values().any(|(change, elements)| change.before.is_some() && elements.has_deletions())
    }

    /// Adds the new counters, sets and chains without their contents.
    pub(super) fn write_new_objects(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, change) in &self.counters {
            if let (None, Some(comment)) = (change.before, change.after) {
                transaction.add_counter(name, comment)?;
            }
        }
        for (name, (change, _)) in &self.sets {
            if let (None, Some(spec)) = (change.before, change.after) {
                transaction.add_set(name, spec)?;
            }
        }
        for (name, change) in &self.chains {
            if let (None, Some(chain)) = (change.before, change.after) {
                transaction.add_chain(name, chain)?;
            }
        }
        Ok(())
    }

    /// Returns the new sets with their elements.
    pub(super) fn new_elements(&self) -> impl Iterator<Item = (&'a str, &'a SetSpec, &'a Elements)> {
        self.sets
            .iter()
            .filter_map(|(name, (change, elements))| Some((&***name, change.after?, elements.new?)))
    }

    /// Adds the rules of new chains.
    pub(super) fn write_new_rules(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, change) in self.chains.iter().filter(|(_, change)| change.before.is_none()) {
            for rule in change.after.iter().flat_map(|chain| &chain.rules) {
                transaction.add_rule(name, rule)?;
            }
        }
        Ok(())
    }

    /// Returns the number of elements that existing maps with values get and lose.
    pub(super) fn changed_map_values(&self) -> usize {
        self.value_maps().map(|(.., elements)| elements.added.len() + elements.deleted.len()).sum()
    }

    /// Returns the elements that existing maps with values get, without those that get another value.
    pub(super) fn added_map_values(&self) -> impl Iterator<Item = SetWithElements<'_>> {
        self.value_maps()
            .map(|(name, spec, elements)| (name, spec, without_keys_of(&elements.added, &elements.deleted)))
    }

    /// Returns the elements that existing maps with values lose, without those that get another value.
    pub(super) fn deleted_map_values(&self) -> impl Iterator<Item = SetWithElements<'_>> {
        self.value_maps()
            .map(|(name, spec, elements)| (name, spec, without_keys_of(&elements.deleted, &elements.added)))
    }

    fn value_maps(&self) -> impl Iterator<Item = (&'a str, &'a SetSpec, &ElementChanges<'a>)> {
        self.sets.iter().filter_map(|(name, (change, elements))| match (change.before, change.after) {
            (Some(_), Some(spec)) if spec.is_value_map() && elements.refill.is_none() => {
                Some((&***name, spec, elements))
            }
            _ => None,
        })
    }

    /// Gives elements of existing maps with values another value.
    pub(super) fn write_replaced_map_values(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, spec, elements) in self.value_maps() {
            let added: HashSet<&Key> = elements.added.iter().map(|(key, _)| key).collect();
            let deleted: HashSet<&Key> = elements.deleted.iter().map(|(key, _)| key).collect();
            let replaced = |(key, _): &&(Key, Element)| added.contains(key) && deleted.contains(key);
            transaction.delete_elements(name, spec, pairs_of(elements.deleted.iter().filter(replaced)))?;
            transaction.add_elements(name, spec, pairs_of(elements.added.iter().filter(replaced)))?;
        }
        Ok(())
    }

    /// Changes the elements of existing sets that `is_included`.
    pub(super) fn write_element_changes(
        &self,
        transaction: &mut Transaction,
        is_included: impl Fn(&SetSpec) -> bool,
    ) -> Result<()> {
        for (name, (change, elements)) in &self.sets {
            let (Some(_), Some(spec)) = (change.before, change.after) else { continue };
            if !is_included(spec) && elements.refill.is_none() {
                continue;
            }
            if let Some(Refill { desired, .. }) = elements.refill {
                transaction.flush_set(name)?;
                transaction.add_elements(name, spec, &desired.elements)?;
            } else {
                transaction.delete_elements(name, spec, pairs_of(&elements.deleted))?;
                transaction.add_elements(name, spec, pairs_of(&elements.added))?;
            }
        }
        Ok(())
    }

    /// Replaces the rules of existing chains.
    pub(super) fn write_rule_changes(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, change) in &self.chains {
            let (Some(before), Some(after)) = (change.before, change.after) else { continue };
            if !before.rules.is_empty() {
                transaction.flush_chain(name)?;
            }
            after.rules.iter().try_for_each(|rule| transaction.add_rule(name, rule))?;
        }
        Ok(())
    }

    /// Deletes the removed objects.
    pub(super) fn write_deletions(&self, transaction: &mut Transaction) -> Result<()> {
        // Flush deleted chains first: they may jump to each other and use deleted sets.
        let deleted = || self.chains.iter().filter(|(_, change)| change.after.is_none());
        for (name, _) in
            deleted().filter(|(_, change)| change.before.is_some_and(|chain| !chain.rules.is_empty()))
        {
            transaction.flush_chain(name)?;
        }
        // A verdict map references its chains until it is deleted.
        for (name, (change, _)) in &self.sets {
            if change.after.is_none() {
                transaction.delete_set(name)?;
            }
        }
        for (name, _) in deleted() {
            transaction.delete_chain(name)?;
        }
        for (name, _) in self.counters.iter().filter(|(_, change)| change.after.is_none()) {
            transaction.delete_counter(name)?;
        }
        Ok(())
    }
}

/// Returns references to keys and elements.
pub(super) fn pairs_of<'a>(
    elements: impl IntoIterator<Item = &'a (Key, Element)>,
) -> impl Iterator<Item = (&'a Key, &'a Element)> {
    elements.into_iter().map(|(key, element)| (key, element))
}

/// Returns the elements whose keys are not among those of `other`.
fn without_keys_of<'a>(elements: &'a [(Key, Element)], other: &[(Key, Element)]) -> Vec<&'a (Key, Element)> {
    let keys: HashSet<&Key> = other.iter().map(|(key, _)| key).collect();
    elements.iter().filter(|(key, _)| !keys.contains(key)).collect()
}

fn spec_change<'a>(before: Option<&'a Set>, after: Option<&'a Set>) -> Change<&'a SetSpec> {
    Change { before: before.map(|set| &set.spec), after: after.map(|set| &set.spec) }
}

/// Joins two maps by name.
fn pairs<'a, T>(
    before: Option<&'a BTreeMap<Arc<str>, T>>,
    after: &'a BTreeMap<Arc<str>, T>,
) -> impl Iterator<Item = (&'a Arc<str>, Option<&'a T>, Option<&'a T>)> {
    let both = after
        .iter()
        .map(move |(name, value)| (name, before.and_then(|before| before.get(name)), Some(value)));
    let deleted = before.into_iter().flatten().filter(|(name, _)| !after.contains_key(*name));
    both.chain(deleted.map(|(name, value)| (name, Some(value), None)))
}

//! What makes one state of a table into another, and the transaction that does it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::element::{Element, ElementData, Key};
use super::set::SetSpec;
use super::table::{Chain, Set, Table};
use super::transaction::Transaction;
use crate::error::Result;

/// Before and after.
#[derive(Debug)]
pub(super) struct Change<T> {
    pub(super) before: Option<T>,
    pub(super) after: Option<T>,
}

/// The elements of a set that are to go and to come.
#[derive(Debug, Default)]
pub(super) struct ElementChanges<'a> {
    pub(super) gone: Vec<(&'a Key, &'a Element)>,
    pub(super) come: Vec<(&'a Key, &'a Element)>,
    /// The set holds elements that cannot be deleted one by one, as they cannot be expressed: all are deleted, and the
    /// wanted ones added.
    pub(super) refill: Option<Refill<'a>>,
}

/// A set whose elements are all replaced.
#[derive(Debug)]
pub(super) struct Refill<'a> {
    /// How many of its elements are unknown.
    unknown: usize,
    wanted: &'a Set,
}

impl<'a> ElementChanges<'a> {
    /// What makes the elements of one set into those of another.
    pub(super) fn between(before: &'a Set, after: &'a Set) -> Self {
        let lacks = |set: &'a Set| move |(key, e): &(&Key, &Element)| set.elements.get(*key) != Some(*e);
        ElementChanges {
            gone: before.elements.iter().filter(lacks(after)).collect(),
            come: after.elements.iter().filter(lacks(before)).collect(),
            refill: (!before.unknown.is_empty())
                .then_some(Refill { unknown: before.unknown.len(), wanted: after }),
        }
    }

    /// Whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty() && self.refill.is_none()
    }

    /// Whether the set loses elements.
    fn takes(&self) -> bool {
        !self.gone.is_empty() || self.refill.is_some()
    }
}

/// All that differs between two states of a table.
#[derive(Debug, Default)]
pub(super) struct TableDiff<'a> {
    pub(super) chains: BTreeMap<&'a Arc<str>, Change<&'a Chain>>,
    pub(super) sets: BTreeMap<&'a Arc<str>, (Change<&'a SetSpec>, ElementChanges<'a>)>,
    pub(super) counters: BTreeMap<&'a Arc<str>, Change<Option<&'a str>>>,
}

/// How much differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Chains that came, went or got other rules.
    pub chains: usize,
    /// Sets and maps that came or went.
    pub sets: usize,
    /// Elements of sets that stay.
    pub elements: usize,
    /// Counters that came or went.
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
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == ChangeCounts::default()
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.chains + self.sets + self.elements + self.counters
    }
}

/// Whether one can be made into the other: nothing that is there would have to be of another kind.
pub(super) fn same_kinds(before: &Table, after: &Table) -> bool {
    let chains = after
        .chains
        .iter()
        .all(|(name, chain)| before.chains.get(name).is_none_or(|there| there.base == chain.base));
    let sets = after
        .sets
        .iter()
        .all(|(name, set)| before.sets.get(name).is_none_or(|there| is_same_kind(&there.spec, &set.spec)));
    chains && sets
}

/// What is said of a set is no part of what it is; nor is a size that the kernel chose itself.
fn is_same_kind(there: &SetSpec, wanted: &SetSpec) -> bool {
    let bare = |spec: &SetSpec| SetSpec { comment: None, size: None, ..spec.clone() };
    bare(there) == bare(wanted) && (wanted.size.is_none() || there.size == wanted.size)
}

impl<'a> TableDiff<'a> {
    /// Compares two states; `None` before is no table.
    pub(super) fn between(before: Option<&'a Table>, after: &'a Table) -> Self {
        let mut difference = TableDiff::default();
        for (name, before, after) in pairs(before.map(|table| &table.chains), &after.chains) {
            if before.map(|chain| &chain.rules) != after.map(|chain| &chain.rules)
                || before.is_some() != after.is_some()
            {
                difference.chains.insert(name, Change { before, after });
            }
        }
        for (name, before, after) in pairs(before.map(|table| &table.sets), &after.sets) {
            let mut changes = ElementChanges::default();
            match (before, after) {
                (None, Some(after)) => changes.come.extend(&after.elements),
                (Some(before), Some(after)) => {
                    changes = ElementChanges::between(before, after);
                    if changes.is_empty() {
                        continue;
                    }
                }
                (_, None) => {}
            }
            difference.sets.insert(name, (spec_change(before, after), changes));
        }
        for (name, before, after) in pairs(before.map(|table| &table.counters), &after.counters) {
            if before.is_some() != after.is_some() {
                let said = |comment: Option<&'a Option<Arc<str>>>| comment.map(Option::as_deref);
                difference.counters.insert(name, Change { before: said(before), after: said(after) });
            }
        }
        difference
    }

    /// How much it is.
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
                // One that got other data is one.
                let gone: HashSet<&Key> = elements.gone.iter().map(|(key, _)| *key).collect();
                let new = elements.come.iter().filter(|(key, _)| !gone.contains(key)).count();
                let unknown = elements.refill.as_ref().map_or(0, |refill| refill.unknown);
                extent.elements += gone.len() + new + unknown;
            }
        }
        extent
    }

    /// Whether something gets a verdict that leads to a chain which is not there, and sets that stay lose something, it may
    /// be what served before: a packet under way would find the elements of the new state and the chain of the old one,
    /// without rules.
    pub(super) fn leads_to_new_chains(&self) -> bool {
        let staying = || self.sets.values().filter(|(change, _)| change.before.is_some());
        let is_new = |chain: &Arc<str>| self.chains.get(chain).is_some_and(|change| change.before.is_none());
        let leads_there = |(_, element): &(&Key, &Element)| match &element.data {
            Some(ElementData::Verdict(verdict)) => verdict.chain().is_some_and(is_new),
            _ => false,
        };
        self.takes_elements() && staying().any(|(_, elements)| elements.come.iter().any(leads_there))
    }

    /// Whether rules of chains that stay change, and sets that stay lose something: a packet under way would know only the
    /// rules of the old state, and find only the elements of the new one.
    pub(super) fn takes_from_old_rules(&self) -> bool {
        let stays = |change: &Change<&Chain>| change.before.is_some() && change.after.is_some();
        self.takes_elements() && self.chains.values().any(stays)
    }

    /// Whether sets that are there lose something.
    fn takes_elements(&self) -> bool {
        self.sets.values().any(|(change, elements)| change.before.is_some() && elements.takes())
    }

    /// Adds what is new, empty; nothing leads to it yet.
    pub(super) fn write_new(&self, transaction: &mut Transaction) -> Result<()> {
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

    /// The sets that are new, with their elements.
    pub(super) fn new_elements(
        &self,
    ) -> impl Iterator<Item = (&'a str, &'a SetSpec, &[(&'a Key, &'a Element)])> {
        self.sets.iter().filter_map(|(name, (change, elements))| match (change.before, change.after) {
            (None, Some(spec)) => Some((&***name, spec, elements.come.as_slice())),
            _ => None,
        })
    }

    /// Adds the rules of what is new.
    pub(super) fn write_new_rules(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, change) in self.chains.iter().filter(|(_, change)| change.before.is_none()) {
            for rule in change.after.iter().flat_map(|chain| &chain.rules) {
                transaction.add_rule(name, rule)?;
            }
        }
        Ok(())
    }

    /// Changes the elements of sets that stay.
    pub(super) fn write_elements(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, (change, elements)) in &self.sets {
            let (Some(_), Some(spec)) = (change.before, change.after) else { continue };
            if let Some(Refill { wanted, .. }) = elements.refill {
                transaction.flush_set(name)?;
                transaction.add_elements(name, spec, &wanted.elements)?;
            } else {
                transaction.delete_elements(name, spec, elements.gone.iter().copied())?;
                transaction.add_elements(name, spec, elements.come.iter().copied())?;
            }
        }
        Ok(())
    }

    /// Gives chains that stay their other rules.
    pub(super) fn write_other_rules(&self, transaction: &mut Transaction) -> Result<()> {
        for (name, change) in &self.chains {
            let (Some(before), Some(after)) = (change.before, change.after) else { continue };
            if !before.rules.is_empty() {
                transaction.flush_chain(name)?;
            }
            after.rules.iter().try_for_each(|rule| transaction.add_rule(name, rule))?;
        }
        Ok(())
    }

    /// Removes what goes.
    pub(super) fn write_removals(&self, transaction: &mut Transaction) -> Result<()> {
        // Chains that go may lead to one another, and use sets that go.
        let go = || self.chains.iter().filter(|(_, change)| change.after.is_none());
        for (name, _) in go().filter(|(_, change)| change.before.is_some_and(|chain| !chain.rules.is_empty()))
        {
            transaction.flush_chain(name)?;
        }
        // A verdict map that goes holds its chains until it is gone.
        for (name, (change, _)) in &self.sets {
            if change.after.is_none() {
                transaction.delete_set(name)?;
            }
        }
        for (name, _) in go() {
            transaction.delete_chain(name)?;
        }
        for (name, _) in self.counters.iter().filter(|(_, change)| change.after.is_none()) {
            transaction.delete_counter(name)?;
        }
        Ok(())
    }
}

fn spec_change<'a>(before: Option<&'a Set>, after: Option<&'a Set>) -> Change<&'a SetSpec> {
    Change { before: before.map(|set| &set.spec), after: after.map(|set| &set.spec) }
}

/// The values of two maps by name.
fn pairs<'a, T>(
    before: Option<&'a BTreeMap<Arc<str>, T>>,
    after: &'a BTreeMap<Arc<str>, T>,
) -> impl Iterator<Item = (&'a Arc<str>, Option<&'a T>, Option<&'a T>)> {
    let both = after
        .iter()
        .map(move |(name, value)| (name, before.and_then(|before| before.get(name)), Some(value)));
    let gone = before.into_iter().flatten().filter(|(name, _)| !after.contains_key(*name));
    both.chain(gone.map(|(name, value)| (name, Some(value), None)))
}

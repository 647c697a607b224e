//! Desired tables: the contents that a table should have, and the edits since the last commit.
//!
//! ```text
//! edits ─► desired contents, and the previous version of each edited object ─► TableDiff ─► commit
//! ```
//! The cost of a commit follows the number of edits. After a failed commit, the next one reads the kernel's table and needs no edits,
//! so none are kept: their memory does not grow while commits fail.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::element::{Element, Key};
use super::set::SetSpec;
use super::table::{Chain, Set, Table, TableFamily};
use super::table_diff::{Change, ElementChanges, TableDiff};

/// The desired contents of a table, and the edits since the last [`super::commit()`] while the contents in the kernel are known.
#[derive(Debug)]
pub struct DesiredTable {
    desired: Table,
    /// The version in the kernel of each edited chain; `None` if it did not exist.
    chains: BTreeMap<Arc<str>, Option<Chain>>,
    sets: BTreeMap<Arc<str>, Option<Set>>,
    /// True for counters that existed.
    counters: BTreeMap<Arc<str>, bool>,
    /// Edited elements of existing sets.
    elements: BTreeMap<Arc<str>, HashMap<Key, Option<Element>>>,
    /// The kernel has the contents of the last commit.
    is_kernel_known: bool,
    rules_before_elements: bool,
    ranges_before_elements: bool,
    splits_map_changes: bool,
}

impl DesiredTable {
    /// Returns an empty table. The contents in the kernel are unknown.
    pub fn new(family: TableFamily, name: &str) -> Self {
        DesiredTable {
            desired: Table::new(family, name),
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            counters: BTreeMap::new(),
            elements: BTreeMap::new(),
            is_kernel_known: false,
            rules_before_elements: false,
            ranges_before_elements: false,
            splits_map_changes: false,
        }
    }

    /// Changes the rules of existing chains in a transaction before the one that deletes elements. A transaction is atomic,
    /// but not for a packet in progress: it continues with the old rules and finds the new elements. For tables whose new
    /// rules work with the old elements, but not vice versa.
    pub fn rules_before_elements(&mut self) {
        self.rules_before_elements = true;
    }

    /// Adds elements to existing interval sets in a transaction before all others. The kernel publishes them a moment after the other
    /// elements of a transaction. For tables whose rules look up ranges only for elements of other sets.
    pub fn ranges_before_elements(&mut self) {
        self.ranges_before_elements = true;
    }

    /// Adds many elements to existing maps with values in transactions before the one with all other changes, and deletes many
    /// in transactions after it. For tables whose rules may find any part of these elements. While a process subscribes to
    /// nf_tables events, one transaction with 100,000 elements would need 400 MB of kernel memory.
    pub fn split_map_changes(&mut self) {
        self.splits_map_changes = true;
    }

    /// Returns true if [`DesiredTable::split_map_changes`] was called.
    pub(super) fn splits_map_changes(&self) -> bool {
        self.splits_map_changes
    }

    /// Returns true if [`DesiredTable::rules_before_elements`] was called.
    pub(super) fn has_rules_before_elements(&self) -> bool {
        self.rules_before_elements
    }

    /// Returns true if [`DesiredTable::ranges_before_elements`] was called.
    pub(super) fn has_ranges_before_elements(&self) -> bool {
        self.ranges_before_elements
    }

    /// Returns the desired contents.
    pub fn desired(&self) -> &Table {
        &self.desired
    }

    /// Sets the comment of the table. The kernel stores it only when the table is added.
    pub fn set_comment(&mut self, comment: &str) {
        self.desired.comment = Some(super::comment::sanitize(comment).into());
    }

    /// Returns true if the kernel's contents differ from the desired ones, or may differ.
    pub fn is_dirty(&self) -> bool {
        let edits = self.chains.len() + self.sets.len() + self.counters.len() + self.elements.len();
        !self.is_kernel_known || edits > 0
    }

    /// Marks the contents in the kernel as unknown: the next commit reads them.
    pub fn invalidate(&mut self) {
        self.is_kernel_known = false;
        self.forget_edits();
    }

    /// Records the result of a commit. After a failure, the contents in the kernel are unknown.
    pub(super) fn record_commit(&mut self, is_ok: bool) {
        self.is_kernel_known = is_ok;
        self.forget_edits();
    }

    fn forget_edits(&mut self) {
        self.chains = BTreeMap::new();
        self.sets = BTreeMap::new();
        self.counters = BTreeMap::new();
        self.elements = BTreeMap::new();
    }

    /// Adds a chain, or replaces its rules.
    pub fn put_chain(&mut self, name: &Arc<str>, chain: Chain) {
        if self.desired.chains.get(name).is_some_and(|present| *present == chain) {
            return;
        }
        let before = self.desired.chains.insert(Arc::clone(name), chain);
        if self.is_kernel_known {
            self.chains.entry(Arc::clone(name)).or_insert(before);
        }
    }

    /// Removes a chain.
    pub fn remove_chain(&mut self, name: &str) {
        if let Some((name, before)) = self.desired.chains.remove_entry(name)
            && self.is_kernel_known
        {
            self.chains.entry(name).or_insert(Some(before));
        }
    }

    /// Adds a set with its elements. If the set exists with the same specification, replaces its elements.
    pub fn put_set(&mut self, name: &Arc<str>, set: Set) {
        if let Some(present) = self.desired.sets.get(name)
            && present.spec == set.spec
        {
            let removed: Vec<Key> =
                present.elements.keys().filter(|key| !set.elements.contains_key(key)).collect();
            removed.iter().for_each(|key| self.remove_element(name, key));
            set.elements.iter().for_each(|(key, element)| self.put_element(name, key, element));
            return;
        }
        let before = self.desired.sets.insert(Arc::clone(name), set);
        self.record_set(Arc::clone(name), before);
    }

    /// Removes a set.
    pub fn remove_set(&mut self, name: &str) {
        if let Some((name, before)) = self.desired.sets.remove_entry(name) {
            self.record_set(name, Some(before));
        }
    }

    /// Records a set that is added or removed as a whole, with its elements in the kernel.
    fn record_set(&mut self, name: Arc<str>, mut before: Option<Set>) {
        if !self.is_kernel_known {
            return;
        }
        if let (Some(edited), Some(before)) = (self.elements.remove(&name), &mut before) {
            for (key, element) in edited {
                match element {
                    Some(element) => _ = before.elements.insert(key, element),
                    None => _ = before.elements.remove(&key),
                }
            }
        }
        self.sets.entry(name).or_insert(before);
    }

    /// Adds an element to an existing set, or replaces its data.
    pub fn put_element(&mut self, set: &Arc<str>, key: Key, element: Element) {
        let Some(present) = self.desired.sets.get_mut(set) else { return };
        if !self.is_kernel_known {
            present.elements.insert(key, element);
            return;
        }
        if present.elements.get(&key).is_some_and(|same| same == element) {
            return;
        }
        let before = present.elements.insert(key.clone(), element);
        self.record_element(set, key, before);
    }

    /// Removes an element from a set.
    pub fn remove_element(&mut self, set: &Arc<str>, key: &Key) {
        let Some(present) = self.desired.sets.get_mut(set) else { return };
        if let Some(before) = present.elements.remove(key) {
            self.record_element(set, key.clone(), Some(before));
        }
    }

    fn record_element(&mut self, set: &Arc<str>, key: Key, before: Option<Element>) {
        // All elements of a new set are new.
        if self.is_kernel_known && !self.sets.contains_key(set) {
            self.elements.entry(Arc::clone(set)).or_default().entry(key).or_insert(before);
        }
    }

    /// Adds a counter.
    pub fn put_counter(&mut self, name: &Arc<str>, comment: Option<&str>) {
        let comment = comment.map(|comment| super::comment::sanitize(comment).into());
        if self.desired.counters.insert(Arc::clone(name), comment).is_none() && self.is_kernel_known {
            self.counters.entry(Arc::clone(name)).or_insert(false);
        }
    }

    /// Removes a counter.
    pub fn remove_counter(&mut self, name: &str) {
        if let Some((name, _)) = self.desired.counters.remove_entry(name)
            && self.is_kernel_known
        {
            self.counters.entry(name).or_insert(true);
        }
    }

    /// Returns the edits since the last commit. Returns `None` if the contents in the kernel are unknown, or cannot be changed
    /// into the desired ones.
    pub(super) fn edits(&self) -> Option<TableDiff<'_>> {
        (self.is_kernel_known && self.are_edits_compatible()).then(|| self.diff_of_edits())
    }

    /// Returns true unless the hook of an existing chain or the specification of an existing set changes.
    fn are_edits_compatible(&self) -> bool {
        let chain = |(name, before): (&Arc<str>, &Option<Chain>)| {
            let after = self.desired.chains.get(name);
            before.as_ref().zip(after).is_none_or(|(before, after)| before.base == after.base)
        };
        let set = |(name, before): (&Arc<str>, &Option<Set>)| {
            let after = self.desired.sets.get(name);
            before.as_ref().zip(after).is_none_or(|(before, after)| before.spec == after.spec)
        };
        self.chains.iter().all(chain) && self.sets.iter().all(set)
    }

    fn diff_of_edits(&self) -> TableDiff<'_> {
        let mut diff = TableDiff::default();
        for (name, before) in &self.chains {
            let change = Change { before: before.as_ref(), after: self.desired.chains.get(name) };
            if change.before.map(|chain| &chain.rules) != change.after.map(|chain| &chain.rules) {
                diff.chains.insert(name, change);
            }
        }
        for (name, before) in &self.sets {
            let after = self.desired.sets.get(name);
            let change = Change { before: before.as_ref().map(|s| &s.spec), after: after.map(|s| &s.spec) };
            let elements = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => ElementChanges::of_new_set(after),
                (Some(before), Some(after)) => ElementChanges::between(before, after),
                (Some(_), None) => ElementChanges::default(),
            };
            diff.sets.insert(name, (change, elements));
        }
        for (name, edited) in &self.elements {
            let Some(set) = self.desired.sets.get(name) else { continue };
            let change: Change<&SetSpec> = Change { before: Some(&set.spec), after: Some(&set.spec) };
            let mut changes = ElementChanges::default();
            for (key, before) in edited {
                let after = set.elements.get(key);
                if *before != after {
                    changes.deleted.extend(before.clone().map(|element| (key.clone(), element)));
                    changes.added.extend(after.map(|element| (key.clone(), element)));
                }
            }
            if !changes.is_empty() {
                diff.sets.insert(name, (change, changes));
            }
        }
        for (name, was_there) in &self.counters {
            let after = self.desired.counters.get(name).map(Option::as_deref);
            if *was_there != after.is_some() {
                diff.counters.insert(name, Change { before: was_there.then_some(None), after });
            }
        }
        diff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nf_tables::{DataType, Verdict};

    impl DesiredTable {
        fn kept_edits(&self) -> usize {
            let elements: usize = self.elements.values().map(HashMap::len).sum();
            self.chains.len() + self.sets.len() + self.counters.len() + elements
        }
    }

    fn map() -> Set {
        Set::new(SetSpec::verdict_map(&[DataType::Ipv4Addr]))
    }

    /// Adds, changes and removes objects and elements, each of them once in a cycle. Returns the number of edits.
    fn cycle(table: &mut DesiredTable, objects: u32) -> usize {
        let stable: Arc<str> = "stable".into();
        table.put_set(&stable, map());
        for n in 0..objects {
            let name: Arc<str> = format!("x{n}").into();
            let key = Key::new().part(&n.to_be_bytes());
            table.put_chain(&name, Chain::default());
            table.put_set(&name, map());
            table.put_counter(&name, None);
            table.put_element(&stable, key.clone(), Element::verdict(Verdict::Accept));
            table.put_element(&stable, key.clone(), Element::verdict(Verdict::Drop));
            table.remove_element(&stable, &key);
            table.remove_counter(&name);
            table.remove_set(&name);
            table.remove_chain(&name);
        }
        9 * objects as usize
    }

    #[test]
    fn no_edits_are_kept_while_commits_fail() {
        let mut table = DesiredTable::new(TableFamily::Inet, "t");
        let fail: [fn(&mut DesiredTable); 3] =
            [|_| (), |table| table.record_commit(false), DesiredTable::invalidate];
        for (number, fail) in fail.into_iter().enumerate() {
            fail(&mut table);
            let edits = cycle(&mut table, 1_000);
            assert_eq!(table.kept_edits(), 0, "{number}: of {edits} edits");
            assert!(table.is_dirty(), "the next commit reads the kernel's table");
            table.record_commit(true);
            assert!(cycle(&mut table, 10) > 0 && table.kept_edits() > 0, "edits of a known table are kept");
        }
    }

    #[test]
    fn repeated_edits_are_kept_once() {
        let mut table = DesiredTable::new(TableFamily::Inet, "t");
        table.record_commit(true);
        cycle(&mut table, 100);
        let kept = table.kept_edits();
        (0..50).for_each(|_| _ = cycle(&mut table, 100));
        assert_eq!(table.kept_edits(), kept, "after 50 more cycles over the same objects");
        table.record_commit(true);
        assert_eq!(table.kept_edits(), 0);
    }
}

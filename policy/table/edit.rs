//! Values that the policy table writes: chains with their sets, and changes of sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, Element, Key, Set};

use super::group_sets::UsedGroups;

/// A chain, with the shared sets and the groups of peers that its rules match.
#[derive(Debug)]
pub(super) struct ChainWithSets {
    pub(super) name: Arc<str>,
    pub(super) chain: Chain,
    pub(super) sets: BTreeMap<Arc<str>, Set>,
    pub(super) groups: UsedGroups,
}

/// A change of the table.
#[derive(Debug)]
pub(super) enum TableEdit {
    /// Creates a chain, or replaces its rules.
    PutChain(ChainWithSets),
    /// Removes a chain and the sets that only its rules use.
    RemoveChain(Arc<str>),
    /// Removes a counter.
    RemoveCounter(Arc<str>),
    /// Changes a set.
    Set(SetEdit),
}

/// Changes of the table in two transactions.
#[derive(Debug, Default)]
pub(super) struct TableEdits {
    /// The changes, in this order.
    pub(super) edits: Vec<TableEdit>,
    /// Removals for the second transaction: packets may still look these up while the first becomes effective.
    pub(super) retired: Vec<TableEdit>,
    /// Removals of what retired chains may use, after these.
    pub(super) removed_last: Vec<TableEdit>,
}

impl ChainWithSets {
    /// Returns a chain whose rules use no sets of this kind.
    pub(super) fn without_sets(name: Arc<str>, chain: Chain) -> Self {
        ChainWithSets { name, chain, sets: BTreeMap::new(), groups: UsedGroups::new() }
    }
}

impl TableEdits {
    /// Adds a change of a set.
    pub(super) fn set(&mut self, edit: SetEdit) {
        self.edits.push(TableEdit::Set(edit));
    }

    /// Adds the removal of an element to the second transaction.
    pub(super) fn retire(&mut self, set: Arc<str>, key: Key) {
        let edit = ElementEdit { set, key, element: None };
        self.retired.push(TableEdit::Set(SetEdit::Element(edit)));
    }
}

/// A change of a set.
#[derive(Debug)]
pub(super) enum SetEdit {
    /// Creates a set, or replaces its elements.
    Put(Arc<str>, Set),
    /// Removes a set.
    Remove(Arc<str>),
    /// Changes an element.
    Element(ElementEdit),
}

/// A change of an element of a set or map.
#[derive(Debug)]
pub(super) struct ElementEdit {
    pub(super) set: Arc<str>,
    pub(super) key: Key,
    /// The element; `None` removes it.
    pub(super) element: Option<Element>,
}

/// All elements of a set or map.
#[derive(Debug)]
pub(super) struct SetElements {
    pub(super) set: Arc<str>,
    pub(super) elements: Vec<(Key, Element)>,
}

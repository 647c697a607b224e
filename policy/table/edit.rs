//! Values that the policy table writes: chains with their sets, and changes of sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, Element, Key, Set};

use super::group_sets::UsedGroups;

/// A chain, with the shared sets and the groups of peers that its rules match.
#[derive(Clone, Debug)]
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
    /// Changes a set.
    Set(SetEdit),
}

/// Changes of the table.
#[derive(Debug, Default)]
pub(super) struct TableEdits {
    /// The changes, in this order.
    pub(super) edits: Vec<TableEdit>,
    /// Elements to be removed when the kernel has accepted the changes: packets may look these up until then.
    pub(super) retired: Vec<(Arc<str>, Key)>,
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

    /// Adds a change of an element; `None` removes it.
    pub(super) fn element(&mut self, set: &Arc<str>, key: Key, element: Option<Element>) {
        self.set(SetEdit::Element(ElementEdit { set: Arc::clone(set), key, element }));
    }

    /// Adds an element to be removed later.
    pub(super) fn retire(&mut self, set: Arc<str>, key: Key) {
        self.retired.push((set, key));
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

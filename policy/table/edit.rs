//! Values that the policy table writes: chains with their sets, and changes of sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, Element, Key, Set};

/// A chain, with the shared sets that its rules use.
#[derive(Debug)]
pub(super) struct ChainWithSets {
    pub(super) name: Arc<str>,
    pub(super) chain: Chain,
    pub(super) sets: BTreeMap<Arc<str>, Set>,
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

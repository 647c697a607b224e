//! What rules write to sets from the packet path.

use std::sync::Arc;

use super::element::{Element, ElementData, Key};
use super::expression::DynamicUpdate;
use super::table::Table;

/// One such write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The set.
    pub set: Arc<str>,
    /// How.
    pub op: DynamicUpdate,
    /// The element's key.
    pub key: Key,
    /// What belongs to it, in a map.
    pub data: Option<Key>,
    /// How long it stays, in milliseconds; `None` is the set's own.
    pub timeout: Option<u64>,
}

impl Table {
    /// Does what a traced packet would have done: the next one finds it. As in the kernel, what belongs to an element
    /// that is there already stays as it is.
    pub fn write(&mut self, written: &Written) {
        let Some(set) = self.sets.get_mut(&written.set) else { return };
        match written.op {
            DynamicUpdate::Delete => _ = set.elements.remove(&written.key),
            DynamicUpdate::Add | DynamicUpdate::Update => {
                let data = written.data.clone().map(ElementData::Value);
                let element = Element { data, timeout: written.timeout, ..Element::default() };
                set.elements.entry(written.key.clone()).or_insert(element);
            }
        }
    }
}

//! Elements that rules add to or delete from sets while they process a packet (`dynset` expressions).

use std::sync::Arc;

use crate::nf_tables::element::{Element, ElementData, Key};
use crate::nf_tables::expression::DynsetOp;
use crate::nf_tables::table::Table;

/// A write to a set by a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetWrite {
    /// The name of the set.
    pub set: Arc<str>,
    /// The operation.
    pub op: DynsetOp,
    /// The key of the element.
    pub key: Key,
    /// The data of the element, in a map.
    pub data: Option<Key>,
    /// The timeout of the element in milliseconds; `None` for the default of the set.
    pub timeout: Option<u64>,
}

impl Table {
    /// Applies a write of a traced packet, so that the trace of the next packet finds it. As in the kernel, an existing
    /// element keeps its data.
    pub fn apply(&mut self, write: &SetWrite) {
        let Some(set) = self.sets.get_mut(&write.set) else { return };
        match write.op {
            DynsetOp::Delete => _ = set.elements.remove(&write.key),
            DynsetOp::Add | DynsetOp::Update => {
                let data = write.data.clone().map(ElementData::Value);
                let element = Element { data, timeout: write.timeout, ..Element::default() };
                if !set.elements.contains_key(&write.key) {
                    set.elements.insert(write.key.clone(), element);
                }
            }
        }
    }
}

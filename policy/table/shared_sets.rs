//! Immutable sets of port ranges that rules share by content. Different content is a different set.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{DataType, Element, Key, Set, SetSpec};
use sha2::{Digest, Sha256};

use super::edit::SetEdit;
use crate::compile::{ReferenceCounts, suffix};

/// The sets that a chain's rules use, by name.
pub(super) type UsedSets = BTreeMap<Arc<str>, Set>;

/// Adds a set of port ranges, and returns its name.
pub(super) fn ports(ranges: &[(u16, u16)], used: &mut UsedSets) -> Arc<str> {
    let elements = ranges.iter().map(|(first, last)| (Key::new().port(*first), Key::new().port(*last)));
    range_set("ports", DataType::InetService, elements.collect(), used)
}

fn range_set(prefix: &str, data_type: DataType, ranges: Vec<(Key, Key)>, used: &mut UsedSets) -> Arc<str> {
    let mut hash = Sha256::new();
    for (first, last) in &ranges {
        hash.update(first.bytes());
        hash.update(last.bytes());
    }
    let hash = suffix(&hash.finalize());
    let name: Arc<str> = format!("{prefix}-{hash}").into();
    let elements = ranges.into_iter().map(|(first, last)| (first, Element::range_to(last)));
    used.entry(Arc::clone(&name))
        .or_insert_with(|| Set::with_elements(SetSpec::new(&[data_type]).with_intervals(), elements));
    name
}

/// Shared sets of all chains, with the number of chains that use each.
#[derive(Debug, Default)]
pub(super) struct SharedSets {
    counts: ReferenceCounts<Arc<str>>,
    of_chain: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

impl SharedSets {
    /// Replaces the sets that a chain uses. Returns the creation of new sets and the removal of sets that have become
    /// unused.
    pub(super) fn assign(&mut self, chain: &Arc<str>, mut used: UsedSets) -> Vec<SetEdit> {
        let before = self.of_chain.remove(chain).unwrap_or_default();
        let names: Vec<Arc<str>> = used.keys().cloned().collect();
        names.iter().for_each(|name| self.counts.add(name));
        before.iter().for_each(|name| self.counts.remove(name));
        if !names.is_empty() {
            self.of_chain.insert(Arc::clone(chain), names);
        }
        let (added, removed) = self.counts.take_changes();
        let put = added.into_iter().filter_map(|name| used.remove_entry(&name));
        let mut edits: Vec<SetEdit> = put.map(|(name, set)| SetEdit::Put(name, set)).collect();
        edits.extend(removed.into_iter().map(SetEdit::Remove));
        edits
    }
}

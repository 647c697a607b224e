//! Sets of identities, one for each group of peers that rules match.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_netlink::nf_tables::{DataType, Element, Key, Set, SetSpec};

use super::edit::{SetEdit, TableEdits};
use super::peers::{IdentityChanges, PeerGroup, Peers};
use crate::compile::ReferenceCounts;

/// The groups that the rules of a chain match, with comments for their sets.
pub(super) type UsedGroups = BTreeMap<PeerGroup, String>;

/// The sets of all chains. Groups that only classes of peers use have none.
#[derive(Debug, Default)]
pub(super) struct GroupSets {
    counts: ReferenceCounts<PeerGroup>,
    of_chain: BTreeMap<Arc<str>, Vec<PeerGroup>>,
    comments: BTreeMap<PeerGroup, String>,
}

impl GroupSets {
    /// Replaces the groups that a chain uses.
    pub(super) fn assign(&mut self, chain: &Arc<str>, used: UsedGroups) {
        let groups: Vec<PeerGroup> = used.keys().cloned().collect();
        groups.iter().for_each(|group| self.counts.add(group));
        let before = match groups.is_empty() {
            true => self.of_chain.remove(chain),
            false => self.of_chain.insert(Arc::clone(chain), groups),
        };
        self.comments.extend(used);
        for group in before.into_iter().flatten() {
            self.counts.remove(&group);
            if !self.counts.contains(&group) {
                self.comments.remove(&group);
            }
        }
    }

    /// Returns the changes of the sets since the last call.
    pub(super) fn take_changes(&mut self, peers: &Peers, identities: &IdentityChanges) -> TableEdits {
        let mut edits = TableEdits::default();
        let (added, removed) = self.counts.take_changes();
        for (identity, groups) in &identities.created {
            for group in groups.iter().filter_map(|group| peers.group(*group)) {
                if self.counts.contains(group) && added.binary_search(group).is_err() {
                    let key = Key::new().number(*identity);
                    edits.element(&group.set_name().into(), key, Some(Element::new()));
                }
            }
        }
        for (identity, groups) in &identities.deleted {
            for group in groups.iter().filter_map(|group| peers.group(*group)) {
                if self.counts.contains(group) && added.binary_search(group).is_err() {
                    edits.retire(group.set_name().into(), Key::new().number(*identity));
                }
            }
        }
        if !added.is_empty() {
            self.add(&added, peers, &mut edits);
        }
        removed.iter().for_each(|group| edits.set(SetEdit::Remove(group.set_name().into())));
        edits
    }

    /// Adds sets with all identities in them.
    fn add(&self, groups: &[PeerGroup], peers: &Peers, edits: &mut TableEdits) {
        let indexes: BTreeMap<_, &PeerGroup> =
            groups.iter().filter_map(|group| Some((peers.index(group)?, group))).collect();
        let mut elements: BTreeMap<&PeerGroup, BTreeSet<u32>> =
            groups.iter().map(|group| (group, BTreeSet::new())).collect();
        for (identity, of_identity) in peers.identities() {
            for group in of_identity.iter().filter_map(|group| indexes.get(group)) {
                elements.entry(group).or_default().insert(identity);
            }
        }
        for (group, identities) in elements {
            let comment = self.comments.get(group).map_or("", String::as_str);
            let spec = SetSpec::new(&[DataType::ClassId]).with_comment(comment);
            let elements = identities.into_iter().map(|number| (Key::new().number(number), Element::new()));
            edits.set(SetEdit::Put(group.set_name().into(), Set::with_elements(spec, elements)));
        }
    }
}

//! Unreadable objects: objects that exist and could never be read.

use std::collections::{BTreeSet, HashSet};

use crate::kind::Kind;
use crate::name::NamespacedName;
use crate::object::ObjectKey;

/// Objects of which no version could be read since the start. Does not include objects that could be read once: their last
/// readable version is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadableObjects {
    objects: BTreeSet<ObjectKey>,
}

impl UnreadableObjects {
    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Iterates over their keys. The key of [`ObjectKey::unnamed`] stands for all objects of a kind without a readable name.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.iter()
    }

    pub(crate) fn add(&mut self, key: ObjectKey) {
        self.objects.insert(key);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// Removes the objects of a kind that a full list did not contain.
    pub(crate) fn sweep(&mut self, kind: Kind, seen: &HashSet<NamespacedName>) {
        self.objects.retain(|key| key.kind != kind || seen.contains(&key.name));
    }
}

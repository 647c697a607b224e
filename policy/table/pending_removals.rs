//! Removals that wait until the kernel has accepted a table without references to the removed objects.
//!
//! A packet may have looked up a number just before a transaction becomes effective, and look up what the number stands for just
//! after it. So numbers of profiles, identities and classes keep their meaning in this transaction, and another one removes what is
//! not used any longer.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{DesiredTable, Key};

/// Objects and elements to be removed.
#[derive(Debug, Default)]
pub(super) struct PendingRemovals {
    elements: BTreeSet<(Arc<str>, Key)>,
    chains: BTreeSet<Arc<str>>,
    counters: BTreeSet<Arc<str>>,
    sets: BTreeSet<Arc<str>>,
}

impl PendingRemovals {
    pub(super) fn add_element(&mut self, set: Arc<str>, key: Key) {
        self.elements.insert((set, key));
    }

    pub(super) fn add_chain(&mut self, name: Arc<str>) {
        self.chains.insert(name);
    }

    pub(super) fn add_counter(&mut self, name: Arc<str>) {
        self.counters.insert(name);
    }

    pub(super) fn add_set(&mut self, name: Arc<str>) {
        self.sets.insert(name);
    }

    /// Keeps a chain that is used again.
    pub(super) fn keep_chain(&mut self, name: &str) {
        self.chains.remove(name);
    }

    /// Keeps a counter that is used again.
    pub(super) fn keep_counter(&mut self, name: &str) {
        self.counters.remove(name);
    }

    /// Keeps a set that is used again. Its elements were replaced.
    pub(super) fn keep_set(&mut self, name: &str) {
        self.sets.remove(name);
    }

    /// Removes everything from the table. Returns the removed counters, and true if anything was removed.
    pub(super) fn apply(self, table: &mut DesiredTable) -> (BTreeSet<Arc<str>>, bool) {
        let PendingRemovals { elements, chains, counters, sets } = self;
        let any = !(elements.is_empty() && chains.is_empty() && counters.is_empty() && sets.is_empty());
        elements.iter().for_each(|(set, key)| table.remove_element(set, key));
        chains.iter().for_each(|name| table.remove_chain(name));
        counters.iter().for_each(|name| table.remove_counter(name));
        sets.iter().for_each(|name| table.remove_set(name));
        (counters, any)
    }
}

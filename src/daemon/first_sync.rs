//! The decision to hold back the first sync while objects cannot be read.
//!
//! The first sync removes the rules of unknown objects. If an object has never been readable and the kernel has rules of an
//! earlier proxy, some of these rules may serve the object. So all of them are kept until every object has been read. If
//! the kernel has no such rules, the first sync runs with the readable objects.

use portcullis_modes::cleanup;
use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::table::{self as policy_table, EnforceError};

/// The state of the first sync, either of Services or of policies.
pub(super) struct FirstSync {
    /// Returns true if the kernel has rules that a first sync could remove.
    has_rules: fn() -> bool,
    /// The result of `has_rules`, once it has been called.
    rules_found: Option<bool>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Held,
    Started,
}

impl FirstSync {
    pub(super) fn for_services() -> Self {
        FirstSync::new(services_are_served)
    }

    pub(super) fn for_policies() -> Self {
        FirstSync::new(policies_are_enforced)
    }

    pub(super) fn for_pod_network() -> Self {
        FirstSync::new(pods_are_routed)
    }

    fn new(has_rules: fn() -> bool) -> Self {
        FirstSync { has_rules, rules_found: None, phase: Phase::Ready }
    }

    /// Decides whether the sync is held back. `has_unreadable`: objects that affect it have never been readable.
    pub(super) fn update(&mut self, has_unreadable: bool) {
        self.phase = match self.phase {
            Phase::Started => Phase::Started,
            _ if has_unreadable && *self.rules_found.get_or_insert_with(self.has_rules) => Phase::Held,
            _ => Phase::Ready,
        };
    }

    /// Returns true if the sync is held back.
    pub(super) fn is_held(&self) -> bool {
        self.phase == Phase::Held
    }

    /// Records the start of the sync. Later syncs are not held back: they remove only rules of objects that were known.
    pub(super) fn started(&mut self) {
        self.phase = Phase::Started;
    }
}

/// Returns true if the kernel has rules of a proxy in any mode.
fn services_are_served() -> bool {
    // In IPVS mode, this process has created the link by now.
    let own_link = format!("link {DUMMY_INTERFACE}");
    let (seen, _) = cleanup::detect_modes();
    seen.iter().any(|seen| seen.evidence.iter().any(|line| *line != own_link))
}

/// Returns true if the kernel has the policy table, or if the table cannot be read.
fn policies_are_enforced() -> bool {
    !matches!(policy_table::read(TableFamily::Inet), Ok(None) | Err(EnforceError::NoTables))
}

/// Returns true if the kernel has routes to pods of other nodes, or if they cannot be read.
fn pods_are_routed() -> bool {
    !matches!(portcullis_podnet::links::remove(true), Ok(found) if found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sync_is_held_if_it_could_remove_rules_of_unreadable_objects() {
        // Rules exist; objects are unreadable (for each update); the sync is held back after the updates.
        type Row<'a> = (fn() -> bool, &'a [bool], bool);
        let (with, without) = (|| true, || false);
        let rows: [Row<'_>; 5] = [
            (with, &[false], false),
            (with, &[true], true),
            (with, &[true, false], false),
            (with, &[false, true], true),
            (without, &[true], false),
        ];
        for (has_rules, updates, held) in rows {
            let mut first = FirstSync::new(has_rules);
            for has_unreadable in updates {
                first.update(*has_unreadable);
            }
            assert_eq!(first.is_held(), held, "{updates:?}");
            first.started();
            first.update(true);
            assert!(!first.is_held(), "after the first sync, the last readable version of an object is kept");
        }
    }
}

//! Holding back of the first sync while objects cannot be read.
//!
//! The first sync removes the rules of objects that are not known. If an object could not be read even once and the kernel
//! has rules of an earlier proxy, some of these rules may serve the object. So all of them are kept until every object has
//! been read. If the kernel has no such rules, the readable objects are served.

use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_modes::{ProxyMode, cleanup};
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::table::{self as policy_table, EnforceError};

/// The first sync, of Services or of policies.
pub(super) struct FirstSync {
    /// Whether the kernel has rules that a first sync could remove.
    has_rules: fn() -> bool,
    /// The result of `has_rules`, once it was called.
    found: Option<bool>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Held,
    Started,
}

impl FirstSync {
    pub(super) fn of_services() -> Self {
        FirstSync::new(services_are_served)
    }

    pub(super) fn of_policies() -> Self {
        FirstSync::new(policies_are_enforced)
    }

    fn new(has_rules: fn() -> bool) -> Self {
        FirstSync { has_rules, found: None, state: State::Ready }
    }

    /// Decides whether the sync is held back. `has_unreadable`: objects that affect it could not be read even once.
    pub(super) fn update(&mut self, has_unreadable: bool) {
        self.state = match self.state {
            State::Started => State::Started,
            _ if has_unreadable && *self.found.get_or_insert_with(self.has_rules) => State::Held,
            _ => State::Ready,
        };
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// Records the start of the sync: from then on, removed objects were known before.
    pub(super) fn started(&mut self) {
        self.state = State::Started;
    }
}

/// Returns true if the kernel has rules of a proxy in any mode.
fn services_are_served() -> bool {
    // In IPVS mode the link exists since the start.
    let own_link = format!("link {DUMMY_INTERFACE}");
    let (seen, _) = cleanup::detect_modes();
    seen.iter().any(|seen| seen.mode != ProxyMode::Ipvs || seen.evidence.iter().any(|line| *line != own_link))
}

/// Returns true if the kernel has the table of policies, or the table cannot be read.
fn policies_are_enforced() -> bool {
    !matches!(policy_table::read(TableFamily::Inet), Ok(None) | Err(EnforceError::NoTables))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sync_is_held_if_it_could_remove_rules_of_unreadable_objects() {
        // Whether there are rules, whether objects are unreadable at each update, and whether it is held at the end.
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
            assert!(!first.is_held(), "later, the last readable version is kept");
        }
    }
}

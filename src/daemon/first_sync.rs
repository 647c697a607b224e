//! Whether the first sync must wait because of objects that could not be read.
//!
//! The first sync makes the kernel what is known, so it removes the rules of what is not known. If an object could not be
//! read even once, and the kernel has rules of an earlier proxy, those rules may serve that object: they all stay until
//! every object was read once. Where the kernel has no such rules, nothing can be lost, and what is known is served.

use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_modes::{ProxyMode, cleanup};
use portcullis_netlink::nf_tables::TableFamily;
use portcullis_policy::table::{self as policy_table, EnforceError};

/// The first sync, of Services or of policies.
pub(super) struct FirstSync {
    /// Whether the kernel has rules that a first sync could remove.
    has_rules: fn() -> bool,
    /// The answer, once it was needed.
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

    /// Decides whether the sync is held back. `unread`: objects that concern it could not be read even once. Reports
    /// whether the decision is another than before.
    pub(super) fn review(&mut self, unread: bool) -> bool {
        let state = match self.state {
            State::Started => State::Started,
            _ if unread && *self.found.get_or_insert_with(self.has_rules) => State::Held,
            _ => State::Ready,
        };
        let before = std::mem::replace(&mut self.state, state);
        before != state
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// The sync starts: from now on, what is removed was known before.
    pub(super) fn started(&mut self) {
        self.state = State::Started;
    }
}

/// Whether any mode of this program or of kube-proxy serves in the kernel.
fn services_are_served() -> bool {
    // In IPVS mode the link is made at the start.
    let own_link = format!("link {DUMMY_INTERFACE}");
    let (seen, _) = cleanup::detect_modes();
    seen.iter().any(|seen| seen.mode != ProxyMode::Ipvs || seen.evidence.iter().any(|line| *line != own_link))
}

/// Whether the table of policies is in the kernel. One that cannot be read is taken for one that enforces.
fn policies_are_enforced() -> bool {
    !matches!(policy_table::read(TableFamily::Inet), Ok(None) | Err(EnforceError::NoTables))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_sync_that_could_remove_rules_of_unread_objects_is_held() {
        // Whether there are rules, whether objects are unread at each review, and whether it is held at the end.
        type Row<'a> = (fn() -> bool, &'a [bool], bool);
        let (with, without) = (|| true, || false);
        let rows: [Row<'_>; 5] = [
            (with, &[false], false),
            (with, &[true], true),
            (with, &[true, false], false),
            (with, &[false, true], true),
            (without, &[true], false),
        ];
        for (has_rules, reviews, held) in rows {
            let mut first = FirstSync::new(has_rules);
            for unread in reviews {
                first.review(*unread);
            }
            assert_eq!(first.is_held(), held, "{reviews:?}");
            first.started();
            assert!(!first.review(true) && !first.is_held(), "later, the last good version counts");
        }
    }
}

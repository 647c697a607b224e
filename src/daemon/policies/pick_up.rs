//! How long connections are taken up that are older than connection tracking.
//!
//! Where no policies were enforced before, nothing may have tracked connections either. The first packet that is seen of
//! one may be the server's, which policies would then judge as a client. So, for a while after the start, the middle of a
//! TCP connection passes; at the end, what was taken up and is allowed neither way is cut.

use std::time::{Duration, Instant};

/// How long the middle of a TCP connection passes.
const WINDOW: Duration = Duration::from_secs(60);

/// Whether connections are taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PickUp {
    /// From the first sync on.
    Begins,
    /// Until then.
    Until(Instant),
    /// No more, and those that were taken up are still to be judged.
    Ends,
    /// No more.
    Over,
}

impl PickUp {
    /// `is_new`: no policies were enforced before.
    pub(super) fn new(is_new: bool) -> Self {
        if is_new { PickUp::Begins } else { PickUp::Over }
    }

    /// Whether the middle of a connection passes.
    pub(super) fn is_on(self) -> bool {
        matches!(self, PickUp::Begins | PickUp::Until(_))
    }

    /// When it ends.
    pub(super) fn next(self) -> Option<Instant> {
        match self {
            PickUp::Until(end) => Some(end),
            _ => None,
        }
    }

    /// Ends it where its time has come, or where policies have changed so that connections are to be cut: one that is cut
    /// must not be taken up.
    pub(super) fn end_if_due(&mut self, now: Instant, cuts: bool) {
        if self.next().is_some_and(|end| now >= end || cuts) {
            *self = PickUp::Ends;
        }
    }

    /// Takes in that a sync succeeded, which began in the state `at`.
    pub(super) fn synced(&mut self, at: PickUp, now: Instant) {
        *self = match at {
            PickUp::Begins => PickUp::Until(now + WINDOW),
            PickUp::Ends => PickUp::Over,
            at => at,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_taken_up_for_a_while_where_nothing_was_enforced() {
        let start = Instant::now();
        let mut over = PickUp::new(false);
        over.synced(over, start);
        over.end_if_due(start + WINDOW, true);
        assert_eq!(over, PickUp::Over);

        for (what, after, cuts, ends) in [
            ("in time", WINDOW / 2, false, false),
            ("its time has come", WINDOW, false, true),
            ("connections are cut", WINDOW / 2, true, true),
        ] {
            let mut pick_up = PickUp::new(true);
            pick_up.end_if_due(start, true);
            assert!(pick_up.is_on() && pick_up.next().is_none(), "not before the first sync");
            pick_up.synced(pick_up, start);
            assert_eq!(pick_up, PickUp::Until(start + WINDOW));
            pick_up.end_if_due(start + after, cuts);
            assert_eq!(!pick_up.is_on(), ends, "{what}");
            let at = pick_up;
            pick_up.synced(at, start + after);
            assert_eq!(pick_up == PickUp::Over, ends, "{what}");
        }
    }
}

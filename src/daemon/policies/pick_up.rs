//! Pickup of TCP connections that were established before connection tracking began.
//!
//! If no policies were enforced before, conntrack may not have tracked connections either. The first tracked packet of an
//! established connection may come from the server, and policies would evaluate the server as the client. So conntrack
//! may pick up established TCP connections for a time after the start. When the pickup ends, picked-up connections that
//! policies allow in neither direction are terminated.

use std::time::{Duration, Instant};

/// The duration of the pickup.
const WINDOW: Duration = Duration::from_secs(60);

/// The phase of the pickup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PickUp {
    /// Begins with the first sync.
    Starting,
    /// Ends at this time.
    Until(Instant),
    /// The next sync ends the pickup and terminates denied connections that were picked up.
    Ending,
    /// Has ended, or was not needed.
    Ended,
}

impl PickUp {
    /// Creates the phase at the start. `is_new`: no policies were enforced before.
    pub(super) fn new(is_new: bool) -> Self {
        if is_new { PickUp::Starting } else { PickUp::Ended }
    }

    /// Returns true if established connections are picked up.
    pub(super) fn is_active(self) -> bool {
        matches!(self, PickUp::Starting | PickUp::Until(_))
    }

    /// Returns the time at which the pickup ends, once it has begun.
    pub(super) fn end(self) -> Option<Instant> {
        match self {
            PickUp::Until(end) => Some(end),
            _ => None,
        }
    }

    /// Ends the pickup if its time has passed, or if connections are to be terminated (`terminates`): conntrack must not
    /// pick up a terminated connection again.
    pub(super) fn end_if_due(&mut self, now: Instant, terminates: bool) {
        if self.end().is_some_and(|end| now >= end || terminates) {
            *self = PickUp::Ending;
        }
    }

    /// Records a successful sync that ran in this `phase`.
    pub(super) fn synced(&mut self, phase: PickUp, now: Instant) {
        *self = match phase {
            PickUp::Starting => PickUp::Until(now + WINDOW),
            PickUp::Ending => PickUp::Ended,
            phase => phase,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickup_lasts_for_the_window_or_until_connections_are_terminated() {
        let start = Instant::now();
        let mut ended = PickUp::new(false);
        ended.synced(ended, start);
        ended.end_if_due(start + WINDOW, true);
        assert_eq!(ended, PickUp::Ended);

        for (case, after, terminates, ends) in [
            ("within the window", WINDOW / 2, false, false),
            ("window has passed", WINDOW, false, true),
            ("connections are terminated", WINDOW / 2, true, true),
        ] {
            let mut pick_up = PickUp::new(true);
            pick_up.end_if_due(start, true);
            assert!(pick_up.is_active() && pick_up.end().is_none(), "pickup ended before the first sync");
            pick_up.synced(pick_up, start);
            assert_eq!(pick_up, PickUp::Until(start + WINDOW));
            pick_up.end_if_due(start + after, terminates);
            assert_eq!(!pick_up.is_active(), ends, "{case}");
            let phase = pick_up;
            pick_up.synced(phase, start + after);
            assert_eq!(pick_up == PickUp::Ended, ends, "{case}");
        }
    }
}

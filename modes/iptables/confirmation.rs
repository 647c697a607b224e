//! The comparison that follows own writes with the legacy tool.
//!
//! The kernel does not count the writes to legacy tables, so an own write can hide a change that another process makes at the same
//! time. All rules are compared once after own writes, and these comparisons take a limited share of the time: a table of 420,000
//! lines takes seconds to read.

use std::time::{Duration, Instant};

use crate::sync_state::FULL_CHECK;

/// The shortest time from a write to the comparison that follows it.
const SHORTEST_WAIT: Duration = Duration::from_secs(30);

/// These comparisons take at most this part of the time: a fiftieth.
const SHARE: u32 = 50;

/// The comparison that is to follow own writes.
#[derive(Default)]
pub(super) struct Confirmation {
    due: Option<Instant>,
    /// The duration of the last comparison.
    took: Duration,
}

impl Confirmation {
    /// Returns when all rules are to be compared.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns true once if all rules are to be compared now.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| now >= *due).is_some()
    }

    /// Records a comparison of all rules, which took this long.
    pub(super) fn record_comparison(&mut self, took: Duration) {
        (self.due, self.took) = (None, took);
    }

    /// Records a write that no comparison has followed.
    pub(super) fn record_write(&mut self, now: Instant) {
        let wait = (self.took * SHARE).clamp(SHORTEST_WAIT, FULL_CHECK);
        self.due.get_or_insert(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_take_a_limited_share_of_the_time_however_often_rules_are_written() {
        for took in [Duration::from_millis(20), Duration::from_secs(3), Duration::from_secs(40)] {
            let (start, mut confirmation) = (Instant::now(), Confirmation::default());
            confirmation.record_comparison(took);
            let (mut now, mut comparing, mut longest_wait) = (start, Duration::ZERO, Duration::ZERO);
            let mut last = start;
            while now < start + Duration::from_secs(24 * 3600) {
                now += Duration::from_secs(1);
                if confirmation.take_due(now) {
                    longest_wait = longest_wait.max(now - last);
                    (now, comparing) = (now + took, comparing + took);
                    last = now;
                    confirmation.record_comparison(took);
                }
                confirmation.record_write(now);
            }
            assert!(!comparing.is_zero() && comparing * SHARE <= now - start, "{took:?}: {comparing:?}");
            assert!(longest_wait <= FULL_CHECK + Duration::from_secs(2), "{took:?}: {longest_wait:?}");
        }
    }
}

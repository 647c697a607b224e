//! Counts of lost events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::document::{LossReason, LostEvents};

/// Losses that were not reported to an observer yet.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<u8, (LossReason, Option<u64>)>);

impl Losses {
    /// Adds lost events; `None` if their number is not known.
    pub(super) fn add(&mut self, reason: LossReason, events: Option<u64>) {
        if events == Some(0) {
            return;
        }
        let (_, count) = self.0.entry(reason as u8).or_insert((reason, Some(0)));
        *count = count.zip(events).map(|(before, more)| before.saturating_add(more));
    }

    /// Takes the losses.
    pub(super) fn take(&mut self) -> Vec<LostEvents> {
        let losses = std::mem::take(&mut self.0).into_values();
        losses.map(|(reason, events)| LostEvents { reason, events }).collect()
    }
}

/// The greatest time that the kernel holds a logged packet back, to send several at a time.
const HELD_BACK: Duration = Duration::from_millis(300);

/// Drops that rules did not log because of their rate limit: the increase of the counters of all drops, less the
/// packets that were received and those that the kernel could not deliver.
#[derive(Debug, Default)]
pub(super) struct RateLimitLosses {
    /// The values of the counters at the start.
    base: Option<HashMap<String, u64>>,
    /// The drops since the start, as of the latest reading.
    dropped: Option<(Instant, u64)>,
    /// The latest time at which all packets had been read.
    drained: Option<Instant>,
    accounted: u64,
    reported: u64,
}

impl RateLimitLosses {
    /// Adds packets that were received, or that the kernel could not deliver. `drained`: the latest time at which there were no
    /// more.
    pub(super) fn account(
        &mut self,
        received: &HashMap<Arc<str>, u64>,
        lost_in_kernel: u64,
        drained: Option<Instant>,
    ) {
        self.drained = drained.or(self.drained);
        self.accounted += received.values().sum::<u64>() + lost_in_kernel;
    }

    /// Adds a reading of the counters.
    pub(super) fn read(&mut self, counters: HashMap<String, u64>, now: Instant) {
        let Some(base) = &self.base else {
            self.base = Some(counters);
            // What was received before the counters were read is not in their increase.
            self.accounted = 0;
            return;
        };
        let increase = |(name, packets): (&String, &u64)| {
            let before = base.get(name).copied().unwrap_or(0);
            // A counter that is lower was created again.
            if before > *packets { *packets } else { packets - before }
        };
        self.dropped = Some((now, counters.iter().map(increase).sum()));
    }

    /// Returns the number of drops that were not logged since the last call, once everything that was logged before the latest
    /// reading was received.
    pub(super) fn take(&mut self) -> u64 {
        // A reader that is behind has not received them yet.
        let is_received = |at: Instant| self.drained.is_some_and(|drained| drained >= at + HELD_BACK);
        let Some((_, dropped)) = self.dropped.filter(|(at, _)| is_received(*at)) else { return 0 };
        self.dropped = None;
        let missing = dropped.saturating_sub(self.accounted).saturating_sub(self.reported);
        self.reported += missing;
        missing
    }

    /// Returns true if the latest reading was evaluated.
    pub(super) fn is_settled(&self) -> bool {
        self.dropped.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_up_by_reason() {
        let mut losses = Losses::default();
        losses.add(LossReason::Kernel, Some(3));
        losses.add(LossReason::Observer, Some(1));
        losses.add(LossReason::Kernel, Some(4));
        losses.add(LossReason::RateLimit, Some(0));
        let lost = |reason, events| LostEvents { reason, events };
        assert_eq!(losses.take(), [lost(LossReason::Kernel, Some(7)), lost(LossReason::Observer, Some(1))]);
        assert_eq!(losses.take(), []);
        losses.add(LossReason::Kernel, None);
        losses.add(LossReason::Kernel, Some(4));
        assert_eq!(losses.take(), [lost(LossReason::Kernel, None)]);
    }

    #[test]
    fn drops_that_were_neither_received_nor_lost_exceed_the_rate_limit() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let counters = |values: &[(&str, u64)]| -> HashMap<String, u64> {
            values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        let received = |packets: u64| HashMap::from([(Arc::from("a"), packets)]);
        let mut losses = RateLimitLosses::default();
        losses.account(&received(5), 0, Some(at(0)));
        losses.read(counters(&[("a", 100), ("b", 7)]), at(0));
        losses.account(&received(10), 5, Some(at(900)));
        losses.read(counters(&[("a", 150), ("b", 7), ("c", 2)]), at(1000));
        assert_eq!(losses.take(), 0, "packets may be on their way");
        losses.account(&received(4), 0, None);
        assert_eq!(losses.take(), 0, "the reader is behind");
        losses.account(&received(3), 0, Some(at(1500)));
        assert_eq!(losses.take(), 52 - 22);
        assert!(losses.is_settled());
        // The counter b was created again, and everything was received.
        losses.account(&received(3), 0, None);
        losses.read(counters(&[("a", 150), ("b", 3), ("c", 2)]), at(3000));
        losses.account(&received(0), 0, Some(at(4000)));
        assert_eq!(losses.take(), 0);
        assert!(losses.is_settled());
    }
}

//! The times from changes of pods or Services to their rules, as kube-proxy measures them.

use std::time::Duration;

use jiff::Timestamp;
use portcullis_cluster::desired::MAX_TRIGGER_TIMES;

/// The trigger times of changes that are not programmed yet.
#[derive(Debug)]
pub(super) struct ProgrammingLatency {
    /// The start of the daemon: earlier trigger times are not measured.
    started: Timestamp,
    trigger_times: Vec<Timestamp>,
}

impl ProgrammingLatency {
    pub(super) fn new(started: Timestamp) -> Self {
        ProgrammingLatency { started, trigger_times: Vec::new() }
    }

    /// Adds the trigger times of changes that a sync takes. While syncs fail, only the oldest are kept.
    pub(super) fn add(&mut self, trigger_times: &[Timestamp]) {
        let since_start = trigger_times.iter().filter(|time| **time > self.started);
        self.trigger_times.extend(since_start.take(MAX_TRIGGER_TIMES - self.trigger_times.len()));
    }

    /// Returns the latencies of all changes after a successful sync.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<Duration> {
        let latency = |trigger| now.duration_since(trigger).unsigned_abs();
        std::mem::take(&mut self.trigger_times).into_iter().map(latency).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_since_the_start_are_measured_once() {
        let second = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
        let mut latency = ProgrammingLatency::new(second(0));
        latency.add(&[second(-5), second(1)]);
        latency.add(&[second(2)]);
        assert_eq!(latency.take(second(4)), [3, 2].map(Duration::from_secs));
        assert!(latency.take(second(5)).is_empty());
    }

    #[test]
    fn oldest_changes_are_kept_while_syncs_fail() {
        let second = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
        let mut latency = ProgrammingLatency::new(second(0));
        for n in 1..=30 {
            latency.add(&vec![second(n); 10_000]);
        }
        let latencies = latency.take(second(30));
        assert_eq!((latencies.len(), latencies.last()), (MAX_TRIGGER_TIMES, Some(&Duration::from_secs(20))));
    }
}

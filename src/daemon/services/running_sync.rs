//! The progress of a running sync, for the log and health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_modes::{ProgressSnapshot, SyncProgress};

/// A sync that takes longer than this is reported while it runs.
const LONG: Duration = Duration::from_secs(3);

/// Duration and progress of the running sync.
#[derive(Debug, Default)]
pub(super) struct RunningSync {
    counters: Option<Arc<SyncProgress>>,
    since: Option<Instant>,
    /// The steps that were done at the last poll.
    steps: usize,
    synced_before: bool,
}

/// The progress of a running sync since the last poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// It has finished a step.
    pub(super) has_stepped: bool,
    /// A description of its progress, if it takes long.
    pub(super) report: Option<String>,
}

impl RunningSync {
    /// Creates the progress of syncs with these counters; `None` for modes without counters, of which only the duration is
    /// reported.
    pub(super) fn new(counters: Option<Arc<SyncProgress>>) -> Self {
        RunningSync { counters, ..RunningSync::default() }
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.since = Some(now);
        self.steps = self.progressed().steps;
    }

    /// Records the end of the sync.
    pub(super) fn ended(&mut self, succeeded: bool) {
        self.synced_before |= succeeded;
        self.since = None;
    }

    /// Returns the progress of the running sync, if there is one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Progress> {
        let took = now - self.since?;
        let progressed = self.progressed();
        let has_stepped = std::mem::replace(&mut self.steps, progressed.steps) != progressed.steps;
        let which = if self.synced_before { "a sync" } else { "the first sync" };
        let report = (took >= LONG).then(|| {
            let so_far = self.counters.as_ref().map(|_| format!(": {progressed}")).unwrap_or_default();
            format!("{which} has been running for {} s{so_far}", took.as_secs())
        });
        Some(Progress { has_stepped, report })
    }

    fn progressed(&self) -> ProgressSnapshot {
        self.counters.as_ref().map(|counters| counters.now()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sync_is_reported_while_it_runs() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let counters = Arc::<SyncProgress>::default();
        let mut running = RunningSync::new(Some(Arc::clone(&counters)));
        assert_eq!(running.poll(start), None, "none runs");
        running.started(start);
        assert_eq!(running.poll(at(1)), Some(Progress { has_stepped: false, report: None }));
        let report = |running: &mut RunningSync, seconds| {
            let seen = running.poll(at(seconds)).expect("it runs");
            (seen.has_stepped, seen.report.expect("it takes long"))
        };
        let reading = "the first sync has been running for 5 s: reading the rules in the kernel";
        assert_eq!(report(&mut running, 5), (false, reading.to_owned()));
        counters.begin(3000);
        counters.step(20, 6000);
        counters.step(40, 5000);
        let written =
            "the first sync has been running for 10 s: 40 of 3000 Services written (11000 lines of rules)";
        assert_eq!(report(&mut running, 10), (true, written.to_owned()));
        assert!(!report(&mut running, 15).0, "it does nothing");
        running.ended(false);
        assert_eq!(running.poll(at(17)), None, "it has ended");
        running.started(at(20));
        assert!(report(&mut running, 25).1.starts_with("the first sync"), "the one before failed");
        running.ended(true);
        running.started(at(40));
        assert!(report(&mut running, 50).1.starts_with("a sync"));
    }
}
